"""PoolClient: calls the instances of one variant. Choice, connections, in-flight counts; many pools share no state.

    PoolClient ── pick() ─▶ Instance ── begin() / end()   its in-flight gauge in shared memory, this worker's word
                               │   └── take() / give()    idle connections, a stack: the warmest is used first
                               └────── connect()          a task of the pool's group; the answer goes to the Caller

    assign(routes): instances that stay keep their connections; those that go close their idle ones, and each busy one
    when its answer is whole.

Called by gateway (and by engines later). Must not know endpoints, weights or signatures.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from mooring.domain import routing
from mooring.kit import tasks
from mooring.kit.counters import Counters
from mooring.net import dial
from mooring.net.upstream import Upstream

_QUIET_AFTER_S = 0.25  # an idle connection older than this is asked whether its peer has gone before it is used


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Bounds on the connections to one instance from one worker."""

    connections: int = 1024
    connect_timeout_s: float = 2.0
    idle_connections: int = 256
    idle_timeout_s: float = 60.0


class Caller(Protocol):
    """Who waits for a connection."""

    def connected(self, instance: "Instance", upstream: Upstream) -> bool:
        """Here it is; False: no longer wanted."""

    def unreachable(self, instance: "Instance", error: dial.ConnectError) -> None:
        """There is none. Nothing was sent."""


Gone = Callable[[Upstream], None]


class Connector(Protocol):
    """Makes connections: `open_upstream`, or a test's."""

    async def __call__(self, address: str, on_gone: Gone, /, *, timeout_s: float) -> Upstream:
        """A connected Upstream. Raises ConnectError."""


async def open_upstream(address: str, on_gone: Gone, /, *, timeout_s: float) -> Upstream:
    """A connected Upstream. Raises ConnectError."""
    sock = await dial.connect(address, timeout_s=timeout_s)
    upstream = Upstream(on_gone, sock)
    loop = asyncio.get_running_loop()
    try:
        if sock.family == socket.AF_UNIX:
            await loop.create_unix_connection(lambda: upstream, sock=sock)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.create_connection(lambda: upstream, sock=sock)
    except OSError as error:
        sock.close()
        raise dial.ConnectError(f"{address}: {error}") from error
    except BaseException:
        sock.close()
        raise
    return upstream


class Instance:
    """One instance as one worker sees it."""

    __slots__ = (
        "_connector",
        "_idle",
        "_limits",
        "_mine",
        "_open",
        "_retired",
        "_tasks",
        "_word",
        "_words",
        "address",
        "instance_id",
        "slot",
    )

    def __init__(
        self,
        route: routing.InstanceRoute,
        *,
        counters: Counters,
        worker: int,
        group: tasks.Group,
        limits: PoolLimits,
        connector: Connector = open_upstream,
    ) -> None:
        self._connector = connector
        self.instance_id = route.instance_id
        self.address = route.address
        self.slot = route.slot
        self._word = counters.word
        self._mine = counters.gauge(worker, route.slot)
        self._words = tuple(counters.gauge(each, route.slot) for each in range(counters.layout.workers))
        self._tasks = group
        self._limits = limits
        self._idle: list[Upstream] = []
        self._open = 0  # connections, idle, busy and being made
        self._retired = False

    # the gauge ---------------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """One more request in flight."""
        self._word[self._mine] += 1

    def end(self) -> None:
        """One fewer; exactly one for each begin."""
        self._word[self._mine] -= 1

    def outstanding(self) -> int:
        """Requests in flight from all workers."""
        return sum(map(self._word.__getitem__, self._words))

    # connections -------------------------------------------------------------------------------------------------
    @property
    def full(self) -> bool:
        """Whether it has as many connections as it may have, none of them idle."""
        return not self._idle and self._open >= self._limits.connections

    @property
    def idle(self) -> int:
        """Idle connections."""
        return len(self._idle)

    def take(self, now_s: float) -> Upstream | None:
        """An idle connection whose peer has not gone, as far as the kernel knows."""
        idle = self._idle
        while idle:
            upstream = idle.pop()
            if not upstream.usable() or (now_s - upstream.idle_since_s > _QUIET_AFTER_S and not upstream.quiet()):
                upstream.close()
                continue
            upstream.reused = True
            return upstream
        return None

    def give(self, upstream: Upstream, now_s: float) -> None:
        """Back after a whole answer; closed when it cannot or should not be kept."""
        if not upstream.keep or self._retired or len(self._idle) >= self._limits.idle_connections:
            upstream.close()
            return
        upstream.idle_since_s = now_s
        self._idle.append(upstream)

    def connect(self, caller: Caller) -> None:
        """Make a connection for `caller`, in a task."""
        self._open += 1
        self._tasks.start(f"connect {self.instance_id}", self._connect(caller))

    def sweep(self, now_s: float) -> None:
        """Close connections that nobody has used for long: the bottom of the stack."""
        while self._idle and now_s - self._idle[0].idle_since_s > self._limits.idle_timeout_s:
            self._idle.pop(0).close()

    def retire(self) -> None:
        """The instance leaves the pool: idle connections are closed now, busy ones when they come back."""
        self._retired = True
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.close()

    async def _connect(self, caller: Caller) -> None:
        try:
            upstream = await self._connector(self.address, self._gone, timeout_s=self._limits.connect_timeout_s)
        except dial.ConnectError as error:
            self._open -= 1
            caller.unreachable(self, error)
            return
        except BaseException:
            self._open -= 1
            raise
        if not caller.connected(self, upstream):
            self.give(upstream, asyncio.get_running_loop().time())

    def _gone(self, upstream: Upstream) -> None:
        self._open -= 1
        with contextlib.suppress(ValueError):
            self._idle.remove(upstream)


class PoolClient:
    """The instances of one variant."""

    def __init__(
        self,
        *,
        counters: Counters,
        worker: int,
        group: tasks.Group,
        limits: PoolLimits,
        connector: Connector = open_upstream,
    ) -> None:
        self._connector = connector
        self._counters = counters
        self._worker = worker
        self._tasks = group
        self._limits = limits
        self.instances: tuple[Instance, ...] = ()

    def assign(self, routes: Sequence[routing.InstanceRoute]) -> None:
        """Swap the set of instances. One that stays (same id, address and slot) keeps its connections."""
        known = {(one.instance_id, one.address, one.slot): one for one in self.instances}
        fresh: list[Instance] = []
        for route in routes:
            instance = known.pop((route.instance_id, route.address, route.slot), None)
            fresh.append(instance or self._make(route))
        self.instances = tuple(fresh)
        for instance in known.values():
            instance.retire()

    def pick(self, random: Callable[[], float], avoid: Collection[Instance] = ()) -> Instance | None:
        """The instance with the fewest requests in flight; None when there is none that may be asked."""
        instances: Sequence[Instance] = self.instances
        if len(instances) == 1:
            only = instances[0]
            if avoid and only in avoid:
                return None
            return only if only._idle or not only.full else None
        instances = [one for one in instances if one not in avoid and not one.full]
        if not instances:
            return None
        return instances[routing.pick_instance([one.outstanding() for one in instances], random())]

    def sweep(self, now_s: float) -> None:
        """Close connections that nobody has used for long."""
        for instance in self.instances:
            instance.sweep(now_s)

    def _make(self, route: routing.InstanceRoute) -> Instance:
        return Instance(
            route,
            counters=self._counters,
            worker=self._worker,
            group=self._tasks,
            limits=self._limits,
            connector=self._connector,
        )
