"""What both the driver and the shim do to a control group by its files: join, kill, count kills for want of memory.

A group is a list of directories: one on cgroups v2, one per controller on v1. Knows nothing of how they came to be
(runtime.cgroups). Standard library only: the shim starts fast.
"""

import errno
import os
import signal
import time
from collections.abc import Sequence


def join(directories: Sequence[str]) -> list[str]:
    """Move this process into the group. Returns a text for each directory that would not have it."""
    failures = []
    for directory in directories:
        try:
            _write(os.path.join(directory, "cgroup.procs"), b"0")
        except OSError as error:
            failures.append(f"{directory}: {error.strerror}")
    return failures


def members(directories: Sequence[str]) -> set[int]:
    """Process ids in the group."""
    found: set[int] = set()
    for directory in directories:
        content = _read(os.path.join(directory, "cgroup.procs"))
        found.update(int(word) for word in content.split())
    return found


def kill(directories: Sequence[str], *, deadline_s: float) -> bool:
    """SIGKILL every member until none is left. False when some were still there after `deadline_s` seconds."""
    end = time.monotonic() + deadline_s
    pause = 0.001
    while True:
        left = members(directories)
        left.discard(os.getpid())
        if not left:
            return True
        if time.monotonic() > end:
            return False
        for directory in directories:
            try:
                _write(os.path.join(directory, "cgroup.kill"), b"1")
            except OSError as error:  # cgroups v1 and kernels before 5.14 have no such file
                if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP):
                    raise
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def oom_kills(directories: Sequence[str]) -> int:
    """How many members the kernel has killed for want of memory."""
    count = 0
    for directory in directories:
        for name in ("memory.events", "memory.oom_control"):
            for line in _read(os.path.join(directory, name)).splitlines():
                key, _, value = line.partition(b" ")
                if key == b"oom_kill":
                    count = max(count, int(value))
    return count


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # the group is gone, or this controller has no such file
        return b""
    try:
        chunks = []
        while chunk := os.read(fd, 1 << 16):
            chunks.append(chunk)
        return b"".join(chunks)
    except OSError:  # ENODEV: removed while it was read
        return b""
    finally:
        os.close(fd)


def _write(path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)
