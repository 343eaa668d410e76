"""The store in one SQLite file: WAL, synchronous=FULL, one writing connection (group commit), a few reading ones.

Built by `app`. Only this process opens the file (the data directory's lock sees to that).
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from mooring.store import failures, schema
from mooring.store.base import StoreError
from mooring.store.commits import Writer
from mooring.store.sql import SqlStore

T = TypeVar("T")

READERS = 4
MAX_WAITING_READS = 1024


class SqliteStore(SqlStore):
    """See store.base.Store. Used on the loop that called start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = _engine(path, begin="BEGIN IMMEDIATE", connections=1)
        self._reading = _engine(path, begin="BEGIN", connections=READERS)
        self._writer = Writer(self._writing)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._room = asyncio.Semaphore(MAX_WAITING_READS)
        self._is_open = False

    async def start(self) -> None:
        """Open, migrate. Raises StoreError."""
        await asyncio.to_thread(self._open)
        self._writer.start()
        self._is_open = True

    async def aclose(self) -> None:
        """Finish queued writes, close."""
        self._is_open = False
        await self._writer.aclose()
        await asyncio.to_thread(self._close)

    async def _read(self, function: Callable[[sa.Connection], T]) -> T:
        async with self._room:
            if not self._is_open:
                raise StoreError("the store is closed", retryable=False)
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._read_now, function)

    async def _write(self, function: Callable[[sa.Connection], T]) -> T:
        return await self._writer.submit(function)

    def _read_now(self, function: Callable[[sa.Connection], T]) -> T:
        try:
            with self._reading.connect() as connection:
                return function(connection)
        except sa.exc.SQLAlchemyError as error:
            raise failures.translate(error) from error

    def _open(self) -> None:
        try:
            _create(self._path)
            with self._writing.begin() as connection:
                schema.upgrade(connection)
        except sa.exc.SQLAlchemyError as error:
            raise failures.translate(error) from error
        except OSError as error:
            raise StoreError(
                f"the database {self._path} cannot be opened: {error.strerror}", retryable=False
            ) from error

    def _close(self) -> None:
        self._readers.shutdown(wait=True)
        self._reading.dispose()
        self._writing.dispose()


def _create(path: Path) -> None:
    """Make the file before SQLite does: for its owner alone (environment variables of models lie in it)."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _engine(path: Path, *, begin: str, connections: int) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite+pysqlite", database=str(path)),
        poolclass=sa.QueuePool,
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,  # error texts are logged, and parameters may hold secrets
        pool_timeout=30,
        connect_args={"check_same_thread": False, "timeout": 10},
    )

    def on_connect(connection: Any, _record: object) -> None:
        # The driver must not begin or commit on its own: SAVEPOINT and transactional DDL depend on it.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "journal_size_limit = 67108864",  # the log is cut back to this after a checkpoint
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    return engine
