"""The seam that makes instances exist. Implementations: runtime.process (bubblewrap), runtime.fake (tests, shipped);
the container engine's comes in a later issue. One conformance suite runs on all of them (tests/conformance).

    prepare ──▶ start ──▶ (running) ──▶ stop ──▶ remove
                  │            ▲
                  └─ crash ─▶ recover (after a server restart)
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from mooring.domain.ids import InstanceId
from mooring.domain.instance import Exit, Handle, InstanceSpec


class DriverError(Exception):
    """An instance could not be made or driven. The text is fit for FailureReason. `retryable`: the same call may work
    later; False: it will fail again (bad artefact, unknown image, version that does not install).
    """

    def __init__(self, reason: str, *, retryable: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retryable = retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What this driver can promise on this machine; doctor and logs show it."""

    sandbox: bool  # namespaces: files, processes
    network_namespace: bool
    hard_limits: bool  # cgroups or engine
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Result of `prepare`: everything slow is done. `token` is the driver's own."""

    resolved_image: str
    resolved_at_s: float  # epoch
    token: object


Progress = Callable[[str], None]  # a line for the instance's log


class Driver(Protocol):
    """See the module. All methods may raise DriverError."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def prepare(self, spec: InstanceSpec, progress: Progress) -> Prepared:
        """Fetch and check artefacts, build or fetch the image. Slow, idempotent, single-flight per content."""

    async def start(self, spec: InstanceSpec, prepared: Prepared) -> Handle:
        """Start; returns when the process exists (not when it is healthy). Never leaves a process when it raises."""

    async def recover(self, spec: InstanceSpec, handle: Handle | None) -> Handle | None:
        """Find an instance of an earlier server life by its intent and, where known, handle; None when it is gone."""

    async def wait(self, handle: Handle) -> Exit:
        """Return when the instance has ended; at once when it has. Cancellable."""

    async def stop(self, handle: Handle, *, grace_s: float) -> Exit:
        """SIGTERM, SIGKILL after grace. Idempotent."""

    async def remove(self, instance_id: InstanceId) -> None:
        """Kill what is left and delete directories, cgroups. Idempotent. Logs stay."""

    async def sweep(self, known: Collection[InstanceId]) -> Sequence[InstanceId]:
        """Remove every instance of this data directory that is not in `known`; returns their ids."""

    async def last_words(self, handle: Handle, *, max_bytes: int) -> str:
        """The tail of the instance's output."""
