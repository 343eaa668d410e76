"""Incremental decoder of aws-chunked bodies (S3 uploads of SDKs), signed and unsigned, with trailers.

Called by the S3 process. Bytes in, bytes out, in constant memory; knows neither sockets nor what the trailers mean.

    SIZE ──size line──▶ DATA ──all of it──▶ END ──CRLF──▶ SIZE
      └──────────── size 0 ──▶ TRAILER ──empty line──▶ DONE

    chunk   = hex-size [";chunk-signature=" 64 hex] CRLF data CRLF
    trailer = *(name ":" value CRLF) CRLF

Signed chunks are checked as each ends: what `feed` gave of a chunk is proved only when the next call returns (or `finish`),
so nothing may be committed before `finish`. Source: "Signature calculations: transferring payload in multiple chunks" and
"... using trailing headers" of the S3 API reference.
"""

import hmac
import re
from enum import Enum
from hashlib import sha256

from mooring.domain import errors
from mooring.protocol import sigv4

_MAX_LINE_BYTES = 1024  # of a chunk's first line
_MAX_TRAILER_BYTES = 8192  # of all trailer lines
_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?")
_TRAILER_LINE = re.compile(rb"([A-Za-z0-9-]+)[ \t]*:[ \t]*([\x20-\x7e]*)")
_EMPTY = sigv4.EMPTY_SHA256.encode()
_TRAILER_SIGNATURE = "x-amz-trailer-signature"


class MalformedChunk(errors.ServiceError):
    """The framing is not that of aws-chunked."""

    code = "InvalidRequest"


class MalformedTrailer(errors.ServiceError):
    """The trailers cannot be read, or are where none may be."""

    code = "MalformedTrailerError"


class IncompleteBody(errors.ServiceError):
    """More or fewer bytes than x-amz-decoded-content-length said."""

    code = "IncompleteBody"


class _State(Enum):
    SIZE = 1
    DATA = 2
    END = 3
    TRAILER = 4
    DONE = 5


class _Chain:
    """Signatures of the chunks, each over the one before."""

    def __init__(self, head: sigv4.Head) -> None:
        self._key = head.key
        self._context = head.timestamp + b"\n" + head.scope + b"\n"
        self._previous = head.signature

    def check_chunk(self, digest: bytes, signature: bytes) -> None:
        self._check(b"AWS4-HMAC-SHA256-PAYLOAD\n", _EMPTY + b"\n" + digest, signature)

    def check_trailers(self, digest: bytes, signature: bytes) -> None:
        self._check(b"AWS4-HMAC-SHA256-TRAILER\n", digest, signature)

    def _check(self, algorithm: bytes, tail: bytes, signature: bytes) -> None:
        expected = self._key.sign(algorithm + self._context + self._previous + b"\n" + tail).encode()
        if not hmac.compare_digest(expected, signature):
            raise errors.InvalidSignature(
                "The request signature we calculated does not match the signature you provided. "
                "Check your key and signing method."
            )
        self._previous = signature


class Decoder:
    """Decodes one body. `mode` is its x-amz-content-sha256 word; `head`, its checked signature, is needed by the signed
    modes. `trailers` (names lower-case) is whole once `done`.
    """

    def __init__(self, expected_decoded_length: int, mode: bytes, *, head: sigv4.Head | None = None) -> None:
        if mode not in sigv4.PAYLOAD_WORDS - {sigv4.UNSIGNED_PAYLOAD}:
            raise ValueError(f"not an aws-chunked payload: {mode!r}")
        signed = mode != sigv4.STREAMING_UNSIGNED_TRAILER
        if signed and head is None:
            raise ValueError("signed chunks need the request's own signature")
        self.trailers: dict[str, str] = {}
        self._chain = _Chain(head) if signed and head is not None else None
        self._takes_trailers = mode != sigv4.STREAMING_SIGNED
        self._remaining = expected_decoded_length
        self._state = _State.SIZE
        self._line = bytearray()
        self._chunk_left = 0
        self._digest = sha256()
        self._signature = b""
        self._trailer_bytes = 0
        self._signed_text = bytearray()

    @property
    def done(self) -> bool:
        """Whether the last byte of the framing has come."""
        return self._state is _State.DONE

    def feed(self, data: bytes) -> list[bytes]:
        """Decoded pieces of `data`. Raises MalformedChunk, MalformedTrailer, IncompleteBody, InvalidSignature."""
        out: list[bytes] = []
        at = 0
        while at < len(data):
            if self._state is _State.DATA:
                piece = data[at : at + self._chunk_left]
                at += len(piece)
                self._take(piece)
                out.append(piece)
            elif self._state is _State.DONE:
                raise MalformedChunk("There are bytes after the end of the aws-chunked body.")
            else:
                at = self._read_line(data, at)
        return out

    def finish(self) -> None:
        """The body has ended: it must have ended properly. Raises IncompleteBody."""
        if self._state is not _State.DONE:
            raise IncompleteBody("The request body terminated unexpectedly.")

    def _take(self, piece: bytes) -> None:
        self._chunk_left -= len(piece)
        if self._chain is not None:
            self._digest.update(piece)
        if self._chunk_left == 0:
            self._close_chunk()
            self._state = _State.END

    def _read_line(self, data: bytes, at: int) -> int:
        """Take bytes up to and with the next CRLF; act on the line when it is whole. The new position."""
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end + 1
        limit = _MAX_TRAILER_BYTES if self._state is _State.TRAILER else _MAX_LINE_BYTES
        if len(self._line) + stop - at > limit:
            raise MalformedChunk("A line of the aws-chunked body is too long.")
        self._line += data[at:stop]
        if self._line.endswith(b"\r\n"):
            line = bytes(self._line[:-2])
            self._line.clear()
            self._on_line(line)
        elif end >= 0 and self._state is not _State.TRAILER:
            raise MalformedChunk("A line of the aws-chunked body does not end in CRLF.")
        return stop

    def _on_line(self, line: bytes) -> None:
        match self._state:
            case _State.SIZE:
                self._on_size(line)
            case _State.END:
                if line:
                    raise MalformedChunk("A chunk is longer than its size says.")
                self._state = _State.SIZE
            case _State.TRAILER:
                self._on_trailer(line)
            case _:
                raise AssertionError(self._state)

    def _on_size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None or (match[2] is None) != (self._chain is None):
            raise MalformedChunk("The first line of a chunk cannot be read.")
        size = int(match[1], 16)
        if size > self._remaining:
            raise IncompleteBody("The body is longer than x-amz-decoded-content-length says.")
        self._remaining -= size
        self._chunk_left = size
        self._signature = match[2] or b""
        if size:
            self._state = _State.DATA
            return
        if self._remaining:
            raise IncompleteBody(
                "You did not provide the number of bytes specified by the x-amz-decoded-content-length HTTP header."
            )
        self._close_chunk()
        self._state = _State.TRAILER

    def _close_chunk(self) -> None:
        if self._chain is not None:
            self._chain.check_chunk(self._digest.hexdigest().encode(), self._signature)
            self._digest = sha256()

    def _on_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > _MAX_TRAILER_BYTES:
            raise MalformedTrailer("The trailers are too long.")
        line = line.strip()
        if not line:
            self._end()
            return
        match = _TRAILER_LINE.fullmatch(line)
        if match is None or not self._takes_trailers:
            raise MalformedTrailer("The request contained trailing data that was not well-formed.")
        name, value = match[1].lower().decode(), match[2].decode().strip()
        if name in self.trailers or _TRAILER_SIGNATURE in self.trailers:
            raise MalformedTrailer("The request contained trailing data that was not well-formed.")
        self.trailers[name] = value
        if name != _TRAILER_SIGNATURE:
            self._signed_text += f"{name}:{value}\n".encode()

    def _end(self) -> None:
        signature = self.trailers.pop(_TRAILER_SIGNATURE, None)
        if self._chain is not None and self._takes_trailers:
            digest = sha256(self._signed_text).hexdigest().encode()
            self._chain.check_trailers(digest, (signature or "").encode())
        elif signature is not None:
            raise MalformedTrailer("The trailers are signed where the chunks are not.")
        self._state = _State.DONE
