import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mooring.store import commits
from mooring.store.base import StoreError
from mooring.store.commits import Writer


class Rig:
    """A writer over one table, whose thread can be held."""

    def __init__(self, path: Path) -> None:
        self.engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)), connect_args={"check_same_thread": False}
        )
        self.commits = 0
        self.gate = threading.Event()
        sa.event.listen(self.engine, "connect", self._on_connect)
        sa.event.listen(self.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        with self.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        sa.event.listen(self.engine, "commit", self._on_commit)
        self.writer = Writer(self.engine)

    def _on_connect(self, connection: object, _record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]

    def _on_commit(self, _connection: sa.Connection) -> None:
        self.commits += 1

    def hold(self, _connection: sa.Connection) -> None:
        assert self.gate.wait(30)

    async def held(self) -> asyncio.Task[None]:
        """The thread is inside a write until `gate` is set."""
        task = asyncio.ensure_future(self.writer.submit(self.hold))
        await asyncio.sleep(0)
        return task

    def count(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM t").scalar_one())


def put(number: int) -> object:
    def write(connection: sa.Connection) -> int:
        connection.exec_driver_sql("INSERT INTO t VALUES (?)", (number,))
        return number

    return write


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "t.db")
    rig.writer.start()
    yield rig
    rig.gate.set()
    await rig.writer.aclose()
    rig.engine.dispose()


async def _queued(rig: Rig, numbers: range) -> list[asyncio.Task[int]]:
    tasks = [asyncio.ensure_future(rig.writer.submit(put(number))) for number in numbers]  # type: ignore[arg-type]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_what_waits_shares_one_commit_up_to_the_size_of_a_group(rig: Rig) -> None:
    first = await rig.held()
    tasks = await _queued(rig, range(commits.MAX_GROUP + 44))
    rig.gate.set()
    assert await asyncio.gather(*tasks) == list(range(commits.MAX_GROUP + 44))
    await first
    # The held write may have been taken alone or with what was queued by then.
    assert rig.commits in (2, 3)
    assert rig.count() == commits.MAX_GROUP + 44


async def test_a_write_that_raises_undoes_itself_alone(rig: Rig) -> None:
    first = await rig.held()

    def half(connection: sa.Connection) -> None:
        connection.exec_driver_sql("INSERT INTO t VALUES (1000)")
        raise LookupError("its own")

    bad = asyncio.ensure_future(rig.writer.submit(half))
    good = await _queued(rig, range(3))
    rig.gate.set()
    with pytest.raises(LookupError, match="its own"):
        await bad
    assert await asyncio.gather(*good) == [0, 1, 2]
    await first
    assert rig.count() == 3


async def test_a_database_error_of_one_write_is_its_own_store_error(rig: Rig) -> None:
    await rig.writer.submit(put(1))  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        await rig.writer.submit(put(1))  # type: ignore[arg-type]
    await rig.writer.submit(put(2))  # type: ignore[arg-type]
    assert rig.count() == 2


async def test_a_cancelled_caller_does_not_undo_its_write(rig: Rig) -> None:
    first = await rig.held()
    (task,) = await _queued(rig, range(1))
    task.cancel()
    rig.gate.set()
    await first
    await rig.writer.submit(put(7))  # type: ignore[arg-type]
    assert task.cancelled()
    assert rig.count() == 2


async def test_callers_beyond_the_bound_wait_for_their_turn_and_all_are_served(rig: Rig) -> None:
    first = await rig.held()
    tasks = await _queued(rig, range(commits.MAX_QUEUED + 50))
    assert rig.writer._queue.qsize() <= commits.MAX_QUEUED
    rig.gate.set()
    await asyncio.gather(*tasks, first)
    assert rig.count() == commits.MAX_QUEUED + 50
