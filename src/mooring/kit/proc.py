"""Who a process is, beyond its id: start time and boot. A pid alone may be someone else's by now.

Standard library only: the shim uses it. Linux; elsewhere start times are 0 and the boot id is empty.
"""

import os


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat; 0 when there is no such process (a zombie still counts)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[19])


def state(pid: int) -> str:
    """One letter of /proc/<pid>/stat (R, S, D, Z …); empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return ""
    return stat.rpartition(b")")[2].split()[0].decode()


def boot_id() -> str:
    """This boot's random id."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def write_atomically(path: str, content: bytes, *, sync: bool) -> None:
    """Put a file (0600) in place whole or not at all; `sync`: it also survives a power loss."""
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
    if sync:
        sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Make a directory's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
