"""The log store's files: pure line format and a bounded, rotating writer.

The shim writes a container's output with it, control the lines of its own (progress of a start), telemetry reads both.

    <data>/logs/<quote(group)>/<quote(stream)>/<writer>-<8 digits>.log      quote = urllib.parse.quote(x, safe="")
    one event per line: <epoch ms> TAB <text> LF      text: backslash, LF, CR and TAB escaped by a backslash

A segment is rotated at `max_bytes`; at most `max_segments` per writer are kept, the oldest go. Writers of one directory have
different names, so no two processes append to one file. Standard library only, and little of it: the shim starts fast.
"""

import os

MAX_EVENT_BYTES = 256 << 10  # CloudWatch's limit for one event
SEGMENT_BYTES = 4 << 20
SEGMENTS = 8
WRITER_OUTPUT = "out"  # the shim: what the container printed
WRITER_PLATFORM = "platform"  # control: what was done to the container

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TABLE = str.maketrans(_ESCAPES)
_UNESCAPES = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def format_event(ms: int, text: str) -> bytes:
    """One line of a segment. A text that would not fit MAX_EVENT_BYTES once written is cut at a character."""
    raw = text.translate(_TABLE).encode("utf-8", "replace")
    if len(raw) > MAX_EVENT_BYTES:
        raw = raw[:MAX_EVENT_BYTES].decode("utf-8", "ignore").encode()
        backslashes = len(raw) - len(raw.rstrip(b"\\"))
        if backslashes % 2:
            raw = raw[:-1]
    return b"%d\t%s\n" % (ms, raw)


def parse_event(line: bytes) -> tuple[int, str]:
    """(epoch ms, text) of one line, with or without its LF. Raises ValueError for what format_event never writes."""
    head, tab, body = line.rstrip(b"\n").partition(b"\t")
    if not tab or not head.isdigit():
        raise ValueError("a log line has no time stamp")
    text = body.decode("utf-8", "replace")
    if "\\" not in text:
        return int(head), text
    return int(head), _unescape(text)


def _unescape(text: str) -> str:
    out: list[str] = []
    parts = iter(text.split("\\"))
    out.append(next(parts))
    for part in parts:
        if part:
            if part[0] not in _UNESCAPES:
                raise ValueError("a log line has an unknown escape")
            out.append(_UNESCAPES[part[0]] + part[1:])
            continue
        following = next(parts, None)  # an empty part: an escaped backslash
        if following is None:
            raise ValueError("a log line ends inside an escape")
        out.append("\\" + following)
    return "".join(out)


def segment_name(writer: str, number: int) -> str:
    """File name of a segment."""
    return f"{writer}-{number:08d}.log"


def parse_segment_name(name: str) -> tuple[str, int] | None:
    """(writer, number) of a segment's file name; None for any other file."""
    stem, dot, suffix = name.rpartition(".")
    writer, dash, digits = stem.rpartition("-")
    if not (dot and dash and writer) or suffix != "log" or len(digits) < 8 or not digits.isdecimal():
        return None
    return writer, int(digits)


def segments(directory: str, writer: str) -> list[int]:
    """Numbers of a writer's segments, ascending; empty when the directory is not there."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    found = (parse_segment_name(name) for name in names)
    return sorted(parsed[1] for parsed in found if parsed is not None and parsed[0] == writer)


class SegmentWriter:
    """Appends events to a writer's newest segment; makes the directory (0700) and its files (0600).

    One process per (directory, writer). Each `append` is one write(2), so a reader sees whole lines or a last line without
    its LF, and a killed process loses nothing that was appended. Raises OSError, after which it may be used again.
    """

    def __init__(
        self, directory: str, writer: str, max_bytes: int = SEGMENT_BYTES, max_segments: int = SEGMENTS
    ) -> None:
        self._directory = directory
        self._writer = writer
        self._max_bytes = max_bytes
        self._max_segments = max(max_segments, 1)
        self._fd = -1
        self._size = 0
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._numbers = segments(directory, writer) or [1]

    def append(self, ms: int, text: str) -> None:
        """Write one event."""
        self.append_raw(format_event(ms, text))

    def append_raw(self, lines: bytes) -> None:
        """Write formatted events (whole lines of format_event) at once."""
        if self._fd < 0:
            self._open()
        if self._size and self._size + len(lines) > self._max_bytes:
            self._rotate()
        view = memoryview(lines)
        while view:
            written = os.write(self._fd, view)
            self._size += written
            view = view[written:]

    def close(self) -> None:
        """Let the file go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _path(self, number: int) -> str:
        return os.path.join(self._directory, segment_name(self._writer, number))

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path(self._numbers[-1]), flags, 0o600)
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":  # a predecessor died inside a line
            self._size += os.write(self._fd, b"\n")

    def _rotate(self) -> None:
        self.close()
        self._numbers.append(self._numbers[-1] + 1)
        while len(self._numbers) > self._max_segments:
            number = self._numbers.pop(0)
            try:
                os.unlink(self._path(number))
            except FileNotFoundError:
                continue
        self._open()
