"""Opens sockets by address: `unix:<path>`, a socket that a server listens on, and `dial:<path>`, a shim's socket, which
answers one line with a connected socket (SCM_RIGHTS) to the port inside its instance's network namespace.

Called by invoke and edge.forward, off the request path; what it opens is pooled. Must not know HTTP.
"""

import asyncio
import errno
import os
import socket

from mooring.kit import unixpath

_RETRY_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # a full backlog clears as the server accepts


class ConnectError(Exception):
    """No connection: nothing was sent, so another instance may be asked."""


async def connect(address: str, *, timeout_s: float) -> socket.socket:
    """A connected, non-blocking stream socket. Raises ConnectError."""
    scheme, _, path = address.partition(":")
    try:
        if scheme == "unix":
            return await _connect_unix(path, timeout_s)
        if scheme == "dial":
            return await asyncio.to_thread(_dial, path, timeout_s)
    except (OSError, ValueError) as error:
        raise ConnectError(f"{address}: {error}") from error
    raise ConnectError(f"{address}: not an address")


async def _connect_unix(path: str, timeout_s: float) -> socket.socket:
    """connect() on a Unix socket answers at once, but for a full backlog (EAGAIN), which is asked again."""
    target = unixpath.SocketPath(path)
    try:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        attempt = 0
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                sock.connect(target.address)
            except BlockingIOError:
                sock.close()
                if loop.time() >= deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "the backlog stayed full") from None
                await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1
            except BaseException:
                sock.close()
                raise
            else:
                return sock
    finally:
        target.close()


def _dial(path: str, timeout_s: float) -> socket.socket:
    """Blocking, in a thread: ask a shim for a connection. Any descriptor but one connected socket is refused."""
    target = unixpath.SocketPath(path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as shim:
            shim.settimeout(timeout_s)
            shim.connect(target.address)
            shim.sendall(b'{"op":"dial"}\n')
            data, descriptors, _, _ = socket.recv_fds(shim, 1, 1, socket.MSG_CMSG_CLOEXEC)
    finally:
        target.close()
    if not data or not descriptors:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "the shim has no connection to give")
    sock = socket.socket(fileno=descriptors[0])
    sock.setblocking(False)
    return sock
