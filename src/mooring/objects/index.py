"""The index: one SQLite database, one writing thread that commits in groups, any number of readers. Knows no S3.

    write(work) ──▶ queue ──▶ writer: BEGIN; work, work, work …; COMMIT (one fsync) ──▶ each caller gets its outcome

Every `work` runs inside a savepoint, so that one caller's error takes back its own changes and nobody else's. A caller is
answered only after the commit is on disk (WAL, synchronous=FULL).

On a full disk, work that `frees` something may use the reserve; all other work is refused until the reserve is back. What
such a commit left in the log is then moved into the database, whose pages are on disk already, so that the log's own space
is free again: the reserve is larger than the log ever gets, hence there is always room for the next delete.
"""

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from mooring.objects.errors import NoSpaceError, StorageError
from mooring.objects.reserve import Reserve

SCHEMA_VERSION = 2
_MAX_GROUP = 256
_MAX_QUEUED = 4096
_PAGE_BYTES = 4096
_FULL_ATTEMPTS = 20  # at freeing: bodies that are on their way in may take up the reserve until they fail
_FULL_PAUSE_S = 0.05
_SCHEMA = """
CREATE TABLE buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    created_s INTEGER NOT NULL
);
-- `detail` comes last: listings read the columns before it and never its overflow pages
CREATE TABLE objects (
    bucket INTEGER NOT NULL REFERENCES buckets (id),
    key BLOB NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    modified_s INTEGER NOT NULL,
    checksum TEXT,
    checksum_kind TEXT,
    inline_id INTEGER,
    detail BLOB NOT NULL,
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE inline (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL);
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    bucket INTEGER NOT NULL REFERENCES buckets (id),
    key BLOB NOT NULL,
    initiated_s INTEGER NOT NULL,
    algorithm TEXT,
    checksum_kind TEXT NOT NULL,
    detail BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX uploads_by_key ON uploads (bucket, key, id);
CREATE TABLE parts (
    upload TEXT NOT NULL REFERENCES uploads (id),
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    checksum TEXT NOT NULL,
    modified_s INTEGER NOT NULL,
    segments BLOB NOT NULL,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
-- every blob that a row above refers to, and those (doomed = 1) that none does any more but may still be on disk
CREATE TABLE blobs (name TEXT PRIMARY KEY, doomed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX doomed_blobs ON blobs (name) WHERE doomed;
"""
_ROOT_KEY = "CREATE TABLE root_key (id TEXT NOT NULL);"
# what makes each version out of the one before it
_STEPS = (_SCHEMA, _ROOT_KEY)

T = TypeVar("T")
Connection = sqlite3.Connection
Work = Callable[[Connection], T]


class _Job(Generic[T]):
    def __init__(self, work: Work[T], *, frees: bool) -> None:
        self.future: Future[T] = Future()
        self.frees = frees
        self._work = work
        self._result: T
        self._error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        """May be run again when the transaction was taken back."""
        self._error = None
        connection.execute("SAVEPOINT job")
        try:
            self._result = self._work(connection)
        except Exception as error:
            self._error = error
            if not connection.in_transaction or _is_full(error):  # the whole group is lost
                raise
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")

    def settle(self) -> None:
        if self._error is None:
            self.future.set_result(self._result)
        elif isinstance(self._error, sqlite3.Error):
            failure = StorageError(f"the index failed: {self._error}")
            failure.__cause__ = self._error
            self.future.set_exception(failure)
        else:
            self.future.set_exception(self._error)


def _is_full(error: Exception) -> bool:
    """Whether SQLite found no room to write: then what it was to commit is not there, nor will it turn up."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


class Index:
    """See the module. `write` and `read` block; call them from threads that may."""

    def __init__(self, path: Path, reserve: Reserve) -> None:
        self._path = path
        self._reserve = reserve
        self._jobs: queue.Queue[_Job[Any] | None] = queue.Queue(_MAX_QUEUED)
        self._idle_readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="objects-index", daemon=True)
        self._closing = threading.Lock()
        self._closed = True

    def start(self) -> None:
        """Open or create the database and begin to write. Raises StorageError for one of a newer version."""
        self._writer = self._connect()
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version < SCHEMA_VERSION:
            steps = " ".join(_STEPS[version:])
            self._writer.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version > SCHEMA_VERSION:
            self._writer.close()
            raise StorageError(f"{self._path} is of version {version}; this server knows version {SCHEMA_VERSION}")
        self._closed = False
        self._thread.start()

    def close(self) -> None:
        """Finish what is queued, then close; no `read` may be under way. Calls that come later fail."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        while not self._idle_readers.empty():
            self._idle_readers.get().close()
        self._writer.close()

    def write(self, work: Work[T], *, frees: bool = False) -> T:
        """Run `work` in a transaction; returns once it is durable. What `work` raises takes back its changes.

        It may be run more than once. `frees` is for work that only takes away. Raises NoSpaceError: nothing was written.
        """
        return self.submit(work, frees=frees).result()

    def submit(self, work: Work[T], *, frees: bool = False) -> "Future[T]":
        """As `write`, but returns at once (it blocks only while the queue is full)."""
        job = _Job(work, frees=frees)
        with self._closing:
            if self._closed:
                raise StorageError("the index is closed")
            self._jobs.put(job)
        return job.future

    def read(self, work: Work[T]) -> T:
        """Run `work` on one snapshot of what is committed."""
        try:
            with self._reader() as connection:
                return work(connection)
        except sqlite3.Error as error:
            raise StorageError(f"the index failed: {error}") from error

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise StorageError("the index is closed")
        try:
            connection = self._idle_readers.get_nowait()
        except queue.Empty:
            connection = self._connect()
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._idle_readers.put(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10.0)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves data in the drive's cache
        connection.execute("PRAGMA foreign_keys = ON")
        # The log stays well under the reserve's size: see the module.
        connection.execute(f"PRAGMA wal_autocheckpoint = {max(1, self._reserve.size // 2 // _PAGE_BYTES)}")
        connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        return connection

    def _run(self) -> None:
        while True:
            group, last = self._next_group()
            if group:
                self._commit(group)
            if last:
                return

    def _next_group(self) -> tuple[list[_Job[Any]], bool]:
        group: list[_Job[Any]] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == _MAX_GROUP:
                return group, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Job[Any]]) -> None:
        try:
            self._attempt(self._admitted(group))
        except Exception as error:  # whatever it is, every waiter must hear of it and the thread must live on
            failure = StorageError(f"the index could not commit: {error}")
            failure.__cause__ = error
            for job in group:
                if not job.future.done():
                    job.future.set_exception(failure)

    def _admitted(self, group: list[_Job[Any]]) -> list[_Job[Any]]:
        """The jobs that there is room for; the others are told that there is none."""
        if self._reserve.hold():
            return group
        for job in group:
            if not job.frees:
                job.future.set_exception(NoSpaceError())
        return [job for job in group if job.frees]

    def _attempt(self, group: list[_Job[Any]]) -> None:
        """Commit; on a full disk out of the log's own space, then out of the reserve."""
        if not self._transact(group):
            self._shrink_log()
            if not self._transact(group):
                for job in group:
                    if not job.frees:
                        job.future.set_exception(NoSpaceError())
                self._commit_into_reserve([job for job in group if job.frees])
        if not self._reserve.held:
            self._shrink_log()

    def _commit_into_reserve(self, group: list[_Job[Any]]) -> None:
        for _ in range(_FULL_ATTEMPTS if group else 0):
            self._reserve.release()
            if self._transact(group):
                return
            time.sleep(_FULL_PAUSE_S)
        for job in group:
            job.future.set_exception(NoSpaceError())

    def _transact(self, group: list[_Job[Any]]) -> bool:
        """One transaction; False when the disk had no room for it."""
        if not group:
            return True
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for job in group:
                job.run(self._writer)
            self._writer.execute("COMMIT")
        except Exception as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            if _is_full(error):
                return False
            raise
        for job in group:
            job.settle()
        return True

    def _shrink_log(self) -> None:
        """Move what is in the log into the database and give its space back, as far as there is room to do that."""
        with contextlib.suppress(sqlite3.OperationalError):  # no room, or read just now: the log stays
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
