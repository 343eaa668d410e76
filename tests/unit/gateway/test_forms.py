"""A request read by its form and one read by the parser are the same request: same answer, same bytes to the model."""

import asyncio
import os
import re
from dataclasses import replace
from hashlib import sha256

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from mooring.domain import routing
from mooring.gateway.server import Gateway, GatewayLimits
from mooring.kit import counters as kit_counters
from mooring.kit import tasks
from mooring.net.connection import Connection
from mooring.net.request import Exchange, Request
from mooring.net.server import Limits, Server
from mooring.net.upstream import Upstream
from mooring.protocol import sigv4

NOW_S = 1_800_000_000.0
KEY = routing.Credential(access_key="AK", secret_key="s", account="000000000000", arn="arn")
OTHER = routing.Credential(access_key="AK", secret_key="another", account="000000000000", arn="arn")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nok"
REQUEST_ID = re.compile(rb"(?i)(x-amzn-requestid: |\"RequestId\":\")[0-9a-f-]{36}")
CALL = b"amz-sdk-invocation-id"
UUIDS = (b"3f2b8a34-7f0e-4c7d-9f0e-1d2c3b4a5f60", b"00000000-0000-4000-8000-00000000000F")


class Clock:
    now = NOW_S

    def now_s(self) -> float:
        return self.now

    def monotonic_s(self) -> float:
        return self.now


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def writelines(self, parts: list[bytes]) -> None:  # type: ignore[override]
        self.sent += b"".join(parts)

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Side:
    """A gateway with one client; `knowing`: it may read requests by their form."""

    def __init__(self, group: tasks.Group, *, knowing: bool) -> None:
        layout = kit_counters.Layout(workers=1, gauges=4, groups=4)
        memory = kit_counters.create(layout)
        self.counters = kit_counters.Counters(memory, layout)
        os.close(memory)
        self.clock = Clock()
        self.gateway = Gateway(
            region="us-east-1",
            worker=0,
            counters=self.counters,
            limits=GatewayLimits(max_body_bytes=2000),
            clock=self.clock,
            random=lambda: 0.5,
            group=group,
            connector=self.connect,
        )
        self.parsed = 0
        recall = {"recall": self.gateway.recall} if knowing else {}
        self.server = Server(route=self.route, limits=Limits(), now_s=lambda: NOW_S, **recall)
        self.upstreams: list[tuple[Upstream, Transport]] = []
        self.publish(KEY)
        self.client = Transport()
        self.connection = Connection(self.server)
        self.connection.connection_made(self.client)

    def publish(self, *credentials: routing.Credential) -> None:
        instance = routing.InstanceRoute(instance_id="i", slot=0, address="unix:/i")
        variant = routing.VariantRoute(name="v", slot=0, weight=1.0, instances=(instance,))
        endpoints = tuple(
            routing.EndpointRoute(account=KEY.account, region="us-east-1", name=name, variants=(variant,))
            for name in ("one", "two")
        )
        self.gateway.swap(routing.RouteTable(generation=1, endpoints=endpoints, credentials=credentials))

    def route(self, connection: Connection, request: Request) -> Exchange:
        self.parsed += 1
        name = request.path.removeprefix(b"/endpoints/").partition(b"/")[0]
        return self.gateway.begin(connection, request, name)

    async def connect(self, address: str, on_gone: object, /, *, timeout_s: float) -> Upstream:
        upstream, transport = Upstream(on_gone), Transport()  # type: ignore[arg-type]
        upstream.connection_made(transport)
        self.upstreams.append((upstream, transport))
        return upstream

    async def feed(self, data: bytes) -> None:
        if not self.client.closed:
            self.connection.data_received(data)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(70):  # a read may hold many requests, answered one after the other
            await asyncio.sleep(0)
            for upstream, transport in self.upstreams:
                if upstream._sink is not None and not transport.closed:
                    upstream.data_received(ANSWER)

    def told(self) -> tuple[bytes, bool, list[bytes]]:
        return REQUEST_ID.sub(rb"\1", self.client.sent), self.client.closed, [each.sent for _, each in self.upstreams]

    async def close(self) -> None:
        self.connection.connection_lost(None)
        self.gateway.close()
        await asyncio.sleep(0)
        self.counters.close()


def signed(
    body: bytes = b"body",
    *,
    name: bytes = b"one",
    at_s: float = NOW_S,
    secret: str = "s",
    fields: tuple[tuple[bytes, bytes], ...] = (),
    unsigned: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    path = b"/endpoints/%b/invocations" % name
    head = [(b"host", b"h"), (b"content-type", b"application/json"), *fields]
    made = sigv4.sign(
        method=b"POST",
        path=path,
        query=b"",
        headers=head,
        payload_sha256=sha256(body).hexdigest(),
        access_key="AK",
        secret_key=secret,
        region="us-east-1",
        service="sagemaker",
        now_s=at_s,
    )
    fields = (*head, *made, *unsigned, (b"content-length", b"%d" % len(body)))
    return b"POST %b HTTP/1.1\r\n%b\r\n" % (path, b"".join(b"%b: %b\r\n" % one for one in fields)) + body


async def both(steps: list[bytes], *, now_s: float = NOW_S) -> tuple[Side, Side]:
    group = tasks.Group("forms")
    sides = Side(group, knowing=True), Side(group, knowing=False)
    for side in sides:
        side.clock.now = now_s
        for data in steps:
            await side.feed(data)
        if not side.client.closed:
            side.connection.sweep(0)
        await side.settle()
    quick, slow = sides
    assert quick.told() == slow.told()
    assert quick.gateway.held_bytes == slow.gateway.held_bytes
    assert quick.gateway.unproved_bytes == slow.gateway.unproved_bytes
    for side in sides:
        await side.close()
    await group.aclose()
    return sides


def run(*steps: bytes, now_s: float = NOW_S) -> tuple[Side, Side]:
    return asyncio.run(both(list(steps), now_s=now_s))


def test_what_a_client_sends_again_is_not_parsed_again() -> None:
    for more in ((), ((CALL, UUIDS[0]),)):
        again = ((CALL, UUIDS[1]),) if more else ()
        steps = [
            signed(b"1", unsigned=more),
            signed(b"2", unsigned=again),
            signed(b"3", at_s=NOW_S + 60, unsigned=again),
        ]
        quick, slow = run(*steps)
        assert (quick.parsed, slow.parsed) == (1, 3)
        assert quick.client.sent.count(b"HTTP/1.1 200 OK") == 3
    alternating = [signed(b"1", name=name) for name in (b"one", b"two") * 3]
    assert run(*alternating)[0].parsed == 2


def in_two(data: bytes) -> list[bytes]:
    at = data.find(b"\r\n\r\n") + 4
    return [data[:at], data[at:]]


def test_a_client_that_sends_head_and_body_apart_is_known_too() -> None:
    steps = [signed(b"%d" % index) for index in range(3)]
    quick, slow = run(*[part for step in steps for part in in_two(step)])
    assert (quick.parsed, slow.parsed) == (1, 3)
    assert quick.client.sent.count(b"HTTP/1.1 200 OK") == 3


def test_a_head_whose_body_does_not_follow_is_parsed_at_the_next_sweep() -> None:
    async def scenario() -> None:
        group = tasks.Group("forms")
        side = Side(group, knowing=True)
        await side.feed(signed(b"1"))
        head, body = in_two(signed(b"2"))
        await side.feed(head)
        assert side.parsed == 1
        side.connection.sweep(0)
        assert side.parsed == 2
        assert side.connection.busy
        await side.feed(body)
        assert side.client.sent.count(b"HTTP/1.1 200 OK") == 2
        await side.close()
        await group.aclose()

    asyncio.run(scenario())


def test_a_signature_is_checked_every_time() -> None:
    forged = signed(b"1")[:-1] + b"2"
    for wrong in (forged, signed(b"2", secret="other"), signed(b"2", at_s=NOW_S - 901), signed(b"2", at_s=NOW_S + 901)):
        quick, _ = run(signed(b"1"), wrong)
        assert quick.client.sent.count(b"HTTP/1.1 200 OK") == 1
        assert quick.client.sent.count(b"HTTP/1.1 403") == 1


def test_a_form_is_forgotten_with_the_credentials_that_proved_it() -> None:
    async def scenario() -> None:
        group = tasks.Group("forms")
        side = Side(group, knowing=True)
        await side.feed(signed(b"1"))
        side.publish(OTHER)
        await side.feed(signed(b"2"))
        assert side.client.sent.count(b"HTTP/1.1 403") == 1
        side.publish()
        await side.feed(signed(b"3"))
        assert side.client.sent.count(b"HTTP/1.1 403") == 2
        await side.close()
        await group.aclose()

    asyncio.run(scenario())


def test_a_body_read_by_form_counts_among_the_bodies_held_until_it_is_answered() -> None:
    async def scenario() -> None:
        group = tasks.Group("forms")
        side = Side(group, knowing=True)
        side.gateway.limits = replace(side.gateway.limits, max_held_bytes=1000)
        await side.feed(signed(b"w" * 600))
        assert side.gateway.held_bytes == 0
        side.connection.data_received(signed(b"x" * 600))
        assert side.parsed == 1
        assert side.connection.busy
        assert side.gateway.held_bytes == 600
        other, another = Connection(side.server), Transport()
        other.connection_made(another)
        other.data_received(signed(b"y" * 401))
        assert another.sent.startswith(b"HTTP/1.1 503 "), "two bodies together are over the bound"
        await side.settle()
        assert side.client.sent.count(b"HTTP/1.1 200 OK") == 2
        assert side.gateway.held_bytes == 0
        other.connection_lost(None)
        await side.close()
        await group.aclose()

    asyncio.run(scenario())


def test_a_client_that_never_repeats_itself_is_not_studied_for_ever() -> None:
    quick, _ = run(*[signed(b"1", unsigned=((b"x-trace", b"%d" % index),)) for index in range(40)])
    assert quick.parsed == 40
    assert len(quick.gateway._forms._kept) <= 16


MARKS = (
    b"Signature=",
    b"content-length: ",
    b"x-amz-date: ",
    b"20270115T",
    CALL + b": ",
    b"POST ",
    b"\r\n\r\n",
    b"HTTP/1.1",
)
TOKENS = (
    *(
        b"",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b"0",
        b"00",
        b"1",
        b"9",
        b"+",
        b"-",
        b"_",
        b"a",
        b"A",
        b"x",
        b",",
    ),
    *(
        b"\r\nTransfer-Encoding: chunked",
        b"\r\nContent-Length: 4",
        b"\r\nContent-Length: 0",
        b"\r\nExpect: 100-continue",
    ),
    *(
        b"\r\nConnection: close",
        b"\r\nx-amz-target: x",
        b"\r\nx-amz-security-token: x",
        b"\r\n\r\n",
        b"\xff",
        b"\xc2\xb2",
    ),
)
EDITS = st.tuples(st.sampled_from(MARKS), st.integers(-3, 70), st.integers(0, 40), st.sampled_from(TOKENS))
PLAIN = st.builds(
    signed,
    st.sampled_from([b"b", b"body", b"x" * 9]),
    at_s=st.sampled_from([NOW_S, NOW_S + 1, NOW_S - 900]),
    unsigned=st.sampled_from([(), ((CALL, UUIDS[0]),), ((CALL, UUIDS[1]),)]),
)
ODD = st.builds(
    signed,
    st.sampled_from([b"", b"body", b"x" * 12, b"x" * 2000, b"x" * 2001, b"POST / HTTP/1.1\r\n\r\n"]),
    name=st.sampled_from([b"one", b"two", b"none", b"bad_name"]),
    at_s=st.sampled_from([NOW_S, NOW_S + 901]),
    secret=st.sampled_from(["s", "wrong"]),
    fields=st.sampled_from(
        [(), ((b"accept", b"a/b"),), ((CALL, UUIDS[0]),), ((b"x-amzn-sagemaker-target-variant", b"none"),)]
    ),
    unsigned=st.sampled_from([(), ((b"user-agent", b"me"),)]),
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Requests, some of them bent, in one read each, or cut or glued to the next."""
    steps = []
    for _ in range(draw(st.integers(1, 4))):
        data = draw(st.one_of(PLAIN, PLAIN, ODD))
        edits = draw(st.lists(EDITS, min_size=1, max_size=2)) if draw(st.booleans()) else []
        for mark, offset, gone, token in edits:
            at = max(0, data.find(mark) + len(mark) + offset)
            data = data[:at] + token + data[at + gone :]
        how = draw(st.sampled_from(["whole", "whole", "whole", "cut", "glued", "tail"]))
        if how == "cut":
            at = draw(st.one_of(st.just(data.find(b"\r\n\r\n") + 4), st.integers(0, len(data))))
            steps += [data[:at], data[at:]]
        elif how == "glued" and steps:
            steps[-1] += data
        elif how == "tail":
            steps.append(data + draw(st.sampled_from([b"\r\n", b"P", b"POST", b"\0", b"GET / HTTP/1.1\r\n"])))
        else:
            steps.append(data)
    return [step for step in steps if step]


@example([*in_two(signed(b"2")), signed(b"3")])
@example([in_two(signed(b"2"))[0], b"x", b"yz"])
@example([in_two(signed(b"2"))[0] * 2, b"xy"])
@example([b"\r\n" + signed(b"2"), signed(b"3")])
@example([signed(b"2") + b"PO", b"ST /"])
@example([signed(b"2") + b"P", signed(b"3")])
@example([signed(b"2") + b"\r", signed(b"3")])
@example([signed(b"12").replace(b"content-length: 2", b"content-length: 02")])
@example([signed(b"1", unsigned=((CALL, b"a\r\nTransfer-Encoding: chunked\r\nb: c"),))])
@example([signed(b"1", unsigned=((CALL, b"a\r\n\r\nGET /x HTTP/1.1\r\nhost: 1\r\nb: c"),))])
@example([signed(b"1", unsigned=((CALL, b"\0" * 36),))])
@example([signed(b"1").replace(b"content-length: 1", b"content-length: 4")])
@settings(max_examples=300, deadline=None)
@given(streams())
def test_by_form_and_by_parser_every_stream_of_bytes_means_the_same(steps: list[bytes]) -> None:
    plain = signed(b"1234"), signed(b"1234", unsigned=((CALL, UUIDS[0]),))
    quick, slow = run(*plain, *steps)
    event(f"read by form: {slow.parsed - quick.parsed}")
