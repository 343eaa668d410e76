"""Reading the log store's files: one stream's events forward and backward from any position, merged over its writers.

Called by telemetry.log_store, in threads. Files may grow, rotate and vanish meanwhile; every file is opened for one block at
a time, so that memory and descriptors stay bounded however many streams are read together.

    position = {writer: (segment number, byte offset)}, always at the start of a line

A line without its LF is still being written and does not exist yet. Lines that cannot be parsed are passed over.
"""

import heapq
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mooring.kit import logfile

BLOCK_BYTES = 16 << 10  # small: a search over a group holds one block of every stream
# format_event bounds the text; the time stamp, TAB and LF come on top
_MAX_LINE_BYTES = logfile.MAX_EVENT_BYTES + 64

Place = tuple[int, int]  # segment number, byte offset
Position = Mapping[str, Place]


@dataclass(frozen=True, slots=True)
class Event:
    """One log event. `start` and `end` are the places before and after its line."""

    ms: int
    writer: str
    start: Place
    end: Place
    text: str


def writers(directory: str) -> dict[str, list[int]]:
    """Segment numbers by writer, ascending; empty when there is no such directory."""
    found: dict[str, list[int]] = {}
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return found
    for name in names:
        parsed = logfile.parse_segment_name(name)
        if parsed is not None:
            found.setdefault(parsed[0], []).append(parsed[1])
    for numbers in found.values():
        numbers.sort()
    return found


def start_position(directory: str) -> Position:
    """Before the first event that is there."""
    return {writer: (numbers[0], 0) for writer, numbers in writers(directory).items()}


def end_position(directory: str) -> Position:
    """After the last whole line that is there."""
    position: dict[str, Place] = {}
    for writer, numbers in writers(directory).items():
        for number in reversed(numbers):
            end = _whole_lines_end(_path(directory, writer, number))
            if end is not None:
                position[writer] = (number, end)
                break
    return position


def forward(directory: str, position: Position, *, since_ms: int = 0) -> Iterator[Event]:
    """Events from `position` on, by time over all writers; a writer that `position` lacks is read from its start.

    Segments that end before `since_ms` may be passed over unread; single events are not filtered.
    """
    sources = [
        _forward(directory, writer, numbers, position.get(writer, (0, 0)), since_ms)
        for writer, numbers in sorted(writers(directory).items())
    ]
    return heapq.merge(*sources, key=lambda event: (event.ms, event.writer))


def backward(directory: str, position: Position) -> Iterator[Event]:
    """Events before `position`, latest first; a writer that `position` lacks has none before it."""
    sources = [
        _backward(directory, writer, numbers, position[writer])
        for writer, numbers in sorted(writers(directory).items())
        if writer in position
    ]
    return heapq.merge(*sources, key=lambda event: (event.ms, event.writer), reverse=True)


def file_name(writer: str, number: int) -> str:
    """Name of a segment's file."""
    return logfile.segment_name(writer, number)


def is_line_start(directory: str, writer: str, place: Place) -> bool:
    """Whether a place that a caller names is one that we could have named; a segment that is gone counts as one."""
    number, offset = place
    if offset == 0:
        return True
    try:
        block = _read(_path(directory, writer, number), offset - 1, 1)
    except FileNotFoundError:
        return True
    return block == b"\n"


def first_ms(directory: str, writer: str, number: int) -> int | None:
    """Time of a segment's first event; None when it has none (or is gone)."""
    return next((event.ms for event in _segment_forward(directory, writer, number, 0)), None)


def last_ms(directory: str, writer: str, number: int) -> int | None:
    """Time of a segment's last event; None when it has none (or is gone)."""
    end = _whole_lines_end(_path(directory, writer, number))
    if not end:
        return None
    return next((event.ms for event in _segment_backward(directory, writer, number, end)), None)


# one writer -----------------------------------------------------------------------------------------------------------
def _forward(directory: str, writer: str, numbers: list[int], place: Place, since_ms: int) -> Iterator[Event]:
    for number in numbers:
        if number < place[0]:
            continue
        if since_ms and number != numbers[-1] and (last_ms(directory, writer, number) or 0) < since_ms:
            continue
        yield from _segment_forward(directory, writer, number, place[1] if number == place[0] else 0)


def _backward(directory: str, writer: str, numbers: list[int], place: Place) -> Iterator[Event]:
    for number in reversed(numbers):
        if number > place[0]:
            continue
        end = place[1] if number == place[0] else _whole_lines_end(_path(directory, writer, number))
        if end:
            yield from _segment_backward(directory, writer, number, end)


def _segment_forward(directory: str, writer: str, number: int, offset: int) -> Iterator[Event]:
    path = _path(directory, writer, number)
    rest = b""
    while True:
        try:
            block = _read(path, offset + len(rest), BLOCK_BYTES)
        except FileNotFoundError:
            return
        if not block:
            return
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        for line in lines:
            end = offset + len(line) + 1
            event = _event(line, writer, (number, offset), (number, end))
            offset = end
            if event is not None:
                yield event
        if len(rest) > _MAX_LINE_BYTES:  # nothing that our writer wrote
            return


def _segment_backward(directory: str, writer: str, number: int, end: int) -> Iterator[Event]:
    """`end` is the start of a line, or the end of the last whole one."""
    path = _path(directory, writer, number)
    start = end
    buffer = b""  # bytes start…end: ends with an LF; its first line may lack its beginning
    while start > 0:
        size = min(BLOCK_BYTES, start)
        start -= size
        try:
            block = _read(path, start, size)
        except FileNotFoundError:
            return
        if len(block) < size:
            return
        buffer = block + buffer
        whole = 0 if start == 0 else buffer.find(b"\n", 0, len(buffer) - 1) + 1
        if start > 0 and whole == 0:
            if len(buffer) > _MAX_LINE_BYTES:  # nothing that our writer wrote
                return
            continue
        for line in reversed(buffer[whole:-1].split(b"\n")):
            begin = end - len(line) - 1
            event = _event(line, writer, (number, begin), (number, end))
            end = begin
            if event is not None:
                yield event
        buffer = buffer[:whole]


# one file -------------------------------------------------------------------------------------------------------------
def _path(directory: str, writer: str, number: int) -> str:
    return os.path.join(directory, logfile.segment_name(writer, number))


def _read(path: str, offset: int, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def _whole_lines_end(path: str) -> int | None:
    """Offset after the last LF, 0 when there is none; None when the file is gone."""
    try:
        end = os.stat(path, follow_symlinks=False).st_size
        lowest = max(0, end - _MAX_LINE_BYTES)
        while end > lowest:
            size = min(BLOCK_BYTES, end)
            found = _read(path, end - size, size).rfind(b"\n")
            if found >= 0:
                return end - size + found + 1
            end -= size
    except FileNotFoundError:
        return None
    return 0


def _event(line: bytes, writer: str, start: Place, end: Place) -> Event | None:
    try:
        ms, text = logfile.parse_event(line)
    except ValueError:
        return None
    return Event(ms, writer, start, end, text)
