"""Whatever clients, instances and tables do, in any order, the gauges tell exactly what is in flight, and end at zero."""

import asyncio
import errno
import os
from hashlib import sha256

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mooring.domain import routing
from mooring.gateway.invocation import Invocation, _State
from mooring.gateway.server import Gateway, GatewayLimits
from mooring.invoke import counts
from mooring.kit import counters as kit_counters
from mooring.kit import tasks
from mooring.net import dial
from mooring.net.connection import Connection
from mooring.net.request import REFUSED, Exchange, Request
from mooring.net.server import Limits, Server
from mooring.net.upstream import Upstream
from mooring.protocol import sigv4

NOW_S = 1_800_000_000.0
KEY = routing.Credential(access_key="AK", secret_key="s", account="000000000000", arn="arn")
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n" + b"x" * 70_000 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nbad",
    b"HTTP/1.1 404 No\r\nContent-Length: 30\r\n\r\npart",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
    b"garbage\r\n\r\n",
    b"HTTP/1.1 200",
    b"0\r\n\r\n",
    b"x" * 100_000,
)
LOSSES = (None, BrokenPipeError(errno.EPIPE, "gone"), ConnectionResetError(errno.ECONNRESET, "reset"))


class FixedClock:
    def now_s(self) -> float:
        return NOW_S

    def monotonic_s(self) -> float:
        return NOW_S


class Transport(asyncio.Transport):
    """Remembers; tells its protocol that it is lost, once, when the world says so."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.closed = False
        self.lost = False

    def lose(self, error: Exception | None) -> None:
        self.closed = True
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(error)

    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def writelines(self, parts: object) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class World:
    def __init__(self, group: tasks.Group) -> None:
        layout = kit_counters.Layout(workers=2, gauges=16, groups=4)
        memory = kit_counters.create(layout)
        self.counters = kit_counters.Counters(memory, layout)
        os.close(memory)
        limits = GatewayLimits(max_body_bytes=300_000, max_parked=3, max_unproved_bytes=400_000, max_held_bytes=500_000)
        self.gateway = Gateway(
            region="us-east-1",
            worker=0,
            counters=self.counters,
            limits=limits,
            clock=FixedClock(),
            random=lambda: 0.5,
            group=group,
            connector=self.connect,
        )
        self.server = Server(route=self.route, recall=self.recall, limits=Limits(), now_s=lambda: NOW_S)
        self.clients: list[Transport] = []
        self.upstreams: list[Transport] = []
        self.refusals = 0
        self.generation = 0
        self.begun: list[Exchange] = []

    def route(self, connection: Connection, request: Request) -> Exchange:
        exchange = self.gateway.begin(connection, request, b"demo")
        self.begun.append(exchange)
        return exchange

    def recall(self, connection: Connection, data: bytes) -> bool | None:
        known = self.gateway.recall(connection, data)
        if known and connection._exchange is not REFUSED:
            self.begun.append(connection._exchange)
        return known

    async def connect(self, address: str, on_gone: object, /, *, timeout_s: float) -> Upstream:
        await asyncio.sleep(0)
        if self.refusals > 0:
            self.refusals -= 1
            raise dial.ConnectError(address)
        upstream = Upstream(on_gone)  # type: ignore[arg-type]
        transport = Transport(upstream)
        upstream.connection_made(transport)
        self.upstreams.append(transport)
        return upstream

    def publish(self, instances: int, *, endpoint: bool = True) -> None:
        self.generation += 1
        routes = tuple(
            routing.InstanceRoute(instance_id=f"i{index}", slot=index, address=f"unix:/{index}")
            for index in range(instances)
        )
        variant = routing.VariantRoute(name="v", slot=0, weight=1.0, instances=routes)
        found = routing.EndpointRoute(account=KEY.account, region="us-east-1", name="demo", variants=(variant,))
        self.gateway.swap(
            routing.RouteTable(generation=self.generation, endpoints=(found,) if endpoint else (), credentials=(KEY,))
        )

    def request(self, size: int, sent: int, secret: str, client: int | None = None) -> None:
        body = b"b" * size
        head = [(b"host", b"h")]
        path = b"/endpoints/demo/invocations"
        signed = sigv4.sign(
            method=b"POST",
            path=path,
            query=b"",
            headers=head,
            payload_sha256=sha256(body).hexdigest(),
            access_key="AK",
            secret_key=secret,
            region="us-east-1",
            service="sagemaker",
            now_s=NOW_S,
        )
        lines = b"".join(b"%b: %b\r\n" % one for one in [*head, *signed, (b"content-length", b"%d" % size)])
        data = b"POST %b HTTP/1.1\r\n%b\r\n" % (path, lines) + body[:sent]
        if client is None or not self.clients:
            connection = Connection(self.server)
            transport = Transport(connection)
            connection.connection_made(transport)
            self.clients.append(transport)
        else:
            transport = self.clients[client % len(self.clients)]
        self.feed(transport, data)

    @staticmethod
    def feed(transport: Transport, data: bytes) -> None:
        if data and not transport.closed:
            transport.protocol.data_received(data)  # type: ignore[attr-defined]

    def check(self) -> None:
        in_flight = sum(self.counters.gauge_total(slot) for slot in range(16))
        holding = [one for one in self.begun if isinstance(one, Invocation) and one._instance is not None]
        assert in_flight == len(holding)
        assert self.gateway.unproved_bytes >= 0
        assert self.gateway.held_bytes >= 0
        assert len(self.gateway.parked) <= 3

    async def settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
            for transport in [*self.upstreams, *self.clients]:
                if transport.closed:
                    transport.lose(None)


INDEX = st.integers(0, 7)
EVENTS = st.one_of(
    st.tuples(st.just("request"), st.sampled_from([0, 10, 20_000, 200_000]), st.sampled_from(["s", "s", "s", "wrong"])),
    st.tuples(st.just("again"), INDEX, st.sampled_from(["s", "s", "wrong"])),
    st.tuples(st.just("partial"), st.sampled_from([10, 20_000, 200_000]), st.just("s")),
    st.tuples(st.just("answer"), INDEX, st.sampled_from(ANSWERS)),
    st.tuples(st.just("lose upstream"), INDEX, st.sampled_from(LOSSES)),
    st.tuples(st.just("lose client"), INDEX, st.none()),
    st.tuples(st.just("refuse"), st.integers(1, 9), st.none()),
    st.tuples(st.just("publish"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("time"), st.sampled_from([1.0, 6.0, 61.0]), st.none()),
    st.tuples(st.just("slow client"), INDEX, st.booleans()),
    *[st.tuples(st.just("turn"), st.none(), st.none())] * 4,
)


def carry_out(world: World, event: tuple[str, object, object]) -> None:
    kind, first, second = event
    if kind == "request":
        world.request(first, first, second)  # type: ignore[arg-type]
    elif kind == "again":
        world.request(10, 10, second, client=first)  # type: ignore[arg-type]
    elif kind == "partial":
        world.request(first, first // 2, "s")  # type: ignore[arg-type, operator]
    elif kind == "answer" and world.upstreams:
        world.feed(world.upstreams[first % len(world.upstreams)], second)  # type: ignore[operator, arg-type]
    elif kind == "lose upstream" and world.upstreams:
        world.upstreams[first % len(world.upstreams)].lose(second)  # type: ignore[operator, arg-type]
    elif kind == "lose client" and world.clients:
        world.clients[first % len(world.clients)].lose(None)  # type: ignore[operator]
    elif kind == "refuse":
        world.refusals = first  # type: ignore[assignment]
    elif kind == "publish":
        world.publish(first, endpoint=second or first > 0)  # type: ignore[arg-type, operator]
    elif kind == "time":
        now_s = world.gateway.loop.time() + first  # type: ignore[operator]
        for invocation in list(world.gateway.flights):
            invocation.sweep(now_s)
        world.gateway._retry_parked()
    elif kind == "slow client" and world.clients:
        client = world.clients[first % len(world.clients)]  # type: ignore[operator]
        if not client.closed:
            client.protocol.pause_writing() if second else client.protocol.resume_writing()


async def play(events: list[tuple[str, object, object]]) -> None:
    group = tasks.Group("faults")
    world = World(group)
    world.publish(2)
    for event in events:
        carry_out(world, event)
        world.check()
        if event[0] == "turn":
            await world.settle()
            world.check()
    for client in world.clients:
        client.lose(None)
    await world.settle()
    world.check()
    assert sum(world.counters.gauge_total(slot) for slot in range(16)) == 0
    gateway = world.gateway
    assert (gateway.unproved_bytes, gateway.held_bytes, gateway.flights, dict(gateway.parked)) == (0, 0, set(), {})
    assert all(one._state is _State.DONE for one in world.begun if isinstance(one, Invocation))
    counted = world.counters.counter_total(0, counts.INVOCATIONS)
    assert world.counters.counter_total(0, counts.INVOCATION_MODEL_ERRORS) <= counted
    assert sum(world.counters.histogram_total(0, counts.MODEL_LATENCY)) == counted
    await group.aclose()
    gateway.close()
    await world.settle()
    world.counters.close()


# An idle connection that its peer had closed an instant before: EPIPE, and the request goes to another connection.
TURN = ("turn", None, None)
STALE = [
    ("request", 10, "s"),
    TURN,
    ("answer", 0, ANSWERS[0]),
    ("request", 10, "s"),
    ("lose upstream", 0, LOSSES[1]),
    TURN,
]


@example(STALE)
@example([*STALE, ("answer", 1, ANSWERS[0])])
@example([*STALE[:3], ("again", 0, "s"), ("lose upstream", 0, LOSSES[1]), TURN, ("answer", 1, ANSWERS[0])])
@example([*STALE[:3], ("again", 0, "s"), ("lose client", 0, None), TURN])
@example([*STALE[:3], ("again", 0, "s"), ("time", 61.0, None), TURN])
@example([*STALE[:3], ("publish", 0, True), ("again", 0, "s"), ("time", 6.0, None), TURN])
@example([*STALE[:3], ("publish", 0, False), ("again", 0, "s"), TURN])
@example([("refuse", 9, None), ("request", 10, "s"), TURN, ("time", 6.0, None), TURN])
@example([("request", 10, "s"), ("lose client", 0, None), TURN])
@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=30))
def test_gauges_follow_every_interleaving_of_faults_and_end_at_zero(events: list[tuple[str, object, object]]) -> None:
    asyncio.run(play(events))
