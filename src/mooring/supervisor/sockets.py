"""Listening sockets, made once by the supervisor and passed on: a process that is replaced resets nobody."""

import errno
import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from mooring.kit.unixpath import SocketPath

BACKLOG = 4096


class ListenError(Exception):
    """An address cannot be listened on. One line for the operator."""


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine alone. Names other than localhost count as beyond it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def listen_tcp(host: str, port: int, count: int) -> Sequence[socket.socket]:
    """`count` sockets on one address; the kernel spreads connections over them (SO_REUSEPORT). Port 0: a free one.

    Raises ListenError, also when a server of someone else has the port and would share it with us.
    """
    family, address = _resolve(host, port)
    if port:
        _refuse_foreign(family, address)
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(_bind(family, address, shared=True))
            address = (address[0], made[0].getsockname()[1], *address[2:])
        for listener in made:
            listener.listen(BACKLOG)
    except OSError as error:
        for listener in made:
            listener.close()
        raise _explained(error, host, port) from error
    return made


def reachable_host(listener: socket.socket) -> str:
    """The numeric address by which this machine reaches a listening TCP socket."""
    host = str(listener.getsockname()[0])
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def listen_unix(path: Path) -> socket.socket:
    """A listening socket file (0600); one that an earlier server left is replaced. Its directory must be ours alone."""
    path.unlink(missing_ok=True)
    place = SocketPath(str(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(place.address)
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        place.close()
    return listener


def _resolve(host: str, port: int) -> tuple[int, tuple[str, int, *tuple[int, ...]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ListenError(f"--host {host} is no address of this machine: {error.strerror}") from error
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]), *(int(part) for part in address[2:]))


def _refuse_foreign(family: int, address: tuple[str, int, *tuple[int, ...]]) -> None:
    """Bind once without sharing: SO_REUSEPORT alone would quietly split the port with another server of this user."""
    try:
        _bind(family, address, shared=False).close()
    except OSError as error:
        raise _explained(error, address[0], address[1]) from error


def _bind(family: int, address: tuple[str, int, *tuple[int, ...]], *, shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _explained(error: OSError, host: str, port: int) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return ListenError(
            f"port {port} on {host} is in use by another program; choose one with --port (0: a free one)"
        )
    if error.errno == errno.EACCES:
        return ListenError(f"this user may not listen on port {port}; choose one with --port")
    return ListenError(f"cannot listen on {host} port {port}: {error.strerror}")
