"""Connections into the instance's network namespace.

The shim enters that namespace itself, once and for good, at the first dial: its own sockets are Unix sockets with paths,
which no network namespace touches, and from then on a dial costs one connect.
"""

import fcntl
import os
import socket

_NS_GET_USERNS = 0xB701  # ioctl_ns(2): the user namespace that owns a namespace
_CLONE_NEWNET = 0x40000000
_CLONE_NEWUSER = 0x10000000


def enter_network(init_pid: int) -> None:
    """Make the network namespace of a process this process's. Raises OSError."""
    network = os.open(f"/proc/{init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.stat(network).st_ino == os.stat("/proc/self/ns/net").st_ino:
            return
        try:
            _setns(network, _CLONE_NEWNET)
        except PermissionError:  # not root: first become the owner within the user namespace the network belongs to
            owner = fcntl.ioctl(network, _NS_GET_USERNS)
            try:
                _setns(owner, _CLONE_NEWUSER)
            finally:
                os.close(owner)
            _setns(network, _CLONE_NEWNET)
    finally:
        os.close(network)


def _setns(fd: int, kind: int) -> None:
    if hasattr(os, "setns"):  # Python 3.12 and newer
        os.setns(fd, kind)
        return
    import ctypes  # costs 1.5 MB: only where it is needed

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def connect(port: int) -> socket.socket:
    """Begin to connect to a port on this namespace's loopback; writable when decided."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number = connection.connect_ex(("127.0.0.1", port))
    if number not in (0, 115):  # EINPROGRESS
        connection.close()
        raise OSError(number, os.strerror(number))
    return connection
