"""The log store's line format and its rotating writer."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.kit import logfile

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(ms=st.integers(0, 2**53), text=st.one_of(TEXT, st.text(alphabet="\\\n\r\tnrta")))
def test_what_is_written_is_read_back(ms: int, text: str) -> None:
    line = logfile.format_event(ms, text)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line.count(b"\t") == 1
    assert logfile.parse_event(line) == (ms, text)


@given(filler=st.integers(0, 8), tail=st.text(alphabet="\\\nxé", min_size=1, max_size=40))
def test_an_event_over_the_limit_is_cut_and_stays_readable(filler: int, tail: str) -> None:
    text = "x" * (logfile.MAX_EVENT_BYTES - filler) + tail * 5
    line = logfile.format_event(1, text)
    assert len(line) <= logfile.MAX_EVENT_BYTES + 3
    assert text.startswith(logfile.parse_event(line)[1])


@pytest.mark.parametrize("line", [b"", b"no tab\n", b"x\ttext\n", b"1\tbad \\q\n", b"1\tends \\\n"])
def test_a_line_that_was_never_written_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        logfile.parse_event(line)


def test_segments_rotate_and_the_oldest_go(tmp_path: Path) -> None:
    writer = logfile.SegmentWriter(str(tmp_path / "log"), "out", max_bytes=100, max_segments=3)
    for number in range(40):
        writer.append(number, f"event {number}")
    writer.close()
    numbers = logfile.segments(str(tmp_path / "log"), "out")
    assert len(numbers) == 3
    texts = [
        logfile.parse_event(line)[1]
        for number in numbers
        for line in (tmp_path / "log" / logfile.segment_name("out", number)).read_bytes().splitlines()
    ]
    assert texts == [f"event {number}" for number in range(40 - len(texts), 40)]


def test_a_second_life_appends_after_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "out-00000004.log").write_bytes(b"1\twhole\n2\tto")
    writer = logfile.SegmentWriter(str(tmp_path), "out")
    writer.append(3, "next")
    writer.close()
    assert (tmp_path / "out-00000004.log").read_bytes() == b"1\twhole\n2\tto\n3\tnext\n"


@given(writer=st.from_regex(r"[a-z-]{1,12}", fullmatch=True), number=st.integers(0, 10**9))
def test_segment_names_are_read_back(writer: str, number: int) -> None:
    assert logfile.parse_segment_name(logfile.segment_name(writer, number)) == (writer, number)


@pytest.mark.parametrize("name", ["out.log", "out-1.log", "-00000001.log", "out-00000001.txt", "out-0000000x.log"])
def test_other_files_are_no_segments(name: str) -> None:
    assert logfile.parse_segment_name(name) is None
