"""Object storage in memory: for tests of whatever uses an ObjectStore. Held to the same suite as the real one."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from mooring.s3.base import Location, NotFoundError, ObjectStat, TooLargeError, parse_object_uri, parse_uri


class MemoryObjectStore:
    """See the module. `buckets` exist from the start."""

    def __init__(self, *buckets: str) -> None:
        self._buckets: dict[str, dict[str, bytes]] = {name: {} for name in buckets}

    def _bucket(self, location: Location, uri: str) -> dict[str, bytes]:
        if location.bucket not in self._buckets:
            raise NotFoundError("no such bucket", uri=uri)
        return self._buckets[location.bucket]

    def _get(self, uri: str, max_bytes: int) -> bytes:
        location = parse_object_uri(uri)
        data = self._bucket(location, uri).get(location.key)
        if data is None:
            raise NotFoundError("no such object", uri=uri)
        if len(data) > max_bytes:
            raise TooLargeError(f"{len(data)} bytes; at most {max_bytes} are taken", uri=uri)
        return data

    async def get_to_file(self, uri: str, path: Path, *, max_bytes: int, deadline_s: float) -> str:
        """See ObjectStore."""
        data = self._get(uri, max_bytes)
        await asyncio.to_thread(_create, path, data)
        return _etag(data)

    async def get_bytes(self, uri: str, *, max_bytes: int, deadline_s: float = 60.0) -> bytes:
        """See ObjectStore."""
        return self._get(uri, max_bytes)

    async def stat(self, uri: str, *, deadline_s: float = 30.0) -> ObjectStat | None:
        """See ObjectStore."""
        location = parse_object_uri(uri)
        data = self._buckets.get(location.bucket, {}).get(location.key)
        return None if data is None else ObjectStat(uri=uri, size=len(data), etag=_etag(data))

    async def put_file(self, uri: str, path: Path, *, deadline_s: float) -> None:
        """See ObjectStore."""
        await self.put_bytes(uri, await asyncio.to_thread(path.read_bytes))

    async def put_bytes(self, uri: str, data: bytes, *, deadline_s: float = 60.0) -> None:
        """See ObjectStore."""
        location = parse_object_uri(uri)
        self._bucket(location, uri)[location.key] = bytes(data)

    async def list(self, prefix: str, *, deadline_s: float = 60.0) -> AsyncIterator[ObjectStat]:
        """See ObjectStore."""
        location = parse_uri(prefix)
        found = sorted(self._bucket(location, prefix).items(), key=lambda item: item[0].encode())
        for key, data in found:
            if key.startswith(location.key):
                yield ObjectStat(uri=f"s3://{location.bucket}/{key}", size=len(data), etag=_etag(data))

    async def aclose(self) -> None:
        """See ObjectStore."""


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _create(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
