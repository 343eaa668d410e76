"""Output → log events, whatever the chunks."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.kit import logfile
from mooring.shim import lines as shim_lines
from mooring.shim.lines import Lines


def events(raw: bytes) -> list[str]:
    return [logfile.parse_event(line)[1] for line in raw.splitlines()]


@given(text=st.text(alphabet="ab\n\r\té\\", max_size=60), cuts=st.lists(st.integers(0, 80), max_size=6))
def test_chunks_make_no_difference(text: str, cuts: list[int]) -> None:
    raw = text.encode()
    lines = Lines(1000)
    at, out = 0, b""
    for cut in sorted(min(cut, len(raw)) for cut in cuts):
        out += lines.feed(raw[at:cut], 1)
        at = cut
    out += lines.feed(raw[at:], 1) + lines.end(1)
    whole = Lines(1000)
    assert out == whole.feed(raw, 1) + whole.end(1)
    *ended, rest = text.split("\n")
    assert events(out) == [line.removesuffix("\r") for line in ended] + ([rest] if rest else [])


def test_a_line_without_end_is_cut_and_nothing_of_it_is_kept() -> None:
    lines = Lines(100)
    out = b"".join(lines.feed(b"x" * 65536, 1) for _ in range(32)) + lines.end(1)
    assert "".join(events(out)) == "x" * (65536 * 32)
    assert all(len(event) <= shim_lines.MAX_LINE_BYTES for event in events(out))


def test_last_words_begin_at_a_line() -> None:
    lines = Lines(15)
    lines.feed(b"first line\nsecond line\nthird\n", 1)
    assert lines.last_words() == "third"


def test_last_words_of_one_endless_line_are_its_tail() -> None:
    lines = Lines(8)
    lines.feed(b"0123456789abcdef", 1)
    assert lines.last_words() == "89abcdef"
