"""Messages of the route channel between control and its subscribers (edge workers, the S3 process).

    subscriber                     control
    Hello{worker, pid}      ──▶
                            ◀──    RouteTable (whole, at once and after every publication)
    Ack{generation}         ──▶

Wire: kit.frames with msgspec JSON.
"""

from dataclasses import dataclass

S3_WORKER = -1  # the S3 process subscribes for credentials; its acknowledgements are not waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First frame of a subscriber."""

    worker: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The subscriber has swapped in this generation: every request it takes from now on sees it."""

    generation: int
