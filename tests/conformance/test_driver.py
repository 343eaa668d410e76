"""What every Driver does: one suite, run on the process driver (real sandboxes) and on the fake."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from tests.integration import process_rig as rig

from mooring.domain.ids import InstanceId
from mooring.domain.instance import Handle, InstanceSpec
from mooring.kit.clock import token_hex
from mooring.runtime import fake
from mooring.runtime.driver import Driver, Prepared


class World(Protocol):
    """A driver and its restart."""

    async def driver(self) -> Driver:
        """A driver of a new server life over the same machine."""

    async def prepared(self, spec: InstanceSpec) -> Prepared: ...

    async def stubborn(self, spec: InstanceSpec) -> Prepared:
        """Of an instance that ignores SIGTERM."""


class FakeWorld:
    def __init__(self, directory: Path) -> None:
        self.machine = fake.FakeMachine(directory)
        self.machine.default = fake.Behaviour(output="server is up\n")

    async def driver(self) -> Driver:
        return fake.FakeDriver(self.machine)

    async def prepared(self, spec: InstanceSpec) -> Prepared:
        return await fake.FakeDriver(self.machine).prepare(spec, print)

    async def stubborn(self, spec: InstanceSpec) -> Prepared:
        self.machine.default = fake.Behaviour(ignores_stop=True)
        return await self.prepared(spec)


class ProcessWorld:
    def __init__(self, data_dir: Path, node_id: str) -> None:
        self.data_dir = data_dir
        self.node_id = node_id

    async def driver(self) -> Driver:
        return await rig.open_driver(self.data_dir, node_id=self.node_id)

    async def prepared(self, spec: InstanceSpec) -> Prepared:
        return rig.prepared(self.data_dir)

    async def stubborn(self, spec: InstanceSpec) -> Prepared:
        return rig.prepared(self.data_dir, IGNORE_TERM="1")


@asynccontextmanager
async def _fake(tmp_path: Path) -> AsyncIterator[World]:
    world = FakeWorld(tmp_path)
    yield world
    await world.machine.aclose()


@asynccontextmanager
async def _process(tmp_path: Path) -> AsyncIterator[World]:
    node_id = f"test{token_hex(4)}"
    async with rig.driven(tmp_path, node_id):
        yield ProcessWorld(tmp_path, node_id)


@pytest.fixture(params=["fake", "process"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "process" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    async with (_fake if request.param == "fake" else _process)(tmp_path) as world:
        yield world


@pytest.fixture
async def driver(world: World) -> Driver:
    return await world.driver()


async def _started(world: World, driver: Driver, spec: InstanceSpec) -> Handle:
    handle = await driver.start(spec, await world.prepared(spec))
    await rig.healthy(handle)
    return handle


async def test_a_started_instance_answers_at_its_address(world: World, driver: Driver) -> None:
    spec = rig.spec()
    handle = await _started(world, driver, spec)
    assert handle.instance_id == spec.instance_id
    assert handle.resolved_image
    assert await rig.call(handle.address, b"hello") == b"hello"


async def test_wait_sees_the_exit_code_of_a_crash(world: World, driver: Driver) -> None:
    handle = await _started(world, driver, rig.spec())
    waiting = asyncio.ensure_future(driver.wait(handle))
    with pytest.raises(OSError):
        await rig.call(handle.address, b"exit 3")
    outcome = await asyncio.wait_for(waiting, rig.DEADLINE_S)
    assert outcome.code == 3
    assert not outcome.oom_killed
    assert "server is up" in outcome.last_words
    assert await driver.wait(handle) == outcome


async def test_wait_can_be_cancelled_and_begun_again(world: World, driver: Driver) -> None:
    handle = await _started(world, driver, rig.spec())
    waiting = asyncio.ensure_future(driver.wait(handle))
    await rig.healthy(handle)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await rig.call(handle.address, b"still there") == b"still there"
    waiters = [asyncio.ensure_future(driver.wait(handle)) for _ in range(5)]
    await driver.stop(handle, grace_s=10)
    assert {outcome.code for outcome in await asyncio.gather(*waiters)} == {0}


async def test_stop_lets_the_server_end_itself_and_may_be_repeated(world: World, driver: Driver) -> None:
    handle = await _started(world, driver, rig.spec())
    assert (await driver.stop(handle, grace_s=20)).code == 0
    assert (await driver.stop(handle, grace_s=20)).code == 0


async def test_a_server_that_ignores_sigterm_is_killed_after_the_grace(world: World, driver: Driver) -> None:
    spec = rig.spec()
    handle = await driver.start(spec, await world.stubborn(spec))
    await rig.healthy(handle)
    assert (await driver.stop(handle, grace_s=0.2)).code == -9


async def test_stops_at_once_all_get_the_same_end(world: World, driver: Driver) -> None:
    handle = await _started(world, driver, rig.spec())
    ends = await asyncio.gather(*(driver.stop(handle, grace_s=10) for _ in range(8)))
    assert {end.code for end in ends} == {0}


async def test_a_new_life_recovers_an_instance_with_and_without_its_handle(world: World, driver: Driver) -> None:
    spec = rig.spec()
    handle = await _started(world, driver, spec)
    successor = await world.driver()
    assert await successor.recover(spec, handle) == handle
    assert await successor.recover(spec, None) == handle
    assert await rig.call(handle.address, b"hello") == b"hello"
    assert (await successor.stop(handle, grace_s=10)).code == 0


async def test_an_instance_that_ended_meanwhile_is_not_recovered(world: World, driver: Driver) -> None:
    spec = rig.spec()
    handle = await _started(world, driver, spec)
    with pytest.raises(OSError):
        await rig.call(handle.address, b"exit 0")
    await driver.wait(handle)
    successor = await world.driver()
    assert await successor.recover(spec, handle) is None
    assert await successor.recover(spec, None) is None


async def test_an_intent_that_never_started_is_not_recovered(driver: Driver) -> None:
    assert await driver.recover(rig.spec("never"), None) is None


async def test_remove_kills_and_may_be_repeated(world: World, driver: Driver) -> None:
    spec = rig.spec()
    handle = await _started(world, driver, spec)
    await driver.remove(spec.instance_id)
    await driver.remove(spec.instance_id)
    await driver.remove(InstanceId("never"))
    with pytest.raises(OSError):
        await rig.call(handle.address, b"hello")
    assert await driver.recover(spec, handle) is None


async def test_wait_and_stop_return_for_an_instance_that_was_removed(world: World, driver: Driver) -> None:
    spec = rig.spec()
    handle = await _started(world, driver, spec)
    await driver.remove(spec.instance_id)
    assert (await driver.wait(handle)).code == -9
    assert (await driver.stop(handle, grace_s=1)).code == -9


async def test_sweep_removes_strays_and_spares_the_known(world: World, driver: Driver) -> None:
    known, stray = rig.spec("known"), rig.spec("stray")
    kept = await _started(world, driver, known)
    lost = await _started(world, driver, stray)
    successor = await world.driver()
    assert list(await successor.sweep({known.instance_id})) == [stray.instance_id]
    assert list(await successor.sweep({known.instance_id})) == []
    assert await rig.call(kept.address, b"hello") == b"hello"
    with pytest.raises(OSError):
        await rig.call(lost.address, b"hello")


async def test_an_instance_may_be_started_again_under_its_id(world: World, driver: Driver) -> None:
    spec = rig.spec()
    await _started(world, driver, spec)
    again = await _started(world, driver, spec)
    assert await rig.call(again.address, b"hello") == b"hello"
    assert await driver.recover(spec, again) == again


async def test_last_words_are_bounded(world: World, driver: Driver) -> None:
    handle = await _started(world, driver, rig.spec())

    async def said() -> bool:
        return "server is up" in await driver.last_words(handle, max_bytes=4096)

    await rig.until(said, "the first line")
    assert len(await driver.last_words(handle, max_bytes=4)) <= 4


async def test_many_instances_live_beside_each_other(world: World, driver: Driver) -> None:
    handles = await asyncio.gather(*(_started(world, driver, rig.spec(f"i-{n}")) for n in range(6)))
    answers = await asyncio.gather(*(rig.call(h.address, h.instance_id.encode()) for h in handles))
    assert [answer.decode() for answer in answers] == [h.instance_id for h in handles]
