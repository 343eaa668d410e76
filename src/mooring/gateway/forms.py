"""Requests in a form that was taken before: read by comparing, not by parsing. Pure.

A client sends the same head again and again; only the time of day, the signature, the body's length and botocore's own
id of the call differ. When a request was read by the parser, checked in full and proved, its head is kept as a form:

    POST /endpoints/e/invocations HTTP/1.1 … x-amz-date: 20260101T‹clock›Z … Signature=‹signature› … content-length: ‹n›

Whoever sends the same bytes around those holes has said what was checked then. What is in the holes is checked anew:
digits are digits, the body is all that follows the head and as long as it says, and the signature is calculated and
compared. So `Form.prove` gives a body only where the parser and all checks after it would have taken the same request;
for anything else it gives None, the bytes go the long way, and that says what is wrong. No verdict on a signature is kept.

Called by gateway.server. Must not know connections or instances.
"""

import re
from hashlib import sha256
from struct import Struct

from mooring.net.connection import TOGETHER_BYTES
from mooring.net.request import Request
from mooring.protocol import runtime, sigv4

_MAX_HEAD_BYTES = 2048
_MAX_FORMS = 256  # of one worker
_FORMS_PER_CLIENT = 4  # tried for each request of one connection
_LESSONS = 16  # learned from one connection: one that never sends the same again is not studied for ever

_CLOCK = re.compile(rb"\r\nx-amz-date:[ \t]*[0-9]{8}T([0-9]{6})Z[ \t]*(?=\r\n)", re.IGNORECASE)
_SIGNATURE = re.compile(rb"\r\nauthorization:[^\r\n]*Signature=([0-9a-f]{64})(?=\r\n)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([1-9][0-9]{0,8})[ \t]*(?=\r\n)", re.IGNORECASE)
_CALL = re.compile(rb"\r\namz-sdk-invocation-id:[ \t]*([0-9a-fA-F-]{36})[ \t]*(?=\r\n)", re.IGNORECASE)
_CALL_FIELD = b"amz-sdk-invocation-id"
_CALL_BYTES = b"0123456789abcdefABCDEF-"


class Form:
    """One form; see the module. `request`, `head`, `members` and `forwarded` are those of the request it was made of."""

    __slots__ = (
        "_call",
        "_clock",
        "_length",
        "_same",
        "_signature",
        "_signed",
        "_split",
        "forwarded",
        "head",
        "head_bytes",
        "members",
        "name",
        "request",
    )

    def __init__(
        self,
        pieces: list[bytes],
        holes: list[str],
        *,
        name: bytes,
        request: Request,
        head: sigv4.Head,
        signed: sigv4.Recurring,
        members: runtime.Invocation,
        forwarded: bytes,
    ) -> None:
        self.head_bytes = sum(map(len, pieces))
        self._split = Struct("".join(f"{len(piece)}s" for piece in pieces)).unpack_from
        self._same = tuple(pieces[::2])
        self._clock = holes.index("clock") * 2 + 1
        self._signature = holes.index("signature") * 2 + 1
        self._length = holes.index("length") * 2 + 1
        self._call = holes.index("call") * 2 + 1 if "call" in holes else 0
        self._signed = signed
        self.name = name
        self.request = request
        self.head = head
        self.members = members
        self.forwarded = forwarded

    def prove(self, data: bytes, now_s: float) -> bytes | None:
        """The body, when `data` is one whole request of this form with a signature that holds now."""
        head_bytes = self.head_bytes
        if len(data) <= head_bytes:
            return None
        pieces = self._split(data)
        if pieces[::2] != self._same or pieces[self._length] != b"%d" % (len(data) - head_bytes):
            return None
        if self._call and pieces[self._call].translate(None, _CALL_BYTES):
            return None
        body = data[head_bytes:]
        if self._signed.holds(pieces[self._clock], sha256(body).hexdigest(), pieces[self._signature], now_s):
            return body
        return None

    def begins(self, data: bytes) -> bool:
        """Whether `data` is a head of this form, and its body a short one: clients send the two one after the other."""
        if len(data) != self.head_bytes:
            return False
        pieces = self._split(data)
        length = pieces[self._length]
        return pieces[::2] == self._same and length.isdigit() and 0 < int(length) <= TOGETHER_BYTES


class Forms:
    """The forms that one set of credentials has proved."""

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, ...], Form] = {}

    def learn(
        self,
        data: bytes,
        *,
        name: bytes,
        request: Request,
        head: sigv4.Head,
        members: runtime.Invocation,
        forwarded: bytes,
    ) -> Form | None:
        """The form of a request that was taken and proved; None when it has none or `data` is more or less than it."""
        found = _cut(data, request, head)
        if found is None:
            return None
        pieces, holes = found
        key = tuple(piece if index % 2 == 0 else b"%d" % len(piece) for index, piece in enumerate(pieces))
        form = self._kept.get(key)
        if form is None:
            signed = sigv4.Recurring.of(head)
            if signed is None:
                return None
            form = Form(
                pieces,
                holes,
                name=name,
                request=request,
                head=head,
                signed=signed,
                members=members,
                forwarded=forwarded,
            )
            if len(self._kept) >= _MAX_FORMS:
                self._kept.clear()
            self._kept[key] = form
        return form


class Acquaintance:
    """What one connection's client sent before: forms of one set of credentials, the newest first."""

    __slots__ = ("_lessons", "forms", "source")

    def __init__(self, source: Forms) -> None:
        self.source = source
        self.forms: tuple[Form, ...] = ()
        self._lessons = _LESSONS

    def willing(self) -> bool:
        """Whether another request is worth learning from; asked once for each."""
        self._lessons -= 1
        return self._lessons >= 0

    def add(self, form: Form) -> None:
        """One more."""
        if form not in self.forms:
            self.forms = (form, *self.forms)[:_FORMS_PER_CLIENT]


def _cut(data: bytes, request: Request, head: sigv4.Head) -> tuple[list[bytes], list[str]] | None:
    """The head cut into pieces: same, hole, same, hole, …, same; and what each hole holds."""
    size = data.find(b"\r\n\r\n") + 4
    whole = request.length is not None and len(data) - size == request.length
    plain = request.version_1_1 and request.keep_alive and not request.expects_continue
    if not (whole and plain and 4 < size <= _MAX_HEAD_BYTES):
        return None
    text = data[:size]
    sought = [("clock", _CLOCK), ("signature", _SIGNATURE), ("length", _LENGTH)]
    if _CALL_FIELD in request.headers:
        sought.append(("call", _CALL))
    signed = head.canonical[0].rsplit(b"\n", 2)[1].split(b";")
    if b"content-length" in signed or _CALL_FIELD in signed:
        return None
    holes: list[tuple[int, int, str]] = []
    for hole, pattern in sought:
        found = pattern.findall(text)
        match = pattern.search(text)
        if match is None or len(found) != 1:
            return None
        holes.append((*match.span(1), hole))
    holes.sort()
    pieces, at = [], 0
    for start, end, _ in holes:
        pieces += [text[at:start], text[start:end]]
        at = end
    return [*pieces, text[at:]], [hole for _, _, hole in holes]
