"""HTTP of the model server: what is read, what is refused, what is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.serving import wire

LIMIT = 1 << 20


def read_all(data: bytes, *, step: int | None = None, limit: int = LIMIT):
    reader = wire.RequestReader(limit)
    requests = []
    pieces = [data] if step is None else [data[i : i + step] for i in range(0, len(data), step)]
    for piece in pieces:
        reader.feed(piece)
        while (request := reader.next_request()) is not None:
            requests.append(request)
    return reader, requests


def seen(request: wire.Request) -> tuple:
    return request.method, request.path, request.headers, request.keep_alive, request.body


def chunked(body: bytes, sizes: list[int]) -> bytes:
    out, rest = b"", body
    for size in sizes:
        part, rest = rest[:size], rest[size:]
        if part:
            out += b"%x;ext=1\r\n%s\r\n" % (len(part), part)
    if rest:
        out += b"%X\r\n%s\r\n" % (len(rest), rest)
    return out + b"0\r\nTrailer: x\r\n\r\n"


def test_a_request_with_a_length_is_read():
    _, (request,) = read_all(
        b"POST /invocations?x=1 HTTP/1.1\r\nHost: x\r\ncontent-TYPE:  text/csv \r\nContent-Length: 3\r\n\r\n1,2"
    )
    assert seen(request) == (
        b"POST",
        b"/invocations",
        {b"host": b"x", b"content-type": b"text/csv", b"content-length": b"3"},
        True,
        b"1,2",
    )


@given(
    bodies=st.lists(
        st.tuples(st.binary(max_size=60), st.lists(st.integers(1, 20), max_size=4), st.booleans()), max_size=4
    ),
    step=st.integers(1, 40),
)
def test_fed_whole_or_in_pieces_the_requests_are_the_same(bodies, step):
    data = b""
    for body, sizes, by_chunks in bodies:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\n"
        if by_chunks:
            data += head + b"Transfer-Encoding: Chunked\r\n\r\n" + chunked(body, sizes)
        else:
            data += head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    reader, whole = read_all(data)
    _, pieces = read_all(data, step=step)
    assert [seen(r) for r in whole] == [seen(r) for r in pieces]
    assert [r.body for r in whole] == [body for body, _, _ in bodies]
    assert reader.is_idle


@given(st.binary(max_size=300))
def test_any_bytes_are_requests_or_malformed_never_another_failure(data):
    try:
        read_all(b"POST / HTTP/1.1\r\n" + data, step=7)
    except wire.Malformed as error:
        assert 400 <= error.status < 600


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: +1\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: 1_0\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length:\r\n", 400),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: identity\r\n", 501),
        (b"POST /x HTTP/1.1\r\nContent-Length : 1\r\n", 400),
        (b"POST /x HTTP/1.1\r\nA: b\r\n folded\r\n", 400),
        (b"POST /x HTTP/1.1\r\nA: b\nContent-Length: 9\r\n", 400),
        (b"POST /x HTTP/1.1\r\nA: b\rc\r\n", 400),
        (b"POST /x HTTP/1.1\r\nA: \x00\r\n", 400),
        (b"POST /x HTTP/1.1\r\nno colon\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        (b"POST  /x HTTP/1.1\r\n", 400),
        (b"POST http://x/ HTTP/1.1\r\n", 400),
        (b"GET /x HTTP/2.0\r\n", 505),
        (b"GET /x\r\n", 400),
        (b"POST /x HTTP/1.1\r\nExpect: something\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: 1048577\r\n", 413),
        (b"POST /x HTTP/1.1\r\n" + b"A: b\r\n" * 300, 431),
        (b"POST /x HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n", 431),
    ],
)
def test_ambiguous_or_oversized_heads_are_refused(head, status):
    with pytest.raises(wire.Malformed) as error:
        read_all(head + b"\r\n")
    assert error.value.status == status


def test_a_head_without_end_is_refused_before_it_is_whole():
    with pytest.raises(wire.Malformed) as error:
        read_all(b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000, step=1000)
    assert error.value.status == 431


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x\r\n", 400),
        (b"\r\n", 400),
        (b"-1\r\n", 400),
        (b"0x1\r\na\r\n", 400),
        (b"1\r\nabc\r\n0\r\n\r\n", 400),
        (b"1" * 5000, 400),
        (b"ffffffff\r\n", 413),
        (b"80000\r\n" + b"x" * 0x80000 + b"\r\n80001\r\n", 413),
        (b"0\r\n" + (b"T: " + b"x" * 4000 + b"\r\n") * 20, 431),
    ],
)
def test_chunked_bodies_that_lie_are_refused(body, status):
    with pytest.raises(wire.Malformed) as error:
        read_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert error.value.status == status


@pytest.mark.parametrize(
    ("line", "header", "keeps"),
    [
        (b"HTTP/1.1", b"", True),
        (b"HTTP/1.1", b"Connection: close\r\n", False),
        (b"HTTP/1.0", b"", False),
        (b"HTTP/1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_connections_persist_by_version_and_header(line, header, keeps):
    _, (request,) = read_all(b"GET /ping " + line + b"\r\n" + header + b"\r\n")
    assert request.keep_alive is keeps


def test_a_peer_that_waits_for_continue_is_seen_until_its_body_is_there():
    reader, requests = read_all(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert not requests
    assert reader.expects_continue
    reader.feed(b"ab")
    request = reader.next_request()
    assert request is not None
    assert request.body == b"ab"
    assert not reader.expects_continue


def test_repeated_headers_are_joined():
    _, (request,) = read_all(b"GET / HTTP/1.1\r\nAccept: a/b\r\naccept: c/d\r\n\r\n")
    assert request.headers[b"accept"] == b"a/b, c/d"


def test_a_response_is_written_with_its_length():
    assert wire.response(200, b"ab", "text/csv", headers=(("X-A", "1"),)) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nab"
    )
    assert wire.response(200, b"ab", keep_alive=False, head_only=True) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("bad", [("X", "a\r\nb: c"), ("X\n", "a"), ("", "a"), ("X Y", "a"), ("X", "a\x00")])
def test_headers_cannot_end_early(bad):
    with pytest.raises(ValueError, match="cannot be sent"):
        wire.response(200, b"", headers=(bad,))


def test_a_reason_cannot_hold_a_line_end():
    with pytest.raises(ValueError, match="reason"):
        wire.response(400, b"", reason="a\r\nb")
