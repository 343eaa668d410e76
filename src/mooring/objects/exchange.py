"""A request and its reply as handlers see them: no ASGI, no sockets. The body comes as blocks of bytes."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from mooring.objects.errors import S3Error
from mooring.objects.names import Target
from mooring.objects.reading import ObjectReader
from mooring.protocol import sigv4


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One authenticated request. `headers` by lower-case name, latin-1 text; `parameters` percent-decoded.

    `head` is the checked signature (its payload word says how the body is guarded); `body` yields it as it comes over the
    wire, aws-chunked framing and all.
    """

    id: str
    method: str
    target: Target
    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    head: sigv4.Head
    body: AsyncIterator[bytes]

    def number(self, parameter: str, *, default: int, lowest: int, highest: int) -> int:
        """A whole-number query parameter, cut to `highest`. Raises InvalidArgument."""
        text = self.parameters.get(parameter, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 12) or int(text) < lowest:
            raise S3Error(
                "InvalidArgument",
                f"Provided {parameter} not an integer or within integer range",
                fields={"ArgumentName": parameter, "ArgumentValue": text},
            )
        return min(int(text), highest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Bytes of an open object to be sent; the sender closes the reader.

    `first` are the first of them, read before anything is answered: damage there is an error, not a connection that breaks.
    """

    reader: ObjectReader
    start: int
    length: int
    first: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is sent back. `length` is Content-Length where it is not the body's own (HEAD)."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Stream = b""
    length: int | None = None


def xml_reply(body: bytes, *, headers: Mapping[str, str] | None = None) -> Reply:
    """A document."""
    return Reply(headers={"content-type": "application/xml", **(headers or {})}, body=body)


def parameters_of(query: bytes) -> dict[str, str]:
    """The query string; a later value of a name replaces an earlier one. Raises InvalidURI for what is not UTF-8."""
    found: dict[str, str] = {}
    for pair in query.decode("latin-1").split("&"):
        if pair:
            name, _, value = pair.partition("=")
            try:
                found[unquote_plus(name, errors="strict")] = unquote_plus(value, errors="strict")
            except UnicodeDecodeError as error:
                raise S3Error("InvalidURI", "Couldn't parse the specified URI.") from error
    return found


def headers_of(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name; repeated ones joined by commas."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
        found[name] = f"{found[name]},{value}" if name in found else value
    return found
