"""A request as the server's side hands it on, who answers it, and which heads are refused. Pure.

Framing is llhttp's, which refuses what request smuggling lives on (both lengths, two lengths, folded lines, bare CR or LF);
what it lets pass and we do not want is refused by `judge`. Called by net.connection and by all that answer requests. Must
not know sockets, nor what a request means.
"""

from typing import Final, Protocol

SINGLE: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"authorization", b"expect", b"content-type")
)  # fields that a head holds once


class Request:
    """A request's head. Field names are lower-cased; values are kept byte for byte; repeated fields are joined by a
    comma, as RFC 9110 section 5.2 allows and SigV4's canonical form demands.
    """

    __slots__ = (
        "chunked",
        "expects_continue",
        "headers",
        "keep_alive",
        "length",
        "method",
        "path",
        "query",
        "target",
        "version_1_1",
    )

    def __init__(self, method: bytes, target: bytes, headers: dict[bytes, bytes]) -> None:
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition(b"?")
        self.headers = headers
        self.length: int | None = None  # declared by Content-Length
        self.chunked = False
        self.expects_continue = False
        self.version_1_1 = True
        self.keep_alive = True

    def head_bytes(self) -> int:
        """How long its head is, about: what stood around values is not counted."""
        return len(self.target) + sum(len(name) + len(value) + 4 for name, value in self.headers.items())


class Exchange(Protocol):
    """What answers one request. Every method is called from the loop; none may raise or block."""

    def body(self, data: bytes) -> None:
        """More of the request's body."""

    def end(self) -> None:
        """The request's body is complete."""

    def abort(self) -> None:
        """The client is gone: release everything, send nothing."""

    def pause(self) -> None:
        """The client reads slowly: produce no more for now."""

    def resume(self) -> None:
        """The client caught up."""


class _Refused:
    """The exchange of a request that was answered already: what is left of its body is thrown away."""

    __slots__ = ()

    def body(self, data: bytes) -> None:
        """Throw away."""

    def end(self) -> None:
        """Nothing is left to do."""

    def abort(self) -> None:
        """Nothing is held."""

    def pause(self) -> None:
        """Nothing is produced."""

    def resume(self) -> None:
        """Nothing is produced."""


REFUSED: Final = _Refused()  # what a Route returns when it has replied by itself


def judge(request: Request, *, version: str, switches: bool, repeated: bool) -> tuple[int, bytes] | None:
    """Status and text for a head that llhttp lets pass and we do not take; fills in what the head says about its body.

    `switches`: it asks for another protocol. `repeated`: a field of SINGLE came twice.
    """
    headers = request.headers
    if repeated:
        return 400, b"A field is repeated."
    request.version_1_1 = version == "1.1"
    if version not in ("1.1", "1.0"):
        return 505, b"This server speaks HTTP/1.1."
    if b"host" not in headers and request.version_1_1:
        return 400, b"The Host field is missing."
    length = headers.get(b"content-length")
    if length is not None:
        request.length = int(length)
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        # Only what every hop reads the same way: exactly "chunked", in HTTP/1.1, with no length beside it.
        if coding.strip().lower() != b"chunked" or not request.version_1_1 or length is not None:
            return 400, b"This Transfer-Encoding is not taken."
        request.chunked = True
    if request.method == b"CONNECT" or (switches and (request.chunked or request.length)):
        return 400, b"This server does not switch protocols."
    if not request.target.startswith(b"/") and not _origin_form(request):
        return 400, b"The request's target is not a path."
    expect = headers.get(b"expect")
    if expect is not None:
        if expect.strip().lower() != b"100-continue":
            return 417, b"This expectation is not known."
        request.expects_continue = True
    return None


def unreadable(reason: str) -> bytes:
    """What a client is told when the parser cannot read on. `reason` is llhttp's: a fixed text, nothing of the request."""
    if "can't be present with" in reason:
        return b"Content-Length and Transfer-Encoding are both there: a body has a length or is chunked."
    what = "The chunked body is not well formed" if "chunk" in reason.lower() else "The request is not HTTP"
    return f"{what}: {reason}.".encode() if reason else f"{what}.".encode()


def _origin_form(request: Request) -> bool:
    """Turn an absolute-form target (RFC 9112 section 3.2.2) into a path; False when it is neither."""
    scheme, separator, rest = request.target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return False
    slash = rest.find(b"/")
    request.target = rest[slash:] if slash >= 0 else b"/"
    request.path, _, request.query = request.target.partition(b"?")
    return True
