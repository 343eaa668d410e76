"""The reconciler over the real SQLite store, on real time: killed at random moments of an endpoint's whole life."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.reconcile.harness import SCOPE, Scene, deployment

from mooring.domain.endpoint import Change, Deployment, Endpoint, EndpointStatus, status_of
from mooring.domain.ids import EndpointName, InstanceId
from mooring.reconcile.lives import Timings
from mooring.store.sqlite import SqliteStore


class Life:
    """One endpoint's wishes, written to the store as control does."""

    def __init__(self, on: Scene, store: SqliteStore) -> None:
        self.on = on
        self.store = store

    async def row(self) -> Endpoint | None:
        return await self.store.get_endpoint(SCOPE, "e")

    async def create(self, wanted: Deployment) -> None:
        row = Endpoint(
            scope=SCOPE,
            name=EndpointName("e"),
            created_at_s=1.0,
            modified_at_s=1.0,
            generation=1,
            change=Change.CREATE,
            desired=wanted,
        )
        await self.store.create_endpoint(row, [])
        self.on.reconciler.wake(row.key)

    async def change(self, wanted: Deployment, change: Change) -> None:
        row = await self.row()
        assert row is not None
        await self.store.set_desired(
            SCOPE, "e", expected_generation=row.generation, change=change, desired=wanted, now_s=2.0
        )
        self.on.reconciler.wake(row.key)

    async def delete(self) -> None:
        row = await self.row()
        assert row is not None
        await self.store.set_deleting(SCOPE, "e", expected_generation=row.generation, now_s=3.0)
        self.on.reconciler.wake(row.key)

    async def until(self, condition: Callable[[Endpoint | None], bool], instances: int) -> Endpoint | None:
        async with asyncio.timeout(60):
            while True:
                row = await self.row()
                records = await self.store.all_instances()
                if condition(row) and len(records) == instances == len(self.on.driver.instances):
                    assert {record.spec.instance_id for record in records} == set(self.on.driver.instances)
                    return row
                await asyncio.sleep(0.005)


def in_service(deployment_id: str, count: int) -> Callable[[Endpoint | None], bool]:
    def check(row: Endpoint | None) -> bool:
        return (
            row is not None
            and status_of(row) is EndpointStatus.IN_SERVICE
            and row.active is not None
            and row.active.deployment.id == deployment_id
            and row.active.current_counts == {"a": count}
        )

    return check


@pytest.mark.parametrize("seed", range(4))
async def test_a_whole_life_converges_step_by_step_whenever_the_process_is_killed(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = SqliteStore(tmp_path / "state.db")
    await store.start()
    on = Scene(
        tmp_path / "r",
        store=store,
        timings=Timings(drain_look_s=0.005, insist_first_s=0.01),
        resync_s=0.2,
        slots_file=tmp_path / "slots",
    )
    on.edge.start()
    await on.reconciler.start()
    life = Life(on, store)

    async def kill_sometimes() -> None:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(chance.uniform(0, 0.04))
            await on.reconciler.aclose()
            # What a killed process had queued is committed before its successor opens the store, or never. The two share
            # a store here, which commits in order: when one more write is through, all are.
            await store.remove_instance(InstanceId("none"))
            await on.restart()

    try:
        await life.create(deployment("d1", ("a", 2, 1.0), model="slow"))
        await kill_sometimes()
        await life.until(in_service("d1", 2), 2)
        await life.change(deployment("d1", ("a", 3, 1.0)), Change.WEIGHTS)
        await kill_sometimes()
        await life.until(in_service("d1", 3), 3)
        await life.change(deployment("d2", ("a", 1, 1.0)), Change.UPDATE)
        await kill_sometimes()
        await life.until(in_service("d2", 1), 1)
        await life.change(deployment("d3", ("a", 2, 1.0), model="unloadable"), Change.UPDATE)
        await kill_sometimes()
        row = await life.until(in_service("d2", 1), 1)
        assert row is not None
        assert "did not pass the ping health check" in str(row.failure_reason)
        await life.delete()
        await kill_sometimes()
        await life.until(lambda found: found is None, 0)
        assert not on.edge.route("e")
    finally:
        await on.aclose()
        await store.aclose()


async def test_many_endpoints_at_once_all_come_into_service(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.start()
    on = Scene(tmp_path / "r", store=store)
    on.edge.start()
    await on.reconciler.start()
    try:
        for number in range(16):
            row = Endpoint(
                scope=SCOPE,
                name=EndpointName(f"e{number}"),
                created_at_s=1.0,
                modified_at_s=1.0,
                generation=1,
                change=Change.CREATE,
                desired=deployment(f"d{number}", ("a", 2, 1.0)),
            )
            await store.create_endpoint(row, [])
            on.reconciler.wake(row.key)
        async with asyncio.timeout(60):
            while {status_of(row) for row in await store.all_endpoints()} != {EndpointStatus.IN_SERVICE}:
                await asyncio.sleep(0.01)
        assert all(len(on.edge.instances(f"e{number}")["a"]) == 2 for number in range(16))
        assert await on.reconciler.stop_all_instances(timeout_s=30)
        assert not await store.all_instances()
    finally:
        await on.aclose()
        await store.aclose()
