"""Everything at once, at random, in virtual time: wishes, crashes of instances, of edges and of the process itself.

While the storm lasts no status may lie; when it is over, the wish of each endpoint is true and nothing else is there.
"""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from tests.unit.reconcile.harness import Freeze, Scene, deployment, run_virtual, scene

from mooring.domain.endpoint import Change, EndpointStatus, is_busy, status_of
from mooring.domain.ids import DeploymentId
from mooring.runtime.driver import DriverError

NAMES = ("e", "f", "g")
MODELS = ("good", "good", "slow", "dies", "unloadable", "missing", "stubborn")


class Storm:
    def __init__(self, on: Scene, seed: int) -> None:
        self.on = on
        self.chance = random.Random(seed)
        self.serial = 0

    def fleet(self, deployment_id: str | None = None, names: tuple[str, ...] | None = None):
        self.serial += 1
        names = names or tuple(self.chance.sample(["a", "b", "c"], self.chance.randint(1, 2)))
        variants = [(name, self.chance.randint(1, 3), self.chance.choice([0.0, 1.0, 2.5])) for name in names]
        return deployment(deployment_id or f"d{self.serial}", *variants, model=self.chance.choice(MODELS))

    def wish(self) -> None:
        """What control would accept now."""
        store, name = self.on.store, self.chance.choice(NAMES)
        row = store.endpoints.get(name)
        if row is None:
            store.create(name, self.fleet())
        elif row.deleting:
            return
        elif self.chance.random() < 0.2:
            store.delete(name)
        elif is_busy(row) or row.active is None:
            return
        elif self.chance.random() < 0.5:
            store.update(name, self.fleet())
        else:
            active = row.active.deployment
            variants = tuple((variant.config.name, self.chance.randint(1, 3), 1.0) for variant in active.variants)
            model = active.variants[0].model.containers[0].image
            store.update(name, deployment(DeploymentId(active.id), *variants, model=model), Change.WEIGHTS)
        if self.chance.random() < 0.9:
            self.on.wake(name)

    async def blow(self) -> None:
        on, chance = self.on, self.chance
        match chance.choice(["wish"] * 6 + ["crash"] * 3 + ["hang", "restart", "freeze", "edge", "trouble"]):
            case "wish":
                self.wish()
            case "crash" if on.driver.alive():
                chance.choice(on.driver.alive()).die(chance.choice([0, 1, -9]))
            case "hang" if on.driver.alive():
                chance.choice(on.driver.alive()).answers = False
            case "restart":
                await on.restart()
            case "freeze":
                on.store.freeze = on.driver.freeze = Freeze(chance.randint(1, 12), after_effect=chance.random() < 0.5)
                await asyncio.sleep(chance.uniform(0, 12))
                await on.restart()
            case "edge":
                await on.edge.aclose()
                on.edge.start()
            case "trouble":
                method = chance.choice(["prepare", "start", "stop", "remove"])
                on.driver.trouble[method] = [DriverError("busy", retryable=True)]
        await asyncio.sleep(chance.choice([0, 0.001, 0.01, 0.1, 1, 10, 30]))

    def calm(self) -> bool:
        on = self.on
        alive = {instance.spec.instance_id for instance in on.driver.alive()}
        if not (alive == set(on.driver.instances) == set(on.store.instances)):
            return False
        wanted: Counter[str] = Counter()
        for row in on.store.endpoints.values():
            if is_busy(row):
                return False
            if row.active is not None:
                for variant in row.active.deployment.variants:
                    wanted[row.active.deployment.pool_id(variant.config.name)] += variant.desired_count
                    if len(on.edge.instances(row.name)[variant.config.name]) != variant.desired_count:
                        return False
        have = Counter(instance.spec.pool_id for instance in on.driver.alive())
        routed = {each for name in NAMES for each in on.edge.routed(name)}
        return have == wanted and routed == alive


async def live(on: Scene, seed: int) -> None:
    storm = Storm(on, seed)
    for _ in range(40):
        await storm.blow()
        for row in on.store.endpoints.values():
            if status_of(row) is EndpointStatus.IN_SERVICE and on.edge.tables and row.active is not None:
                route = on.edge.route(row.name)
                assert route is not None, "in service, and an edge knows nothing of it"
                assert [v.name for v in route.variants] == [v.config.name for v in row.active.deployment.variants]
    on.driver.trouble.clear()
    await on.until(storm.calm, within_s=1000)
    assert len(on.driver.started) == len(set(on.driver.started))


@pytest.mark.parametrize("seed", range(12))
def test_after_any_storm_every_wish_is_true_and_nothing_else_is_there(tmp_path: Path, seed: int) -> None:
    async def play() -> None:
        async with scene(tmp_path) as on:
            await live(on, seed)

    run_virtual(play())
