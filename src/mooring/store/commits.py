"""Group commit: one thread owns the only writing connection; what is queued meanwhile shares one transaction, one fsync.

    await submit(f), submit(g), …  ─▶ queue ─▶ BEGIN IMMEDIATE · SAVEPOINT f · SAVEPOINT g · … · COMMIT ─▶ all futures

Each function runs in a savepoint of its own, so that one that raises undoes only itself. Futures resolve after the COMMIT,
which is when a write is durable and every reader sees it. Called by store.sqlite.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import sqlalchemy as sa

from mooring.store import failures
from mooring.store.base import StoreError

logger = logging.getLogger(__name__)
T = TypeVar("T")

MAX_GROUP = 256  # writes of one transaction
MAX_QUEUED = 1024  # writes waiting; a caller beyond waits for its turn


class _Write(NamedTuple):
    function: Callable[[sa.Connection], object]
    future: asyncio.Future[object]


class _Outcome(NamedTuple):
    future: asyncio.Future[object]
    result: object
    error: Exception | None


class Writer:
    """Built closed; `start` takes the running loop, on which `submit` is awaited from then on."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()  # bounded by _room
        self._room = asyncio.Semaphore(MAX_QUEUED)
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._open = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._thread.start()

    async def aclose(self) -> None:
        """Finish what is queued, then end."""
        if not self._open:
            return
        self._open = False
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def submit(self, function: Callable[[sa.Connection], T]) -> T:
        """Run and commit. Once queued the write happens even if the caller goes away."""
        async with self._room:
            if not self._open:
                raise StoreError("the store is closed", retryable=False)
            future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            self._queue.put(_Write(function, future))
            return cast("T", await future)

    # the writer's thread ---------------------------------------------------------------------------------------------
    def _run(self) -> None:
        more = True
        while more:
            group, more = self._next_group()
            if not group:
                continue
            try:
                outcomes = _commit(self._engine, group)
            except Exception as error:  # a bug, or memory: the callers must hear of it, and the thread must live on
                logger.exception("a group of %d writes failed", len(group))
                outcomes = [_Outcome(write.future, None, error) for write in group]
            assert self._loop is not None
            self._loop.call_soon_threadsafe(_resolve, outcomes)

    def _next_group(self) -> tuple[list[_Write], bool]:
        """Wait for a write, take with it what is there; False when the end was asked for."""
        group: list[_Write] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if len(group) == MAX_GROUP or self._queue.empty():
                return group, True
            item = self._queue.get()
        return group, False


def _commit(engine: sa.Engine, group: list[_Write]) -> list[_Outcome]:
    try:
        with engine.begin() as connection:
            return [_attempt(connection, write) for write in group]
    except sa.exc.SQLAlchemyError as error:
        failure = _for_caller(error)
        logger.error("a group of %d writes was not committed: %s (%s)", len(group), failure, error)
        return [_Outcome(write.future, None, failure) for write in group]


def _attempt(connection: sa.Connection, write: _Write) -> _Outcome:
    """One write in its savepoint. Raises what ends the whole group: SQLite rolls back everything when, say, the disk is
    full, and the savepoint is gone with it.
    """
    savepoint = connection.begin_nested()
    try:
        result = write.function(connection)
        savepoint.commit()
    except sa.exc.OperationalError:
        raise
    except Exception as error:  # the function's own: undone, and raised to its caller
        savepoint.rollback()
        return _Outcome(write.future, None, _for_caller(error))
    return _Outcome(write.future, result, None)


def _for_caller(error: Exception) -> Exception:
    if not isinstance(error, sa.exc.SQLAlchemyError):
        return error
    failure = failures.translate(error)
    failure.__cause__ = error
    return failure


def _resolve(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        if outcome.future.done():  # the caller was cancelled; its write stands all the same
            continue
        if outcome.error is not None:
            outcome.future.set_exception(outcome.error)
        else:
            outcome.future.set_result(outcome.result)
