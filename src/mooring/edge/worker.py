"""The edge worker process: one listening socket, one loop, every request of its clients.

    counters.begin ─▶ route channel ─▶ first table ─▶ accept ──SIGTERM──▶ stop accepting ─▶ finish what is owed ─▶ exit

Called by app with plain values. Must not know the store, control or drivers: it serves on while they restart.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from random import Random  # noqa: TID251 - choices by weight need speed, not secrecy; seeded by the system

from mooring.domain.routing import RouteTable
from mooring.edge import forward
from mooring.edge.classify import Front, classify
from mooring.edge.routes import Subscriber
from mooring.gateway.server import Gateway, GatewayLimits
from mooring.kit import tasks
from mooring.kit.clock import Clock, SystemClock
from mooring.kit.counters import Counters
from mooring.net.connection import Connection
from mooring.net.request import REFUSED, Exchange, Request
from mooring.net.server import Limits, Server

logger = logging.getLogger(__name__)

BEAT_S = 0.5
DRAIN_S = 30.0


async def run(
    *,
    listen_fd: int,
    worker: int,
    counters: Counters,
    control_socket: str,
    s3_socket: str,
    routes_socket: str,
    region: str,
    gateway_limits: GatewayLimits | None = None,
    http_limits: Limits | None = None,
    drain_s: float = DRAIN_S,
    clock: Clock | None = None,
    random: Callable[[], float] | None = None,
    stop: asyncio.Event | None = None,
    drop_member: str | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT (or `stop`, where the caller owns the signals). The descriptor becomes ours.

    `drop_member` is the test-only switch of gateway.effects.
    """
    listener = socket.socket(fileno=listen_fd)
    listener.setblocking(False)
    stopping = _stopping(stop)
    failed: list[BaseException] = []

    def on_failure(name: str, error: BaseException) -> None:
        failed.append(error)
        stopping.set()

    group = tasks.Group(f"edge-{worker}", on_failure)
    edge = Edge(
        worker=worker,
        counters=counters,
        control_socket=control_socket,
        s3_socket=s3_socket,
        region=region,
        gateway_limits=gateway_limits or GatewayLimits(),
        http_limits=http_limits or Limits(),
        clock=clock or SystemClock(),
        random=random or Random().random,  # noqa: S311
        group=group,
        drop_member=drop_member,
    )
    counters.begin(worker, os.getpid())
    group.start("heartbeat", _beat(counters, worker))
    subscriber = Subscriber(routes_socket, worker=worker, swap=edge.swap)
    group.start("routes", subscriber.run())
    try:
        if await _first(subscriber.first, stopping, group):
            gc.collect()
            gc.freeze()  # what lives as long as the process is not looked at again
            edge.gateway.start()
            await edge.server.start(sock=listener)
            await stopping.wait()
        cut = await edge.server.drain(drain_s)
        if cut:
            logger.warning("worker %d cut off %d connections that were still busy after %g s", worker, cut, drain_s)
    finally:
        edge.gateway.close()
        edge.control.close()
        edge.s3.close()
        await group.aclose()
        listener.close()
    if failed:
        raise failed[0]


class Edge:
    """What a worker is made of, and the choice of front for each request."""

    def __init__(
        self,
        *,
        worker: int,
        counters: Counters,
        control_socket: str,
        s3_socket: str,
        region: str,
        gateway_limits: GatewayLimits,
        http_limits: Limits,
        clock: Clock,
        random: Callable[[], float],
        group: tasks.Group,
        drop_member: str | None = None,
    ) -> None:
        self.gateway = Gateway(
            region=region,
            worker=worker,
            counters=counters,
            limits=gateway_limits,
            clock=clock,
            random=random,
            group=group,
            drop_member=drop_member,
        )
        next_id = self.gateway.next_id
        limits = forward.SiblingLimits()
        self.control = forward.Sibling(
            control_socket, unavailable=forward.unavailable_json, next_id=next_id, group=group, limits=limits
        )
        self.s3 = forward.Sibling(
            s3_socket, unavailable=forward.unavailable_s3, next_id=next_id, group=group, limits=limits
        )
        self.server = Server(route=self.route, recall=self.gateway.recall, limits=http_limits, now_s=clock.now_s)
        self._serving = False

    def swap(self, table: RouteTable) -> None:
        """Serve by this table from now on."""
        self.gateway.swap(table)
        self._serving = table.serving

    def route(self, connection: Connection, request: Request) -> Exchange:
        """Begin a request's exchange."""
        target = classify(request)
        front = target.front
        if front is Front.INVOKE:
            return self.gateway.begin(connection, request, target.name, target.operation)
        if front is Front.HEALTH:
            return self._health(connection, request)
        return (self.s3 if front is Front.S3 else self.control).begin(connection, request)

    def _health(self, connection: Connection, request: Request) -> Exchange:
        serving = self._serving and not self.server.draining
        text = b"ok\n" if serving else b"not serving\n"
        fields = b"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
        connection.reply(200 if serving else 503, fields, b"" if request.method == b"HEAD" else text)
        return REFUSED


def _stopping(stop: asyncio.Event | None) -> asyncio.Event:
    if stop is not None:
        return stop
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


async def _first(first: asyncio.Event, stopping: asyncio.Event, group: tasks.Group) -> bool:
    """Wait for the first table; False when the process is told to stop before it came."""
    waits = [group.start("first table", first.wait()), group.start("stop", stopping.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return first.is_set() and not stopping.is_set()


async def _beat(counters: Counters, worker: int) -> None:
    while True:
        counters.beat(worker)
        await asyncio.sleep(BEAT_S)
