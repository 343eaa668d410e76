"""Output of a container → log events: cut at line ends, bounded, the tail kept. Pure."""

from mooring.kit import logfile

MAX_LINE_BYTES = logfile.MAX_EVENT_BYTES - 4096  # room for escapes; what escapes more is cut by format_event


class Lines:
    """Feed chunks, get formatted events. A line without end is cut at MAX_LINE_BYTES."""

    def __init__(self, tail_bytes: int) -> None:
        self._partial = b""
        self._tail = b""
        self._tail_bytes = tail_bytes

    def feed(self, chunk: bytes, now_ms: int) -> bytes:
        """Events of the lines that this chunk completes."""
        self._tail = (self._tail + chunk)[-self._tail_bytes :]
        lines = (self._partial + chunk).split(b"\n")
        self._partial = lines.pop()
        out = [_event(piece, now_ms) for line in lines for piece in _pieces(line)]
        while len(self._partial) >= MAX_LINE_BYTES:
            out.append(_event(self._partial[:MAX_LINE_BYTES], now_ms))
            self._partial = self._partial[MAX_LINE_BYTES:]
        return b"".join(out)

    def end(self, now_ms: int) -> bytes:
        """The event of a last line without its end."""
        rest, self._partial = self._partial, b""
        return _event(rest, now_ms) if rest else b""

    def last_words(self) -> str:
        """The tail of everything fed, from a line's start where there is one."""
        tail = self._tail
        if len(tail) == self._tail_bytes:
            tail = tail.partition(b"\n")[2] or tail
        return tail.decode("utf-8", "replace").rstrip()


def _pieces(line: bytes) -> list[bytes]:
    line = line.removesuffix(b"\r")
    if len(line) <= MAX_LINE_BYTES:
        return [line]
    return [line[at : at + MAX_LINE_BYTES] for at in range(0, len(line), MAX_LINE_BYTES)]


def _event(line: bytes, now_ms: int) -> bytes:
    return logfile.format_event(now_ms, line.decode("utf-8", "replace"))
