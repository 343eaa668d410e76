"""HTTP/1.1 as bytes: requests in, responses out. Pure; called by the front (requests) and the workers (responses).

    feed(bytes) ─▶ head ─▶ body by Content-Length │ chunks ─▶ next_request() ─▶ Request
                     └─▶ expects_continue                └─▶ Malformed(status): answer it and close

Strict where leniency lets two parsers see two different requests (RFC 9112, section 6.3 and 11.2): lengths are digits, once;
Content-Length beside Transfer-Encoding, bare CR or LF, folded lines and spaces before a colon are refused.
"""

import re
from typing import Dict, List, Optional, Tuple

MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 200
_MAX_CHUNK_LINE_BYTES = 4 << 10
_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) (/[!-~\x80-\xff]*) HTTP/1\.([01])")
_FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_BYTES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # within a line, after splitting at CR LF
_DIGITS = re.compile(rb"[0-9]{1,18}")
_HEX_DIGITS = re.compile(rb"[0-9a-fA-F]{1,15}")
_REASONS = {
    200: b"OK",
    204: b"No Content",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    408: b"Request Timeout",
    413: b"Payload Too Large",
    415: b"Unsupported Media Type",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Malformed(Exception):
    """The bytes are no request that can be answered otherwise; the connection has to be closed."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Request:
    """One request. Header names are lower case."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path")

    def __init__(self, method: bytes, path: bytes, headers: Dict[bytes, bytes], keep_alive: bool) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.keep_alive = keep_alive
        self.body = b""


class RequestReader:
    """Bytes of one connection to requests. After Malformed it must not be used again."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray()
        self._searched = 0  # no end of the head begins before here
        self._request: Optional[Request] = None  # its head is complete, its body is not
        self._length = 0
        self._chunks: Optional[_Chunks] = None
        self.expects_continue = False  # the peer waits for CONTINUE; the one who sends it clears this

    @property
    def buffered(self) -> int:
        """Bytes fed and not yet part of a request given out."""
        return len(self._buffer)

    @property
    def is_idle(self) -> bool:
        """Between two requests."""
        return not self._buffer and self._request is None

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer."""
        self._buffer += data

    def next_request(self) -> Optional[Request]:
        """The next whole request, None while there is none. Raises Malformed."""
        request = self._request
        if request is None:
            request = self._read_head()
            if request is None:
                return None
            self._begin_body(request)
        body = self._read_body()
        if body is None:
            self._request = request
            return None
        self._request = None
        self.expects_continue = False
        request.body = body
        return request

    def _read_head(self) -> Optional[Request]:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # RFC 9112, 2.2: an empty line before a request is skipped
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", self._searched)
        if end < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                raise Malformed(431, "the request's head is larger than {} bytes".format(MAX_HEAD_BYTES))
            self._searched = max(0, len(buffer) - 3)
            return None
        if end > MAX_HEAD_BYTES:
            raise Malformed(431, "the request's head is larger than {} bytes".format(MAX_HEAD_BYTES))
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        self._searched = 0
        return parse_head(head)

    def _begin_body(self, request: Request) -> None:
        headers = request.headers
        coding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        self._chunks = None
        self._length = 0
        if coding is not None:
            if length is not None:
                raise Malformed(400, "Content-Length and Transfer-Encoding exclude each other")
            if coding.lower() != b"chunked":
                raise Malformed(501, "the only transfer coding here is chunked")
            self._chunks = _Chunks(self._max_body_bytes)
        elif length is not None:
            if _DIGITS.fullmatch(length) is None:
                raise Malformed(400, "Content-Length is not a number")
            self._length = int(length)
            if self._length > self._max_body_bytes:
                raise _too_large(self._max_body_bytes)
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                raise Malformed(400, "the only expectation here is 100-continue")
            self.expects_continue = True

    def _read_body(self) -> Optional[bytes]:
        if self._chunks is not None:
            return self._chunks.read(self._buffer)
        length = self._length
        if not length:
            return b""
        if len(self._buffer) < length:
            return None
        if len(self._buffer) == length:
            body, self._buffer = bytes(self._buffer), bytearray()
            return body
        body = bytes(memoryview(self._buffer)[:length])
        del self._buffer[:length]
        return body


class _Chunks:
    """A chunked body (RFC 9112, 7.1). Extensions and trailers are read and dropped."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._parts: List[bytes] = []
        self._total = 0
        self._left: Optional[int] = None  # bytes of the chunk still to come, None: its size line is
        self._trailer_bytes = -1  # ≥ 0: past the last chunk

    def read(self, buffer: bytearray) -> Optional[bytes]:
        """Take what is there out of the buffer; the body when it is whole."""
        while True:
            if self._trailer_bytes >= 0:
                return self._read_trailers(buffer)
            if self._left is None:
                line = self._line(buffer)
                if line is None:
                    return None
                self._begin_chunk(line)
            elif not self._read_data(buffer):
                return None

    def _begin_chunk(self, line: bytes) -> None:
        size = line.partition(b";")[0].rstrip(b" \t")
        if _HEX_DIGITS.fullmatch(size) is None:
            raise Malformed(400, "a chunk's size is not a hexadecimal number")
        self._left = int(size, 16)
        self._total += self._left
        if self._total > self._max_body_bytes:
            raise _too_large(self._max_body_bytes)
        if self._left == 0:
            self._trailer_bytes = 0

    def _read_data(self, buffer: bytearray) -> bool:
        left = self._left or 0
        if left:
            part = bytes(buffer[:left])
            del buffer[: len(part)]
            self._parts.append(part)
            self._left = left = left - len(part)
        if left or len(buffer) < 2:
            return False
        if buffer[:2] != b"\r\n":
            raise Malformed(400, "a chunk does not end where its size says")
        del buffer[:2]
        self._left = None
        return True

    def _read_trailers(self, buffer: bytearray) -> Optional[bytes]:
        while True:
            line = self._line(buffer)
            if line is None:
                return None
            if not line:
                return b"".join(self._parts)
            self._trailer_bytes += len(line)
            if self._trailer_bytes > MAX_HEAD_BYTES:
                raise Malformed(431, "the trailers are larger than {} bytes".format(MAX_HEAD_BYTES))

    def _line(self, buffer: bytearray) -> Optional[bytes]:
        end = buffer.find(b"\r\n")
        if end > _MAX_CHUNK_LINE_BYTES or (end < 0 and len(buffer) > _MAX_CHUNK_LINE_BYTES):
            raise Malformed(400, "a line of the chunked body is too long")
        if end < 0:
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        if _BAD_BYTES.search(line):
            raise Malformed(400, "a line of the chunked body has a control character")
        return line


def _too_large(max_body_bytes: int) -> Malformed:
    return Malformed(413, "the body is larger than {} bytes".format(max_body_bytes))


def parse_head(head: bytes) -> Request:
    """Request line and headers, without the empty line. Raises Malformed."""
    first, *lines = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        version = re.search(rb" HTTP/(\d)\.\d$", first)
        if version is not None and version.group(1) != b"1":
            raise Malformed(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        raise Malformed(400, "the request line is malformed")
    if len(lines) > MAX_HEADERS:
        raise Malformed(431, "there are more than {} headers".format(MAX_HEADERS))
    headers: Dict[bytes, bytes] = {}
    for line in lines:
        name, value = _parse_field(line)
        if name not in headers:
            headers[name] = value
        elif name in (b"content-length", b"transfer-encoding", b"host"):
            raise Malformed(400, "{} is there twice".format(name.decode("ascii")))
        else:
            headers[name] += b", " + value
    connection = headers.get(b"connection", b"").lower()
    keep_alive = b"close" not in connection if match.group(3) == b"1" else b"keep-alive" in connection
    return Request(match.group(1), match.group(2).partition(b"?")[0], headers, keep_alive)


def _parse_field(line: bytes) -> Tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or _FIELD_NAME.fullmatch(name) is None or _BAD_BYTES.search(value):
        raise Malformed(400, "a header line is malformed")
    return name.lower(), value.strip(b" \t")


def response(
    status: int,
    body: bytes,
    content_type: str = "",
    *,
    headers: Tuple[Tuple[str, str], ...] = (),
    reason: str = "",
    keep_alive: bool = True,
    head_only: bool = False,
) -> bytes:
    """A whole response. Raises ValueError for a header that would end early or hold what HTTP cannot carry."""
    phrase = reason.encode("latin-1", "replace") if reason else _REASONS.get(status, b"Unknown")
    lines = [b"HTTP/1.1 %d %s" % (status, phrase)]
    if content_type:
        lines.append(_field("Content-Type", content_type))
    if headers:
        lines.extend(_field(name, value) for name, value in headers)
    lines.append(b"Content-Length: %d" % len(body))
    if not keep_alive:
        lines.append(b"Connection: close")
    if reason and _BAD_BYTES.search(phrase):
        raise ValueError("a reason phrase cannot hold control characters")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else body)


def _field(name: str, value: str) -> bytes:
    raw_name, raw_value = name.encode("ascii"), value.encode("latin-1")
    if _FIELD_NAME.fullmatch(raw_name) is None or _BAD_BYTES.search(raw_value):
        raise ValueError("{!r}: {!r} cannot be sent as a header".format(name, value))
    return raw_name + b": " + raw_value
