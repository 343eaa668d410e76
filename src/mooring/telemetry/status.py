"""What runs, in one value: `mooring status` prints it, metrics renders it. Pure over what the store and counters hold."""

from collections.abc import Callable, Sequence

import msgspec

from mooring.domain.endpoint import Endpoint, EndpointKey, Variant, status_of
from mooring.domain.instance import InstanceRecord
from mooring.invoke import counts
from mooring.kit.counters import Counters


class InstanceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One instance. `phase` as stored; `in_flight`: requests it has now."""

    id: str
    phase: str
    in_flight: int


class VariantReport(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of what serves (or of what is being started, while nothing does). Counts since the endpoint began."""

    name: str
    weight: float
    desired: int
    healthy: int
    invocations: int
    errors_4xx: int
    errors_5xx: int
    model_errors: int
    refused: int
    instances: list[InstanceReport]
    notes: list[str]
    slot: int | None

    @property
    def in_flight(self) -> int:
        """Requests in flight over all instances."""
        return sum(instance.in_flight for instance in self.instances)

    @property
    def errors(self) -> int:
        """Calls that the caller saw fail for the variant's sake."""
        return self.model_errors + self.refused


class EndpointReport(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint."""

    name: str
    status: str
    variants: list[VariantReport]
    failure_reason: str | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole server. `notes`: what this machine cannot give."""

    version: str
    url: str
    account: str
    region: str
    endpoints: list[EndpointReport]
    notes: list[str]
    workers: int  # edge workers that have routes


class Slots:
    """Where things are counted: two look-ups that return None for what has no slot."""

    def __init__(
        self, *, variant: Callable[[EndpointKey, str], int | None], instance: Callable[[str], int | None]
    ) -> None:
        self.variant = variant
        self.instance = instance


def observe(
    endpoints: Sequence[Endpoint], instances: Sequence[InstanceRecord], counters: Counters, slots: Slots
) -> list[EndpointReport]:
    """Reports of all endpoints, by name."""
    by_pool: dict[str, list[InstanceRecord]] = {}
    for record in instances:
        by_pool.setdefault(record.spec.pool_id, []).append(record)
    return [
        EndpointReport(
            name=endpoint.name,
            status=status_of(endpoint).value,
            failure_reason=endpoint.failure_reason,
            variants=[
                _variant(endpoint, variant, by_pool, counters, slots)
                for variant in (endpoint.active.deployment if endpoint.active else endpoint.desired).variants
            ],
        )
        for endpoint in sorted(endpoints, key=lambda each: each.name)
    ]


def _variant(
    endpoint: Endpoint,
    variant: Variant,
    by_pool: dict[str, list[InstanceRecord]],
    counters: Counters,
    slots: Slots,
) -> VariantReport:
    deployment = endpoint.active.deployment if endpoint.active else endpoint.desired
    name = variant.config.name
    slot = slots.variant(endpoint.key, name)
    members = by_pool.get(deployment.pool_id(name), [])

    def count(counter: int) -> int:
        return counters.counter_total(slot, counter) if slot is not None else 0

    return VariantReport(
        name=name,
        weight=variant.desired_weight,
        desired=variant.desired_count,
        healthy=endpoint.active.current_counts.get(name, 0) if endpoint.active else 0,
        invocations=count(counts.INVOCATIONS),
        errors_4xx=count(counts.INVOCATION_4XX),
        errors_5xx=count(counts.INVOCATION_5XX),
        model_errors=count(counts.INVOCATION_MODEL_ERRORS),
        refused=count(counts.REFUSED),
        instances=[_instance(record, counters, slots) for record in members],
        notes=sorted({note for record in members for note in record.spec.limits.notes}),
        slot=slot,
    )


def _instance(record: InstanceRecord, counters: Counters, slots: Slots) -> InstanceReport:
    slot = slots.instance(record.spec.instance_id)
    return InstanceReport(
        id=record.spec.instance_id,
        phase=record.phase.value,
        in_flight=counters.gauge_total(slot) if slot is not None else 0,
    )
