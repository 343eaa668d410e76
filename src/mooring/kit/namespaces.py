"""Linux network namespaces: entering one, and the words with which slirp4netns is attached to one.

Used by the shim (its instance's network) and by runtime.network (trying slirp4netns out). Standard library only: the shim
starts fast.
"""

import fcntl
import os
from collections.abc import Sequence

_NS_GET_USERNS = 0xB701  # ioctl_ns(2): the user namespace that owns a namespace
_CLONE_NEWNET = 0x40000000
_CLONE_NEWUSER = 0x10000000


def open_network(pid: int) -> int:
    """A descriptor of the network namespace of a process. Raises OSError."""
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def owner(network: int) -> int:
    """A descriptor of the user namespace that a network namespace belongs to; -1 when it is this process's own."""
    fd = int(fcntl.ioctl(network, _NS_GET_USERNS))
    os.set_inheritable(fd, False)
    if _is_own(fd, "user"):
        os.close(fd)
        return -1
    return fd


def enter_network(network: int) -> None:
    """Make a network namespace this process's. Raises OSError.

    Not root: the process first becomes the owner within the user namespace that the network belongs to, for good.
    """
    if _is_own(network, "net"):
        return
    try:
        _setns(network, _CLONE_NEWNET)
    except PermissionError:
        fd = owner(network)
        if fd < 0:
            raise
        try:
            _setns(fd, _CLONE_NEWUSER)
        finally:
            os.close(fd)
        _setns(network, _CLONE_NEWNET)


def plan_attach(program: Sequence[str], *, network: int, user: int, exit_fd: int, ready_fd: int = -1) -> list[str]:
    """slirp4netns' command line. `program`: it and its options; the rest are descriptors that it inherits, `user` -1
    when the network belongs to its own user namespace. It ends when the other end of `exit_fd` is closed.
    """
    words = [*program, f"--exit-fd={exit_fd}", "--netns-type=path"]
    if user >= 0:
        words.append(f"--userns-path=/proc/self/fd/{user}")
    if ready_fd >= 0:
        words.append(f"--ready-fd={ready_fd}")
    return [*words, f"/proc/self/fd/{network}", "tap0"]


def _is_own(fd: int, name: str) -> bool:
    mine, other = os.stat(f"/proc/self/ns/{name}"), os.fstat(fd)
    return (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino)


def _setns(fd: int, kind: int) -> None:
    if hasattr(os, "setns"):  # Python 3.12 and newer
        os.setns(fd, kind)
        return
    import ctypes  # costs 1.5 MB: only where it is needed

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
