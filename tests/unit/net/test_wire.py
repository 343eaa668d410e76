"""Facts of HTTP/1.1 that both sides share."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.net import wire


@given(st.binary(min_size=1, max_size=5000))
def test_a_chunk_says_its_length(data: bytes) -> None:
    size, _, rest = wire.chunk(data).partition(b"\r\n")
    assert int(size, 16) == len(data)
    assert rest == data + b"\r\n"


def test_status_lines_carry_a_reason() -> None:
    assert wire.status_line(424) == b"HTTP/1.1 424 Failed Dependency\r\n"
    assert wire.status_line(599) == b"HTTP/1.1 599 \r\n"
    assert wire.status_line(200, b"Fine") == b"HTTP/1.1 200 Fine\r\n"


def test_dates_are_imf_fixdates() -> None:
    assert wire.http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"


def test_answers_without_bodies_are_known() -> None:
    assert not wire.has_body(200, b"HEAD")
    assert not wire.has_body(204, b"GET")
    assert not wire.has_body(304, b"GET")
    assert wire.has_body(404, b"GET")


def test_connection_options_are_names() -> None:
    assert wire.connection_options(b"Keep-Alive, X-Hop ,te") == {b"keep-alive", b"x-hop", b"te"}
    assert wire.connection_options(None) == frozenset()
