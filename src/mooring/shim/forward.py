"""The way from an instance's loopback to the server: connections accepted inside are relayed to the server's one address.

    model ──▶ 127.0.0.1:<port> in the instance's network ──listener──▶ Forwarder ──▶ the address in <data>/run/address

The address is read for every connection: a server that starts again on another port is followed. Nothing else can be
reached, whatever comes over the connection. Part of the shim's network process: one loop, nothing blocks, all is bounded.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable

from mooring.shim.poller import READ, WRITE, Poller

MAX_PAIRS = 128  # more wait in the listener's backlog
_CHUNK_BYTES = 64 * 1024  # held at most, per direction
_MAX_ADDRESS_BYTES = 1024
_ORDERLY, _RESET = struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)  # SO_LINGER


class Forwarder:
    """Takes over `listener`. `address_file`: one line, `<numeric host> <port>`."""

    def __init__(self, poller: Poller, listener: socket.socket, address_file: str) -> None:
        self._poller = poller
        self._listener = listener
        self._address_file = address_file
        self._pairs: set[_Pair] = set()
        listener.setblocking(False)
        poller.watch(listener.fileno(), READ, self._accept)

    def _accept(self, _: int) -> None:
        try:
            client, _address = self._listener.accept()
        except OSError:  # gone again, or out of descriptors: the backlog waits
            return
        try:
            server = _connect(self._address_file)
        except (OSError, ValueError):  # no server now: to the model a connection that is closed
            client.close()
            return
        self._pairs.add(_Pair(self._poller, client, server, self._forget))
        if len(self._pairs) >= MAX_PAIRS:
            self._poller.unwatch(self._listener.fileno())

    def _forget(self, pair: "_Pair") -> None:
        self._pairs.discard(pair)
        self._poller.watch(self._listener.fileno(), READ, self._accept)


def _connect(address_file: str) -> socket.socket:
    """Begin to connect. Raises OSError, ValueError when the file holds no address."""
    with open(address_file, encoding="ascii") as file:
        host, port = file.read(_MAX_ADDRESS_BYTES).split()
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    number = server.connect_ex(address)
    if number not in (0, errno.EINPROGRESS):
        server.close()
        raise OSError(number, os.strerror(number))
    return server


class _End:
    """One side of a pair."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.fd = connection.fileno()
        self.unsent = b""  # read from the other side
        self.is_open = True  # it may say more
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Pair:
    """A client and its connection to the server; each direction holds at most one chunk and ends by itself."""

    def __init__(
        self, poller: Poller, client: socket.socket, server: socket.socket, forget: Callable[["_Pair"], None]
    ) -> None:
        self._poller = poller
        self._forget = forget
        self._client, self._server = _End(client), _End(server)
        poller.watch(self._server.fd, WRITE, self._connected)

    def _connected(self, _: int) -> None:
        if self._server.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._close(_RESET)
            return
        self._watch()

    def _watch(self) -> None:
        for end, other in ((self._client, self._server), (self._server, self._client)):
            events = (WRITE if end.unsent else 0) | (READ if end.is_open and not other.unsent else 0)
            self._poller.watch(end.fd, events, self._handler(end, other))

    def _handler(self, end: _End, other: _End) -> Callable[[int], None]:
        return lambda happened: self._turn(end, other, happened)

    def _turn(self, end: _End, other: _End, happened: int) -> None:
        try:
            if end.unsent:
                self._send(end, other)
            if end.is_open and not other.unsent and happened & ~WRITE:
                self._receive(end, other)
        except BlockingIOError:
            pass
        except OSError:  # reset by one side: the other must not take it for an orderly end
            self._close(_RESET)
            return
        if not (self._client.is_open or self._server.is_open or self._client.unsent or self._server.unsent):
            self._close(_ORDERLY)
            return
        self._watch()

    def _receive(self, end: _End, other: _End) -> None:
        chunk = end.connection.recv(_CHUNK_BYTES)
        other.unsent = chunk
        end.is_open = bool(chunk)
        self._send(other, end)

    def _send(self, end: _End, other: _End) -> None:
        """What waits for `end`; after the last of it, that there is no more."""
        if end.unsent:
            end.unsent = end.unsent[end.connection.send(end.unsent) :]
        if not end.unsent and not other.is_open:
            end.connection.shutdown(socket.SHUT_WR)

    def _close(self, linger: bytes) -> None:
        for end in (self._client, self._server):
            self._poller.unwatch(end.fd)
            end.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.connection.close()
        self._forget(self)
