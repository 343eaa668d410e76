"""An answer whose head is known and one that is parsed are the same answer; what follows a whole answer spoils it."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mooring.net import answers
from mooring.net.upstream import Upstream

HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-type: a\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\n",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\n",
)
BODIES = (b"", b"o", b"ok", b"hello", b"2\r\nok\r\n0\r\n\r\n", b"okH", b"ok\r\n", b"okHTTP/1.1 200 OK\r\n")


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Sink:
    def __init__(self) -> None:
        self.heard: list[object] = []

    def answered(self, upstream: Upstream, *, ended: bool) -> None:
        body = b"".join(upstream.take())
        self.heard.append(
            (upstream.status, upstream.reason, list(upstream.fields), body, ended, ended and upstream.keep)
        )

    def informed(self, status: int) -> None:
        self.heard.append(status)

    def lost(self, upstream: Upstream, error: Exception | None) -> None:
        self.heard.append("lost")

    def upstream_pause(self) -> None: ...
    def upstream_resume(self) -> None: ...


def hear(exchanges: Sequence[tuple[bool, Sequence[bytes]]]) -> list[list[object]]:
    """What comes of answers given one after the other on one connection; (is it a HEAD's, the reads)."""
    upstream, transport = Upstream(lambda _: None), Transport()
    heard: list[list[object]] = []
    upstream.connection_made(transport)
    for no_body, reads in exchanges:
        sink = Sink()
        upstream.begin(sink, no_body=no_body)
        for data in reads:
            if not transport.closed:
                upstream.data_received(data)
        heard.append(sink.heard)
        if transport.closed or upstream._sink is not None or not upstream.keep:
            break
    return heard


EXCHANGES = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(st.builds(bytes.__add__, st.sampled_from(HEADS), st.sampled_from(BODIES)), min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=4,
)


@example([(False, [HEADS[0] + b"ok"]), (True, [HEADS[0]]), (False, [HEADS[0] + b"ok"])])
@example([(False, [HEADS[12] + HEADS[0][:9], HEADS[0] + b"ok"])])
@settings(max_examples=400)
@given(EXCHANGES)
def test_known_or_not_an_answer_is_the_same(exchanges: list[tuple[bool, list[bytes]]]) -> None:
    answers._kept.clear()
    for head in HEADS:
        for body in BODIES:
            hear([(False, [head + body])])
    known = hear(exchanges)
    answers._kept.clear()
    parsed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "learn", lambda *_, **__: None)
        parsed = hear(exchanges)
    assert known == parsed


def test_only_whole_answers_of_lasting_connections_are_known_and_not_for_ever() -> None:
    answers._kept.clear()
    for head in HEADS:
        for body in BODIES:
            hear([(False, [head + body])])
    assert set(answers._kept) == {HEADS[0], HEADS[1], HEADS[2], HEADS[3], HEADS[15]}
    for index in range(1000):
        hear([(False, [b"HTTP/1.1 200 OK\r\nX: %d\r\nContent-Length: 2\r\n\r\nok" % index])])
    assert len(answers._kept) <= 256


@pytest.mark.parametrize("tail", [b"H", b"HTTP/1.1 2", b"\0", b"HTTP/1.1 200 OK\r\n"])
def test_bytes_behind_a_whole_answer_spoil_the_connection(tail: bytes) -> None:
    assert hear([(False, [HEADS[0] + b"ok" + tail])]) == [
        [(200, b"OK", [(b"content-length", b"2")], b"ok", True, False)]
    ]
