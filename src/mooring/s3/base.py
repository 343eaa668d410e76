"""What the rest of the server asks of object storage: few operations, whole objects. Filled by `client` and `memory`.

A URI is `s3://bucket/key`. Every call has a deadline of its own and raises an ObjectStoreError that says whether trying
again could help.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", re.DOTALL)


class ObjectStoreError(Exception):
    """The storage failed or refused. `retryable`: the same call may succeed later."""

    retryable = True

    def __init__(self, message: str, *, uri: str) -> None:
        super().__init__(f"{uri}: {message}")
        self.uri = uri
        self.message = message


class NotFoundError(ObjectStoreError):
    """No such bucket or object."""

    retryable = False


class DeniedError(ObjectStoreError):
    """The caller may not."""

    retryable = False


class TooLargeError(ObjectStoreError):
    """The object is larger than the caller takes."""

    retryable = False


class BadUriError(ObjectStoreError):
    """Not an s3:// URI of what the call needs."""

    retryable = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A URI taken apart; `key` is empty for a whole bucket."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStat:
    """An object without its bytes. `etag` without quotes: it changes whenever the bytes do."""

    uri: str
    size: int
    etag: str


def parse_uri(uri: str) -> Location:
    """Take a URI apart. Raises BadUriError."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise BadUriError("not an s3:// URI", uri=uri)
    return Location(bucket=match[1], key=match[2] or "")


def parse_object_uri(uri: str) -> Location:
    """As `parse_uri`, of one object. Raises BadUriError."""
    location = parse_uri(uri)
    if not location.key:
        raise BadUriError("names no object", uri=uri)
    return location


class ObjectStore(Protocol):
    """Object storage. `deadline_s` bounds the whole call, waits for a free worker included."""

    async def get_to_file(self, uri: str, path: Path, *, max_bytes: int, deadline_s: float) -> str:
        """Write an object to a new file that must not exist; returns its ETag. On failure there is no file.

        Raises NotFoundError, DeniedError, TooLargeError, ObjectStoreError.
        """

    async def get_bytes(self, uri: str, *, max_bytes: int, deadline_s: float = 60.0) -> bytes:
        """A small object. Raises as `get_to_file`."""

    async def stat(self, uri: str, *, deadline_s: float = 30.0) -> ObjectStat | None:
        """Size and ETag; None when there is no such object or bucket. Raises DeniedError, ObjectStoreError."""

    async def put_file(self, uri: str, path: Path, *, deadline_s: float) -> None:
        """Make a file's bytes an object, whole or not at all. Raises NotFoundError (bucket), DeniedError, …"""

    async def put_bytes(self, uri: str, data: bytes, *, deadline_s: float = 60.0) -> None:
        """As `put_file`, from memory."""

    def list(self, prefix: str, *, deadline_s: float = 60.0) -> AsyncIterator[ObjectStat]:
        """Objects whose URI begins with `prefix` (at least a bucket), in UTF-8 order; the deadline is for each page.

        Raises NotFoundError (bucket), DeniedError, ObjectStoreError.
        """

    async def aclose(self) -> None:
        """Let go of connections; calls under way end first."""
