"""The server side of HTTP/1.1: listens, admits connections up to a bound, sweeps them, drains them.

    clients ─▶ Server ─▶ Connection (net.connection) ─ a whole head ─▶ route() ─▶ Exchange (net.request)

Called by edge.worker. Must not know what a request means.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mooring.net import wire
from mooring.net.connection import Connection
from mooring.net.request import Exchange, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on one connection. Times are counted in sweeps of one second, so they are right within a second."""

    head_bytes: int = 64 << 10
    head_fields: int = 200
    head_timeout_s: int = 15
    idle_timeout_s: int = 75
    stall_timeout_s: int = 30  # no byte of a body read, or none of an answer taken by the client
    linger_bytes: int = 64 << 20
    linger_timeout_s: int = 10
    write_buffer_bytes: int = 256 << 10
    connections: int = 8192


Route = Callable[[Connection, Request], Exchange]
# Offered each read of an idle connection with a memory, before the parser. True: it was one whole request, known without
# parsing, and `Connection.begin` was called. False: nothing happened, and the parser reads it. None: it is a head whose
# body is on its way and makes no more than TOGETHER_BYTES; both are offered together.
Recall = Callable[[Connection, bytes], bool | None]


def _recall_nothing(connection: Connection, data: bytes) -> bool | None:
    return False


class Server:
    """The connections of one worker, their limits and their once-a-second sweep. `route` begins each exchange."""

    def __init__(
        self, *, route: Route, limits: Limits, now_s: Callable[[], float], recall: Recall = _recall_nothing
    ) -> None:
        self.route = route
        self.recall = recall
        self.limits = limits
        self.connections: set[Connection] = set()
        self.draining = False
        self.tick = 0
        self._now_s = now_s
        self.date = _date_line(now_s())
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, **where: Any) -> None:
        """Accept on a listening socket (`sock=`), or on what loop.create_server takes."""
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(1.0, self._sweep)
        self._listener = await loop.create_server(lambda: Connection(self), **where)

    def admit(self, connection: Connection) -> None:
        """A new connection; over the limit it is answered 503 and closed."""
        self.connections.add(connection)
        if len(self.connections) > self.limits.connections:
            connection.refuse(503, b"Too many connections.")

    async def drain(self, timeout_s: float) -> int:
        """Accept no more, let answers that are owed go out, close. Returns how many were cut off."""
        self.draining = True
        if self._listener is not None:
            self._listener.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        for connection in list(self.connections):
            connection.sweep(self.tick)
        while self.connections and loop.time() < deadline:
            await asyncio.sleep(0.02)
            for connection in list(self.connections):
                if not connection.busy:
                    connection.sweep(self.tick)
        cut = len(self.connections)
        for connection in list(self.connections):
            connection.sever_with_exchange()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.sleep(0)
        return cut

    def _sweep(self) -> None:
        self.tick += 1
        self.date = _date_line(self._now_s())
        for connection in list(self.connections):
            connection.sweep(self.tick)
        self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep)


def _date_line(now_s: float) -> bytes:
    return b"Date: %b\r\n" % wire.http_date(now_s)
