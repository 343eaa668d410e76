"""The body of one request as its bytes really are: length known, aws-chunked framing taken off, trailers kept."""

from collections.abc import AsyncIterator, Mapping

from mooring.objects.errors import S3Error
from mooring.objects.exchange import Request
from mooring.protocol import awschunked, sigv4


class Payload:
    """Iterate once, to the end; then `trailers` is what came behind the body.

    Raises MissingContentLength and EntityTooLarge when made, IncompleteBody on the way.
    """

    def __init__(self, request: Request, *, max_bytes: int, default_length: int | None = None) -> None:
        self.trailers: Mapping[str, str] = {}
        self._blocks = request.body
        word = request.head.payload or b""  # S3 requires it; check_head has seen to that
        self._word = word
        self._chunked = word.startswith(b"STREAMING-")
        self.sha256 = None if word in sigv4.PAYLOAD_WORDS else word.decode("ascii")
        self._head = request.head
        self._trailer = request.headers.get("x-amz-trailer", "").strip().lower()
        name = "x-amz-decoded-content-length" if self._chunked else "content-length"
        self.length = _length(request.headers, name, default_length)
        if self.length > max_bytes:
            raise S3Error(
                "EntityTooLarge",
                "Your proposed upload exceeds the maximum allowed size",
                fields={"ProposedSize": str(self.length), "MaxSizeAllowed": str(max_bytes)},
            )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for block in self._decoded() if self._chunked else self._blocks:
            received += len(block)
            if received > self.length:
                raise S3Error("IncompleteBody", "The request body is longer than its head says.")
            yield block
        if received < self.length:
            raise S3Error(
                "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header"
            )

    async def _decoded(self) -> AsyncIterator[bytes]:
        """The body without its framing. Raises awschunked's errors and InvalidSignature."""
        decoder = awschunked.Decoder(self.length, self._word, head=self._head)
        async for block in self._blocks:
            for piece in decoder.feed(block):
                yield piece
        decoder.finish()
        foreign = sorted(set(decoder.trailers) - {self._trailer})
        if foreign:
            raise S3Error("MalformedTrailerError", f"The trailer {foreign[0]} was not announced by x-amz-trailer.")
        self.trailers = decoder.trailers


def _length(headers: Mapping[str, str], name: str, default: int | None) -> int:
    text = headers.get(name)
    if text is None:
        if default is None or "transfer-encoding" in headers:
            raise S3Error("MissingContentLength", "You must provide the Content-Length HTTP header.")
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise S3Error(
            "InvalidArgument", f"{name} is not a length", fields={"ArgumentName": name, "ArgumentValue": text}
        )
    return int(text)
