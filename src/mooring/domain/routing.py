"""Routes: the immutable snapshot that control publishes and edges swap in, and the pure choices made on it.

`slot` numbers index shared memory (kit.counters): instance slots hold in-flight counts, variant slots histograms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRoute:
    """One healthy instance. `address` as in domain.instance.Handle."""

    instance_id: str
    slot: int
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRoute:
    """One variant; `weight` ≥ 0 (0: reached by TargetVariant only). `container` is the word in ModelError texts."""

    name: str
    slot: int
    weight: float
    instances: tuple[InstanceRoute, ...]
    container: str = "primary"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRoute:
    """One endpoint that may be invoked."""

    account: str
    region: str
    name: str
    variants: tuple[VariantRoute, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A long-lived key as an edge needs it. `arn` is the caller's identity."""

    access_key: str
    secret_key: str = field(repr=False)
    account: str
    arn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """Everything an edge needs to serve, whole. `generation` rises with every publication of one control process."""

    generation: int
    endpoints: tuple[EndpointRoute, ...] = ()
    credentials: tuple[Credential, ...] = ()
    serving: bool = False  # /_mooring/health answers 200


def pick_variant(weights: Sequence[float], ticket: float) -> int:
    """Index of the variant that `ticket` (uniform in [0, 1)) falls on; P(i) = weight_i / Σ weights.

    Raises ValueError when no weight is positive.
    """
    total = sum(weights)
    if not total > 0:
        raise ValueError("no variant has a positive weight")
    mark = ticket * total
    last = -1
    for index, weight in enumerate(weights):
        if weight <= 0:
            continue
        last = index
        mark -= weight
        if mark < 0:
            return index
    return last  # rounding: the last variant that takes traffic


def pick_instance(in_flight: Sequence[int], ticket: float) -> int:
    """Index of the instance with the fewest requests in flight; ties are broken by `ticket` (uniform in [0, 1)).

    `in_flight` must not be empty.
    """
    least = min(in_flight)
    ties = [index for index, count in enumerate(in_flight) if count == least]
    return ties[min(int(ticket * len(ties)), len(ties) - 1)]
