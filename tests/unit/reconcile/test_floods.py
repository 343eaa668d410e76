"""Many instances wanted at once: they start a few at a time, within memory, and beside others. In virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.reconcile.harness import GIB, Scene, deployment, run_virtual, scene

from mooring.domain import capacity
from mooring.domain.endpoint import Change, EndpointStatus
from mooring.domain.instance import Handle, InstanceSpec
from mooring.domain.pool import MemberState
from mooring.runtime.driver import Prepared, Progress

LIMIT = 8  # twice the scene's CPUs


@pytest.fixture
def played(tmp_path: Path) -> Callable[..., None]:
    def play(story: Any, **arguments: Any) -> None:
        async def run() -> None:
            async with scene(tmp_path, **arguments) as made:
                await story(made)

        run_virtual(run())

    return play


def watch(on: Scene, look: Callable[[InstanceSpec], None]) -> None:
    """Have `look` called whenever an instance begins to be prepared."""
    prepare = on.driver.prepare

    async def watched(spec: InstanceSpec, progress: Progress) -> Prepared:
        look(spec)
        return await prepare(spec, progress)

    on.driver.prepare = watched  # type: ignore[method-assign]


def starting(on: Scene) -> int:
    return sum(view.state is MemberState.STARTING for view in on.reconciler.status().instances)


def test_only_so_many_starts_are_under_way_at_once(played) -> None:
    async def story(on: Scene) -> None:
        seen: list[int] = []
        watch(on, lambda _: seen.append(starting(on)))
        await on.in_service("e", deployment("d1", ("a", 50, 1.0), model="slow"))
        assert max(seen) == LIMIT - 1
        assert len(on.driver.started) == 50
        on.assert_converged()

    played(story)


def test_many_pools_together_keep_to_the_limit(played) -> None:
    async def story(on: Scene) -> None:
        seen: list[int] = []
        watch(on, lambda _: seen.append(starting(on)))
        for number in range(8):
            on.store.create(f"e{number}", deployment(f"d{number}", ("a", 2, 1.0), ("b", 2, 1.0), model="slow"))
            on.wake(f"e{number}")
        for number in range(8):
            await on.until_status(f"e{number}", EndpointStatus.IN_SERVICE)
        assert max(seen) == LIMIT
        on.assert_converged()

    played(story)


def test_a_lost_instance_is_replaced_at_once_beside_a_flood_that_gets_nowhere(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("small", deployment("d1", ("a", 1, 1.0)))
        on.store.create("flood", deployment("d2", ("a", 40, 1.0), model="deaf"))
        on.wake("flood")
        await on.until(lambda: len(on.driver.started) == LIMIT)  # one is small's
        before = asyncio.get_running_loop().time()
        on.driver.alive()[0].die()
        await on.until(lambda: on.edge.routed("small") == {"none"} or len(on.driver.started) > LIMIT)
        await on.until(lambda: bool(on.edge.routed("small")))
        assert asyncio.get_running_loop().time() - before < 1.0
        assert sum(each.spec.image == "good" for each in on.driver.alive()) == 1

    played(story)


def test_starts_that_take_long_let_others_start_beside_them(played) -> None:
    async def story(on: Scene) -> None:
        on.store.create("long", deployment("d1", ("a", 7, 1.0), model="deaf"))
        on.store.create("too", deployment("d2", ("a", 7, 1.0), model="deaf"))
        on.wake("long")
        on.wake("too")
        await on.until(lambda: len(on.driver.started) == LIMIT)
        began = asyncio.get_running_loop().time()
        await on.in_service("quick", deployment("d3", ("a", 3, 1.0)))
        assert asyncio.get_running_loop().time() - began < 15
        assert on.status("long") is EndpointStatus.CREATING

    played(story)


def test_a_pool_without_room_stands_in_nobodys_way(played) -> None:
    async def story(on: Scene) -> None:
        on.reconciler._pools._room = replace(
            on.reconciler._pools._room, rules=capacity.CapacityRules(memory="reserve", memory_floor_bytes=0)
        )
        await on.in_service("most", deployment("d1", ("a", 7, 1.0)))
        on.store.create("none", deployment("d2", ("a", 3, 1.0)))
        on.wake("none")
        await on.until_status("none", EndpointStatus.FAILED)
        said = [text for _, _, text in on.lines if text.startswith("No instance is started")]
        assert len(said) == 1, "each seat asked for itself"
        on.store.update("most", deployment("d1", ("a", 6, 1.0)), Change.WEIGHTS)
        on.wake("most")
        await on.until_status("most", EndpointStatus.IN_SERVICE)
        await on.in_service("two", deployment("d3", ("a", 1, 1.0)))

    played(story)


def test_starts_under_way_count_with_the_memory_of_their_siblings(played) -> None:
    async def story(on: Scene) -> None:
        free, size = 10 * GIB, 3 * GIB
        taken: set[str] = set()

        def inventory() -> capacity.Inventory:
            for view in on.reconciler.status().instances:
                if view.state is MemberState.HEALTHY:
                    taken.add(view.instance_id)
            used = size * sum(each.spec.instance_id in taken for each in on.driver.alive())
            assert used <= free, "the machine is out of memory"
            return replace(on.inventory, memory_available_bytes=free - used)

        async def footprint(handle: Handle) -> int:
            await asyncio.sleep(0)
            return size

        on.reconciler._pools._room = capacity_room(on, inventory, footprint)
        await on.in_service("e", deployment("d1", ("a", 1, 1.0), model="slow"))
        on.store.update("e", deployment("d1", ("a", 9, 1.0), model="slow"), Change.WEIGHTS)
        on.wake("e")
        await on.until_status("e", EndpointStatus.IN_SERVICE)
        row = on.store.endpoints["e"]
        assert "one takes about 3 GiB" in row.failure_reason
        assert on.driver.most_alive == 3, "3 × 3 GiB of 10"
        await on.until(lambda: len(on.driver.alive()) == 1)

    played(story)


def capacity_room(
    on: Scene, inventory: Callable[[], capacity.Inventory], footprint: Callable[[Handle], Awaitable[int]]
) -> Any:
    rules = capacity.CapacityRules(memory_floor_bytes=0)
    return replace(on.reconciler._pools._room, inventory=inventory, footprint=footprint, rules=rules)
