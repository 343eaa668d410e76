"""Blob files: bytes on disk under names that no client chooses. Durability and clean-up; knows no buckets or keys.

    staging/<name>   written and synced, but nothing may refer to it yet
    blobs/xx/<name>  referred to by the index (xx = the name's first two digits)

A blob is made in `staging`, its file and the directory are synced, the index commits the reference, and only then is it
moved. A crash in between leaves it in `staging`, which is all that has to be looked at on the next start. The move itself
needs no sync: whichever of the two places a power loss leaves it in, it is found.

Syncing the directory is shared by all who wait for it at the same time.
"""

import contextlib
import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from mooring.kit import clock
from mooring.objects.errors import NoSpaceError, StorageError
from mooring.objects.reserve import FULL_ERRNOS, Reserve


def _failure(what: str, error: OSError) -> StorageError:
    return NoSpaceError() if error.errno in FULL_ERRNOS else StorageError(f"{what}: {error.strerror}")


class DirectorySync:
    """fsync of one directory, in groups: who calls `sync` returns after one that began later than the call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._started = 0
        self._completed = 0
        self._running = False

    def sync(self) -> None:
        """Block until every entry made before this call is durable."""
        with self._changed:
            ticket = self._started + 1
            while self._completed < ticket:
                if self._running:
                    self._changed.wait()
                    continue
                self._running = True
                self._started += 1
                mine = self._started
                self._changed.release()
                failed = True
                try:
                    sync_directory(self._path)
                    failed = False
                finally:
                    self._changed.acquire()
                    self._running = False
                    if not failed:
                        self._completed = mine
                    self._changed.notify_all()


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Blobs:
    """The blob files of one data directory. Thread-safe; every call may block on the disk."""

    def __init__(self, root: Path, reserve: Reserve) -> None:
        self._reserve = reserve
        self._staging = root / "staging"
        self._blobs = root / "blobs"
        self._directory = DirectorySync(self._staging)
        self._lock = threading.Lock()
        self._pins: Counter[str] = Counter()
        self._doomed: set[str] = set()

    def start(self) -> None:
        """Make the directories."""
        for path in (self._staging, self._blobs, *(self._blobs / f"{n:02x}" for n in range(256))):
            path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(self._blobs)
        sync_directory(self._blobs.parent)

    # writing
    def create(self) -> "BlobWriter":
        """A new blob, open for writing. Raises NoSpaceError, StorageError."""
        self._reserve.require()
        name = clock.token_hex(16)
        try:
            fd = os.open(self._staging / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failure("cannot make a blob", error) from error
        return BlobWriter(name, fd, self)

    def link(self, name: str) -> str:
        """A second name for a blob's bytes, staged; durable after `sync_staging`. Raises StorageError."""
        copy = clock.token_hex(16)
        try:
            os.link(self._find(name), self._staging / copy)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EPERM, errno.ENOTSUP):
                raise _failure("cannot link a blob", error) from error
            return self._copy(name)
        return copy

    def _copy(self, name: str) -> str:
        with contextlib.ExitStack() as stack:
            writer = self.create()
            stack.callback(writer.abort)
            source = os.open(self._find(name), os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, source)
            while chunk := os.read(source, 1 << 20):
                writer.write(chunk)
            return writer.finish()

    def sync_staging(self) -> None:
        """Make the names of staged blobs durable."""
        try:
            self._directory.sync()
        except OSError as error:
            raise _failure("cannot sync the staging directory", error) from error

    def discard(self, names: Iterable[str]) -> None:
        """Remove staged blobs that nothing refers to."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (self._staging / name).unlink()

    def settle(self, names: Iterable[str]) -> None:
        """Move blobs that the index now refers to out of staging; again is harmless."""
        for name in names:
            try:
                (self._staging / name).rename(self._final(name))
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in FULL_ERRNOS:  # it is found in staging as well; the next start moves it
                    raise

    # reading
    def pin(self, names: Iterable[str]) -> None:
        """Keep these blobs from removal until `unpin`."""
        with self._lock:
            self._pins.update(names)

    def unpin(self, names: Iterable[str]) -> None:
        """Undo `pin`; what was removed meanwhile goes now."""
        gone = []
        with self._lock:
            for name in names:
                self._pins[name] -= 1
                if self._pins[name] == 0:
                    del self._pins[name]
                    if name in self._doomed:
                        self._doomed.discard(name)
                        gone.append(name)
        for name in gone:
            self._unlink(name)

    def open(self, name: str) -> int:
        """A descriptor for reading; the blob must be pinned."""
        for _ in range(3):  # it may be moved from staging between two looks
            for path in (self._final(name), self._staging / name):
                with contextlib.suppress(FileNotFoundError):
                    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise StorageError(f"blob {name} is missing")

    def remove(self, names: Iterable[str]) -> list[str]:
        """Remove blobs that the index no longer refers to; returns those really gone (a pinned one goes at its unpin)."""
        gone = []
        for name in names:
            with self._lock:
                if self._pins[name]:
                    self._doomed.add(name)
                    continue
            self._unlink(name)
            gone.append(name)
        return gone

    def sweep(self, is_referenced: Callable[[str], bool]) -> tuple[int, int]:
        """At start, before any other call: settle what the index refers to, remove the rest. Returns (settled, removed)."""
        settled = removed = 0
        for entry in list(os.scandir(self._staging)):
            if is_referenced(entry.name):
                self.settle([entry.name])
                settled += 1
            else:
                self.discard([entry.name])
                removed += 1
        return settled, removed

    def _final(self, name: str) -> Path:
        return self._blobs / name[:2] / name

    def _find(self, name: str) -> Path:
        final = self._final(name)
        return final if final.exists() else self._staging / name

    def _unlink(self, name: str) -> None:
        # settled concurrently or not at all: look in both places, staging first so that a move cannot slip past
        for path in (self._staging / name, self._final(name)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


class BlobWriter:
    """A blob being written, by one caller at a time."""

    def __init__(self, name: str, fd: int, blobs: Blobs) -> None:
        self.name = name
        self._fd = fd
        self._blobs = blobs
        self._durable = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _failure("cannot write a blob", error) from error

    def finish(self) -> str:
        """Make bytes and name durable; returns the name. Nothing refers to it yet."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _failure("cannot sync a blob", error) from error
        self._close()
        self._blobs.sync_staging()
        self._durable = True
        return self.name

    def abort(self) -> None:
        """Leave nothing behind; does nothing once `finish` has returned."""
        self._close()
        if not self._durable:
            self._blobs.discard([self.name])

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
