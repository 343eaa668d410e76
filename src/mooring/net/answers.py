"""Heads of answers that were read before, so that the same bytes need no parsing again. Pure but for its bounded memory.

An instance answers with the same few heads over and over. What the parser made of one, read from its first byte, is what
it would make of the same bytes again; only answers that came whole in one read, framed by Content-Length on a connection
that stays open, are kept. Called by net.upstream. Must not know what an answer means.
"""

_MAX_KEPT = 256
_MAX_HEAD_BYTES = 1024


class AnswerHead:
    """A head, as the parser read it. `note` is free for what the reader of the answer makes of it."""

    __slots__ = ("fields", "length", "note", "reason", "size", "status")

    def __init__(
        self, *, status: int, reason: bytes, fields: list[tuple[bytes, bytes]], size: int, length: int
    ) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.size = size  # of the head, bytes
        self.length = length  # of the body
        self.note: bytes | None = None


_kept: dict[bytes, AnswerHead] = {}


def find(data: bytes) -> AnswerHead | None:
    """The head that `data` begins with, when it is known and `data` is one whole answer."""
    size = data.find(b"\r\n\r\n") + 4
    head = _kept.get(data[:size])
    return head if head is not None and len(data) - size == head.length else None


def learn(data: bytes, *, status: int, reason: bytes, fields: list[tuple[bytes, bytes]], length: int) -> None:
    """The parser read `data`, from its first byte to its last, as one answer with a body of `length` bytes."""
    size = data.find(b"\r\n\r\n") + 4
    if not 4 < size <= _MAX_HEAD_BYTES or len(data) - size != length:
        return
    if [int(value) for name, value in fields if name == b"content-length"] != [length]:
        return
    if len(_kept) >= _MAX_KEPT:
        _kept.clear()
    _kept[data[:size]] = AnswerHead(status=status, reason=reason, fields=fields, size=size, length=length)
