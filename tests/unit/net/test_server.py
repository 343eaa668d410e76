"""The server's protocol on a transport that only remembers: however bytes are cut, the same exchanges come of them."""

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mooring.net.connection import Connection
from mooring.net.request import Request
from mooring.net.server import Limits, Server


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Echo:
    """Answers with what was asked, when it was asked whole."""

    def __init__(self, connection: Connection, request: Request, seen: list[tuple[bytes, bytes, bytes]]) -> None:
        self.connection = connection
        self.request = request
        self.seen = seen
        self.got = b""

    def body(self, data: bytes) -> None:
        self.got += data

    def end(self) -> None:
        self.seen.append((self.request.method, self.request.target, self.got))
        self.connection.reply(200, b"", self.got)

    def abort(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


def serve(pieces: Sequence[bytes]) -> tuple[list[tuple[bytes, bytes, bytes]], Transport]:
    seen: list[tuple[bytes, bytes, bytes]] = []
    server = Server(route=lambda c, r: Echo(c, r, seen), limits=Limits(head_bytes=4096), now_s=lambda: 0.0)
    connection, transport = Connection(server), Transport()
    connection.connection_made(transport)
    for piece in pieces:
        if transport.closed:
            break
        connection.data_received(piece)
    return seen, transport


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, list[tuple[bytes, bytes, bytes]]]:
    data, expected = b"", []
    for index in range(draw(st.integers(1, 4))):
        body = draw(st.binary(max_size=300))
        target = b"/%d" % index
        head = b"POST %b HTTP/1.1\r\nHost: a\r\n" % target
        if draw(st.booleans()):
            data += head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        else:
            size = draw(st.integers(1, 100))
            parts = [body[at : at + size] for at in range(0, len(body), size)]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            data += head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        expected.append((b"POST", target, body))
    return data, expected


@given(requests(), st.lists(st.integers(1, 80), min_size=1, max_size=20))
def test_cut_anywhere_the_same_requests_are_seen_and_answered_in_order(
    case: tuple[bytes, list[tuple[bytes, bytes, bytes]]], sizes: list[int]
) -> None:
    data, expected = case
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    seen, transport = serve(pieces)
    assert seen == expected
    whole, once = serve([data])
    assert whole == expected
    assert transport.sent == once.sent
    assert transport.sent.count(b"HTTP/1.1 200 OK") == len(expected)


@given(st.binary(max_size=400), st.binary(max_size=100))
def test_no_bytes_make_it_raise_or_keep_a_broken_connection(noise: bytes, tail: bytes) -> None:
    _, transport = serve([noise, tail])
    assert transport.sent == b"" or transport.sent.startswith(b"HTTP/1.1 ")


def test_reading_stops_while_a_pipelined_request_waits() -> None:
    held: list[Connection] = []

    class Slow:
        def body(self, data: bytes) -> None: ...
        def end(self) -> None: ...
        def abort(self) -> None: ...
        def pause(self) -> None: ...
        def resume(self) -> None: ...

    def route(connection: Connection, request: Request) -> Slow:
        held.append(connection)
        return Slow()

    server = Server(route=route, limits=Limits(), now_s=lambda: 0.0)
    connection, transport = Connection(server), Transport()
    connection.connection_made(transport)
    one = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    connection.data_received(one)
    assert transport.reading
    connection.data_received(one + one)
    assert not transport.reading
    assert len(held) == 1


def test_a_head_begun_behind_a_whole_request_has_a_heads_time_and_no_more() -> None:
    server = Server(
        route=lambda c, r: Echo(c, r, []), limits=Limits(idle_timeout_s=50, head_timeout_s=2), now_s=lambda: 0.0
    )
    connection, transport = Connection(server), Transport()
    connection.connection_made(transport)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT")
    server.tick = 3
    connection.sweep(3)
    assert transport.closed
    assert b"HTTP/1.1 408" in transport.sent


def test_the_sweep_lets_go_what_stands_still() -> None:
    server = Server(
        route=lambda c, r: Echo(c, r, []), limits=Limits(idle_timeout_s=5, head_timeout_s=2), now_s=lambda: 0.0
    )
    idle, slow = (Connection(server), Transport()), (Connection(server), Transport())
    for connection, transport in (idle, slow):
        connection.connection_made(transport)
    slow[0].data_received(b"GET / HT")
    for tick in range(4):
        server.tick = tick
        idle[0].sweep(tick)
        slow[0].sweep(tick)
    assert slow[1].closed
    assert slow[1].sent.startswith(b"HTTP/1.1 408")
    assert not idle[1].closed
    idle[0].sweep(6)
    assert idle[1].closed
    assert idle[1].sent == b""
