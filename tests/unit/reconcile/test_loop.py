import asyncio
import itertools
import logging

import pytest
from tests.unit.reconcile.harness import LoopClock, run_virtual

from mooring.reconcile.loop import Loop, Temporary


def test_one_key_is_never_handled_twice_at_once_and_a_wake_meanwhile_is_not_lost() -> None:
    async def story() -> None:
        running: set[str] = set()
        handled: list[str] = []

        async def handle(key: str) -> None:
            assert key not in running
            running.add(key)
            await asyncio.sleep(1)
            running.discard(key)
            handled.append(key)

        loop: Loop[str] = Loop(handle=handle, resync=nothing, clock=LoopClock())
        loop.start()
        for key in ("a", "b", "a"):
            loop.wake(key)
        await asyncio.sleep(0.5)
        assert running == {"a", "b"}
        loop.wake("a")
        await asyncio.sleep(3)
        assert sorted(handled) == ["a", "a", "b"]
        await loop.aclose()

    run_virtual(story())


async def nothing() -> list[str]:
    return []


def test_no_more_keys_than_the_limit_are_handled_at_once() -> None:
    async def story() -> None:
        running, most, handled = 0, 0, 0

        async def handle(key: int) -> None:
            nonlocal running, most, handled
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1
            handled += 1

        loop: Loop[int] = Loop(handle=handle, resync=nothing, clock=LoopClock(), limit=3)
        loop.start()
        for key in range(10):
            loop.wake(key)
        await asyncio.sleep(5)
        assert (most, handled) == (3, 10)
        await loop.aclose()

    run_virtual(story())


@pytest.mark.parametrize(("error", "level"), [(Temporary("not now"), "INFO"), (KeyError("a bug"), "ERROR")])
def test_failures_back_off_and_bugs_are_logged(error: Exception, level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        times: list[float] = []

        async def handle(key: str) -> None:
            times.append(asyncio.get_running_loop().time())
            if len(times) < 4:
                raise error

        loop: Loop[str] = Loop(handle=handle, resync=nothing, clock=LoopClock())
        loop.start()
        loop.wake("a")
        await asyncio.sleep(60)
        waits = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert waits == pytest.approx([0.1, 0.2, 0.4])
        await loop.aclose()

    run_virtual(story())
    assert {record.levelname for record in caplog.records} == {level}


def test_the_resync_finds_what_no_wake_told_of_and_survives_its_own_failures() -> None:
    async def story() -> None:
        handled: list[str] = []
        answers = iter([Temporary("away"), ValueError("a bug"), ["a"]])

        async def resync() -> list[str]:
            answer = next(answers, ["b"])
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def handle(key: str) -> None:
            handled.append(key)

        loop: Loop[str] = Loop(handle=handle, resync=resync, clock=LoopClock(), resync_s=10)
        loop.start()
        await asyncio.sleep(45)
        assert handled == ["a", "b"]
        await loop.aclose()

    run_virtual(story())


def test_a_handler_may_ask_to_be_called_again() -> None:
    async def story() -> None:
        times: list[float] = []

        async def handle(key: str) -> float | None:
            times.append(asyncio.get_running_loop().time())
            return 2.0 if len(times) < 3 else None

        loop: Loop[str] = Loop(handle=handle, resync=nothing, clock=LoopClock())
        loop.start()
        loop.wake("a")
        await asyncio.sleep(20)
        assert [time - times[0] for time in times] == pytest.approx([0, 2, 4])
        await loop.aclose()

    run_virtual(story())
