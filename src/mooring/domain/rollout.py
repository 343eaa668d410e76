"""What one endpoint needs next: which pools, which traffic, and whether the newest generation is concluded.

    create   pools of desired ─▶ all healthy ─▶ traffic ─▶ InService         any variant fails ─▶ no pools, Failed
    update   active + desired ─▶ all healthy ─▶ switch traffic ─▶ active := desired, old pools go
                              └▶ one fails ─▶ active stays, traffic untouched, failure reason
    weights  max(old, new) counts ─▶ all healthy ─▶ new weights ─▶ concluded, surplus goes    fails ─▶ old counts, weights
    delete   no traffic ─▶ no pools ─▶ row removed

The plan is computed from scratch every time (level-triggered) and carried out in this order: pools wanted, traffic published
and acknowledged, conclusion written, pools no longer listed dropped. Called by reconcile.endpoints.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mooring.domain import restart
from mooring.domain.endpoint import Active, DeployedImage, Deployment, Endpoint, Variant
from mooring.domain.ids import PoolId
from mooring.domain.restart import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """What is observed of a pool. `healthy` counts instances that may take traffic."""

    healthy: int = 0
    failure: Failure | None = None
    resolved_image: str | None = None
    resolved_at_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWish:
    """A pool that must exist. `proven`: so many of its instances belong to what was in force before the change."""

    pool_id: PoolId
    variant: Variant
    count: int
    proven: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """A variant's share of an endpoint's requests."""

    variant: str
    pool_id: PoolId
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """The outcome of a generation, to be written once the plan's traffic is acknowledged."""

    generation: int
    active: Active | None
    failure_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPlan:
    """See the module. `traffic` None: the endpoint has no route. `report`: what serves now, where the row says otherwise."""

    pools: tuple[PoolWish, ...] = ()
    traffic: tuple[Traffic, ...] | None = None
    conclusion: Conclusion | None = None
    report: Active | None = None
    remove: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What an endpoint's plan is made from, beside its row. `leftover`: pools of this endpoint that still have instances."""

    pools: Mapping[PoolId, PoolState] = field(default_factory=dict)
    refused: Mapping[PoolId, str] = field(default_factory=dict)  # pools that this machine cannot hold, and why
    leftover: int = 0

    def pool(self, pool_id: PoolId) -> PoolState:
        """State of a pool; an empty one where it does not exist yet."""
        return self.pools.get(pool_id, PoolState())


def plan_endpoint(endpoint: Endpoint, observed: Observed) -> EndpointPlan:
    """The next plan; applied until nothing changes, it ends with no conclusion to write."""
    if endpoint.deleting:
        return EndpointPlan(remove=observed.leftover == 0)
    if endpoint.observed_generation >= endpoint.generation:
        return _plan_steady(endpoint, observed)
    if endpoint.active is not None and endpoint.active.deployment.id == endpoint.desired.id:
        return _plan_weights(endpoint, endpoint.active, observed)
    return _plan_rollout(endpoint, observed)


def traffic_of(deployment: Deployment) -> tuple[Traffic, ...]:
    """Traffic of a deployment in force, by its weights."""
    return tuple(
        Traffic(variant=variant.config.name, pool_id=_pool_id(deployment, variant), weight=variant.desired_weight)
        for variant in deployment.variants
    )


def active_traffic(endpoint: Endpoint) -> tuple[Traffic, ...] | None:
    """Traffic of what is in force; what a restarted server publishes first."""
    if endpoint.deleting or endpoint.active is None:
        return None
    return traffic_of(endpoint.active.deployment)


def _plan_steady(endpoint: Endpoint, observed: Observed) -> EndpointPlan:
    if endpoint.active is None:
        return EndpointPlan()  # Failed: nothing of it stays
    active = endpoint.active
    return EndpointPlan(
        pools=_in_force(active.deployment),
        traffic=traffic_of(active.deployment),
        report=_report(active, observed),
    )


def _plan_rollout(endpoint: Endpoint, observed: Observed) -> EndpointPlan:
    """Create, or update with a new deployment beside the old."""
    active, desired = endpoint.active, endpoint.desired
    old_pools = () if active is None else _in_force(active.deployment)
    old_traffic = active_traffic(endpoint)
    reason = _failure_of(desired, observed)
    if reason is not None:
        still = None if active is None else _measured(active, observed)
        return EndpointPlan(
            pools=old_pools, traffic=old_traffic, conclusion=_conclude(endpoint, still, failure_reason=reason)
        )
    new_pools = tuple(
        PoolWish(pool_id=_pool_id(desired, variant), variant=variant, count=variant.desired_count, proven=0)
        for variant in desired.variants
    )
    if not _all_healthy(desired, observed):
        report = None if active is None else _report(active, observed)
        return EndpointPlan(pools=old_pools + new_pools, traffic=old_traffic, report=report)
    return EndpointPlan(
        pools=old_pools + new_pools,
        traffic=traffic_of(desired),
        conclusion=_conclude(endpoint, _measured(Active(deployment=desired), observed)),
    )


def _plan_weights(endpoint: Endpoint, active: Active, observed: Observed) -> EndpointPlan:
    """Other weights and counts on the same pools: scaled out before success is said, scaled in after."""
    desired = endpoint.desired
    reason = _failure_of(desired, observed)
    if reason is not None:
        return EndpointPlan(
            pools=_in_force(active.deployment),
            traffic=traffic_of(active.deployment),
            conclusion=_conclude(endpoint, _measured(active, observed), failure_reason=reason),
        )
    old_counts = {variant.config.name: variant.desired_count for variant in active.deployment.variants}
    pools = []
    for variant in desired.variants:
        old = old_counts.get(variant.config.name, 0)
        count = max(old, variant.desired_count)
        # Where more are wanted, a new seat may fail and so fail the change; else what is in force is only kept up.
        proven = count if count == old else 0
        pools.append(PoolWish(pool_id=_pool_id(desired, variant), variant=variant, count=count, proven=proven))
    if not _all_healthy(desired, observed):
        return EndpointPlan(pools=tuple(pools), traffic=traffic_of(active.deployment), report=_report(active, observed))
    now_active = _measured(replace(active, deployment=desired), observed)
    return EndpointPlan(pools=tuple(pools), traffic=traffic_of(desired), conclusion=_conclude(endpoint, now_active))


def _conclude(endpoint: Endpoint, active: Active | None, *, failure_reason: str | None = None) -> Conclusion:
    return Conclusion(generation=endpoint.generation, active=active, failure_reason=failure_reason)


def _pool_id(deployment: Deployment, variant: Variant) -> PoolId:
    return deployment.pool_id(variant.config.name)


def _in_force(deployment: Deployment) -> tuple[PoolWish, ...]:
    return tuple(
        PoolWish(
            pool_id=_pool_id(deployment, variant),
            variant=variant,
            count=variant.desired_count,
            proven=variant.desired_count,
        )
        for variant in deployment.variants
    )


def _all_healthy(deployment: Deployment, observed: Observed) -> bool:
    return all(
        observed.pool(_pool_id(deployment, variant)).healthy >= variant.desired_count for variant in deployment.variants
    )


def _failure_of(deployment: Deployment, observed: Observed) -> str | None:
    """FailureReason of the first variant that cannot come to be."""
    for variant in deployment.variants:
        pool_id = _pool_id(deployment, variant)
        if pool_id in observed.refused:
            return restart.capacity_reason(observed.refused[pool_id])
        failure = observed.pool(pool_id).failure
        if failure is not None:
            return restart.failure_reason(variant.config.name, failure)
    return None


def _measured(active: Active, observed: Observed) -> Active:
    """`active` with counts and images as observed. Instances beyond the wanted count are on their way out."""
    counts: dict[str, int] = {}
    images: dict[str, tuple[DeployedImage, ...]] = {}
    for variant in active.deployment.variants:
        name = variant.config.name
        state = observed.pool(_pool_id(active.deployment, variant))
        counts[name] = min(state.healthy, variant.desired_count)
        if name in active.images:
            images[name] = active.images[name]
        elif state.resolved_image is not None:
            images[name] = (
                DeployedImage(
                    specified_image=variant.model.containers[0].image,
                    resolved_image=state.resolved_image,
                    resolved_at_s=state.resolved_at_s,
                ),
            )
    return replace(active, current_counts=counts, images=images)


def _report(active: Active, observed: Observed) -> Active | None:
    measured = _measured(active, observed)
    same = dict(measured.current_counts) == dict(active.current_counts) and dict(measured.images) == dict(active.images)
    return None if same else measured
