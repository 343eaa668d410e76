"""HTTP/1.1 on the wire: the few pure facts that both sides of the edge share. No I/O, no state.

Called by net.connection, net.server, net.upstream, invoke, gateway and edge. Must not know what a request means.
"""

import http
from email.utils import formatdate
from typing import Final

REASONS: Final[dict[int, bytes]] = {status.value: status.phrase.encode() for status in http.HTTPStatus}
REASONS[424] = b"Failed Dependency"

STATUS_LINES: Final[dict[int, bytes]] = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()
}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

# RFC 9110 section 7.6.1: fields that belong to one connection, and those that re-framing makes untrue.
HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)


def status_line(status: int, reason: bytes = b"") -> bytes:
    """`HTTP/1.1 <status> <reason>` with its line end."""
    if not reason:
        known = STATUS_LINES.get(status)
        if known is not None:
            return known
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; `data` must not be empty (that would end the body)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def http_date(epoch_s: float) -> bytes:
    """IMF-fixdate of RFC 9110 section 5.6.7."""
    return formatdate(epoch_s, usegmt=True).encode()


def connection_options(value: bytes | None) -> frozenset[bytes]:
    """Field names that a Connection field declares to be of this hop alone, lower-cased."""
    if not value:
        return frozenset()
    return frozenset(option.strip().lower() for option in value.split(b","))


def content_length(value: bytes | None) -> int | None:
    """The length that a Content-Length field declares; None when there is no such field. The parser has checked it."""
    return None if value is None else int(value)


def has_body(status: int, method: bytes) -> bool:
    """Whether an answer of this status to this method carries a body (RFC 9112 section 6.3)."""
    return not (method == b"HEAD" or status < 200 or status in (204, 304))
