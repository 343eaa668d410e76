"""The data directory: taken by one server at a time.

`app` claims it before anything else. The lock is an flock on `<data>/lock`, held by an open file description that the
supervisor shares with its children: it is free only when the last process of a server is gone, so a new server never meets
the rests of an old one. Instances do not hold it: they are meant to be found by the next server.
"""

import fcntl
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from mooring.kit import clock, durable

_REST_S = 5.0  # how long processes of a killed server may take to die
_POLL_S = 0.02
_IN_FRESH = frozenset({"lost+found"})  # an empty file system holds it


class DataDirError(Exception):
    """The directory cannot be used. One line for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A directory that is ours. `lock_fd` must stay open as long as any process of this server lives."""

    path: Path
    id: str  # random, made once; names what belongs to this directory in cgroups
    lock_fd: int

    def release(self) -> None:
        """Let the directory go."""
        os.close(self.lock_fd)


def claim(path: Path) -> Claim:
    """Make the directory (0700) where it is missing, lock it, give it an id. Blocking. Raises DataDirError."""
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(path)
        lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirError(f"cannot use the data directory {path}: {error.strerror}") from error
    try:
        _lock(lock_fd, path)
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        run = path / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        return Claim(path=path, id=_id(path), lock_fd=lock_fd)
    except OSError as error:
        os.close(lock_fd)
        raise DataDirError(f"cannot use the data directory {path}: {error.strerror}") from error
    except DataDirError:
        os.close(lock_fd)
        raise


def owner_pid(path: Path) -> int | None:
    """The process that holds the directory, as far as its lock file tells; None when nothing is written there."""
    try:
        text = (path / "lock").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None


def _check_private(path: Path) -> None:
    state = path.stat()
    if state.st_uid != os.geteuid():
        raise DataDirError(f"the data directory {path} belongs to another user (uid {state.st_uid})")
    if state.st_mode & 0o077:
        # --data-dir /tmp is a slip: closing it to others would break the machine
        if not _made_here(path) and not _IN_FRESH.issuperset(os.listdir(path)):
            raise DataDirError(
                f"{path} is no data directory of Mooring's, holds other things and is open to other users: "
                "choose a directory that is new or empty"
            )
        path.chmod(0o700)


def _made_here(path: Path) -> bool:
    try:
        return stat.S_ISREG((path / "lock").lstat().st_mode)
    except FileNotFoundError:
        return False


def _lock(lock_fd: int, path: Path) -> None:
    deadline = time.monotonic() + _REST_S
    while True:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = owner_pid(path)
            # a supervisor that is gone takes its children with it within moments; one that lives keeps the directory
            if (pid is None or _alive(pid)) or time.monotonic() > deadline:
                shown = f" (process {pid})" if pid is not None else ""
                raise DataDirError(f"the data directory {path} is in use by another Mooring server{shown}") from None
            time.sleep(_POLL_S)
        else:
            return


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return False


def _id(path: Path) -> str:
    file = path / "id"
    try:
        known = file.read_text("ascii").strip()
    except FileNotFoundError:
        fresh = clock.token_hex(8)
        durable.write_private(file, f"{fresh}\n".encode())
        return fresh
    except UnicodeDecodeError as error:
        raise DataDirError(f"{file} does not hold an id") from error
    if not known.isalnum() or len(known) > 64:
        raise DataDirError(f"{file} does not hold an id")
    return known
