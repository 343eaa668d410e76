"""Plans for an endpoint, applied to a simulated world in any order of events."""

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from mooring.domain import rollout
from mooring.domain.endpoint import Active, Change, Deployment, Endpoint, EndpointStatus, Variant, status_of
from mooring.domain.endpoint_config import ProductionVariant
from mooring.domain.ids import DeploymentId, EndpointConfigName, EndpointName, ModelName, PoolId, Scope, VariantName
from mooring.domain.model import Container, Model
from mooring.domain.restart import Cause, Failure
from mooring.domain.rollout import EndpointPlan, Observed, PoolState

SCOPE = Scope(account="000000000000", region="us-east-1")
BROKEN = Failure(cause=Cause.LOAD_FAILED)


def deployment(name: str, variants: dict[str, tuple[int, float]]) -> Deployment:
    return Deployment(
        id=DeploymentId(name),
        config_name=EndpointConfigName(name),
        variants=tuple(
            Variant(
                config=ProductionVariant(
                    name=VariantName(variant), model_name=ModelName("m"), instance_type="ml.m5.large"
                ),
                model=Model(
                    scope=SCOPE, name=ModelName("m"), created_at_s=0, containers=(Container(image=f"image-{name}"),)
                ),
                desired_weight=weight,
                desired_count=count,
            )
            for variant, (count, weight) in variants.items()
        ),
    )


def endpoint(desired: Deployment, *, active: Deployment | None = None, change: Change = Change.CREATE) -> Endpoint:
    return Endpoint(
        scope=SCOPE,
        name=EndpointName("e"),
        created_at_s=0,
        modified_at_s=0,
        generation=1 if active is None else 2,
        change=change,
        desired=desired,
        observed_generation=0 if active is None else 1,
        active=None if active is None else Active(deployment=active),
    )


@dataclass
class World:
    """Pools as the plans want them; health and failure come as events."""

    row: Endpoint
    pools: dict[PoolId, PoolState] = field(default_factory=dict)
    wanted: dict[PoolId, int] = field(default_factory=dict)
    traffic: tuple[rollout.Traffic, ...] | None = None
    removed: bool = False

    def step(self) -> EndpointPlan:
        plan = rollout.plan_endpoint(self.row, Observed(pools=dict(self.pools), leftover=len(self.pools)))
        for wish in plan.pools:
            state = self.pools.setdefault(wish.pool_id, PoolState(resolved_image="r", resolved_at_s=1))
            # a surplus leaves the routes the moment it is not wanted
            self.pools[wish.pool_id] = replace(state, healthy=min(state.healthy, wish.count))
            self.wanted[wish.pool_id] = wish.count
        self.traffic = plan.traffic
        if plan.conclusion is not None:
            self.row = replace(
                self.row,
                observed_generation=plan.conclusion.generation,
                active=plan.conclusion.active,
                failure_reason=plan.conclusion.failure_reason,
            )
        elif plan.report is not None:
            self.row = replace(self.row, active=plan.report)
        keep = {wish.pool_id for wish in plan.pools}
        self.pools = {pool_id: state for pool_id, state in self.pools.items() if pool_id in keep}
        self.removed |= plan.remove
        return plan

    def serving(self) -> dict[str, int]:
        return {share.variant: self.pools[share.pool_id].healthy for share in self.traffic or ()}

    def grow(self, pool_id: PoolId) -> None:
        state = self.pools.get(pool_id)
        if state is not None and state.healthy < self.wanted[pool_id]:
            self.pools[pool_id] = replace(state, healthy=state.healthy + 1)


VARIANTS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.tuples(st.integers(1, 3), st.floats(0, 5)), min_size=1, max_size=3
)


def settled(active: Deployment, desired: Deployment, change: Change) -> World:
    """Everything of `active` is healthy and takes traffic; `desired` was just asked for."""
    world = World(endpoint(active))
    world.step()
    for _ in range(3):
        for pool_id in list(world.pools):
            world.grow(pool_id)
    world.step()
    world.step()
    assert status_of(world.row) is EndpointStatus.IN_SERVICE
    world.row = replace(world.row, generation=2, change=change, desired=desired)
    return world


@given(VARIANTS, VARIANTS, st.data())
def test_an_update_never_dips_below_the_old_pool_and_ends_on_the_new_one(old, new, data) -> None:
    before, after = deployment("old", old), deployment("new", new)
    world = settled(before, after, Change.UPDATE)
    for _ in range(60):
        world.step()
        if status_of(world.row) is EndpointStatus.IN_SERVICE:
            break
        serving = world.serving()
        assert serving == {name: count for name, (count, _) in old.items()}
        unready = [pool_id for pool_id, state in world.pools.items() if state.healthy < world.wanted[pool_id]]
        if unready:
            world.grow(data.draw(st.sampled_from(unready)))
    assert world.row.active is not None
    assert world.row.active.deployment == after
    assert world.serving() == {name: count for name, (count, _) in new.items()}
    world.step()
    assert set(world.pools) == {after.pool_id(VariantName(name)) for name in new}
    assert {image.specified_image for images in world.row.active.images.values() for image in images} == {"image-new"}


@given(VARIANTS, VARIANTS, st.data())
def test_a_failed_update_never_touches_the_old_traffic(old, new, data) -> None:
    before, after = deployment("old", old), deployment("new", new)
    world = settled(before, after, Change.UPDATE)
    traffic = world.traffic
    world.step()
    failing = after.pool_id(VariantName(data.draw(st.sampled_from(sorted(new)))))
    world.pools[failing] = replace(world.pools[failing], failure=BROKEN)
    while status_of(world.row) is EndpointStatus.UPDATING:
        assert world.traffic == traffic
        world.step()
    world.step()
    assert world.traffic == traffic
    assert world.row.active is not None
    assert world.row.active.deployment == before
    assert world.row.failure_reason
    assert set(world.pools) == {before.pool_id(VariantName(name)) for name in old}


@given(VARIANTS, st.data())
def test_changed_weights_and_counts_keep_what_was_and_end_as_asked(old, data) -> None:
    new = {name: data.draw(st.tuples(st.integers(0, 4), st.floats(0, 5))) for name in old}
    before, after = deployment("same", old), deployment("same", new)
    world = settled(before, after, Change.WEIGHTS)
    for _ in range(60):
        world.step()
        if status_of(world.row) is EndpointStatus.IN_SERVICE:
            break
        serving = world.serving()
        assert all(serving[name] >= old[name][0] for name in old)
        assert [share.weight for share in world.traffic or ()] == [weight for _, weight in old.values()]
        for pool_id in list(world.pools):
            world.grow(pool_id)
    world.step()
    assert world.serving() == {name: count for name, (count, _) in new.items()}
    assert [share.weight for share in world.traffic or ()] == [weight for _, weight in new.values()]
    assert world.row.active is not None
    assert dict(world.row.active.current_counts) == {name: count for name, (count, _) in new.items()}
    assert world.row.failure_reason is None


def test_a_scale_out_that_fails_restores_counts_and_weights() -> None:
    before, after = deployment("same", {"a": (1, 1.0)}), deployment("same", {"a": (2, 9.0)})
    world = settled(before, after, Change.WEIGHTS)
    plan = world.step()
    assert [(wish.count, wish.proven) for wish in plan.pools] == [(2, 0)]
    world.pools[before.pool_id(VariantName("a"))] = PoolState(healthy=1, failure=BROKEN)
    world.step()
    plan = world.step()
    assert [(wish.count, wish.proven) for wish in plan.pools] == [(1, 1)]
    assert world.row.active is not None
    assert world.row.active.deployment == before
    assert "did not pass the ping health check" in str(world.row.failure_reason)


def test_a_failed_create_has_no_route_and_no_pools() -> None:
    wanted = deployment("d", {"a": (1, 1.0), "b": (1, 1.0)})
    world = World(endpoint(wanted))
    world.step()
    world.pools[wanted.pool_id(VariantName("b"))] = PoolState(failure=BROKEN)
    world.step()
    assert status_of(world.row) is EndpointStatus.FAILED
    assert world.traffic is None
    world.step()
    assert not world.pools


def test_a_create_is_concluded_only_when_every_variant_is_at_its_count() -> None:
    wanted = deployment("d", {"a": (2, 1.0), "b": (1, 1.0)})
    world = World(endpoint(wanted))
    world.step()
    for pool_id, times in ((wanted.pool_id(VariantName("a")), 2), (wanted.pool_id(VariantName("b")), 1)):
        for _ in range(times):
            assert world.step().conclusion is None
            world.grow(pool_id)
    assert world.step().conclusion is not None


def test_deleting_removes_route_then_pools_then_the_row() -> None:
    world = settled(deployment("d", {"a": (1, 1.0)}), deployment("d", {"a": (1, 1.0)}), Change.WEIGHTS)
    world.row = replace(world.row, deleting=True, generation=3)
    plan = world.step()
    assert plan.traffic is None
    assert not plan.pools
    assert not plan.remove
    assert world.step().remove


def test_what_this_machine_cannot_hold_fails_the_change_with_what_lacks() -> None:
    wanted = deployment("d", {"a": (1, 1.0)})
    plan = rollout.plan_endpoint(
        endpoint(wanted), Observed(refused={wanted.pool_id(VariantName("a")): "it has no GPU"})
    )
    assert plan.conclusion is not None
    assert "InsufficientInstanceCapacity" in str(plan.conclusion.failure_reason)
    assert "it has no GPU" in str(plan.conclusion.failure_reason)


def test_a_steady_endpoint_reports_only_what_changed() -> None:
    wanted = deployment("d", {"a": (2, 1.0)})
    world = settled(wanted, wanted, Change.WEIGHTS)
    world.step()
    assert world.step().report is None
    pool_id = wanted.pool_id(VariantName("a"))
    world.pools[pool_id] = replace(world.pools[pool_id], healthy=1)
    plan = world.step()
    assert plan.report is not None
    assert dict(plan.report.current_counts) == {"a": 1}
    assert world.step().report is None
