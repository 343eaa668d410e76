"""Model data: fetched once per content, checked, unpacked, shared read-only by every instance that uses it.

    <data>/cache/artifacts/
        by-source/<sha256 of uri and etag>.json     → {"digest": …}
        <digest>/model/                             the unpacked archive; digest = sha256 of the object
        <digest>/complete.json                      written last: an entry without it is garbage
        tmp/                                        work in progress; emptied at start

Called by runtime.process. Who may read the object is the object store's business.
"""

import asyncio
import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mooring.kit import proc
from mooring.kit.clock import Clock
from mooring.runtime import archive
from mooring.runtime.driver import DriverError, Progress
from mooring.s3 import base as s3

T = TypeVar("T")

_READ_BYTES = 1 << 20
_CONCURRENT = 4  # downloads at a time
_FRESH_S = 900.0  # an entry used this recently is never collected: its instance may be about to start


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Unpacked model data. `directory` is what goes to /opt/ml/model."""

    digest: str
    directory: str


def download_failure(uri: str) -> str:
    """FailureReason in AWS's words (hosting.md section 6.7)."""
    return (
        f'Failed to download model data for container "container_1" from URL: "{uri}". Please ensure that there is an '
        f"object located at the URL and that the role passed to CreateModel has permissions to download the object."
    )


class ArtifactCache:
    """See the module. `start` before the first use."""

    def __init__(
        self, root: str, objects: s3.ObjectStore, clock: Clock, *, bounds: archive.Bounds, max_bytes: int
    ) -> None:
        self._root = root
        self._temporary = os.path.join(root, "tmp")
        self._sources = os.path.join(root, "by-source")
        self._objects = objects
        self._clock = clock
        self._bounds = bounds
        self._max_bytes = max_bytes
        self._flights: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._slots = asyncio.Semaphore(_CONCURRENT)

    def start(self) -> None:
        """Make the directories; what a former life left half done goes. Blocking."""
        for directory in (self._root, self._sources):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        if os.path.isdir(self._temporary):
            _remove_tree(self._temporary)
        os.makedirs(self._temporary, mode=0o700)
        os.makedirs(self.empty.directory, exist_ok=True)
        os.chmod(self.empty.directory, 0o555)  # noqa: S103  # instances have user ids of their own

    @property
    def empty(self) -> Artifact:
        """Of a model without data."""
        return Artifact(digest="", directory=os.path.join(self._root, "empty"))

    async def ensure(self, uri: str, progress: Progress, *, deadline_s: float) -> Artifact:
        """Fetch and unpack what `uri` (s3://bucket/key) names now, unless that content is here. Raises DriverError.

        Idempotent; concurrent calls for one URI share the work. The caller bounds the whole; `deadline_s` bounds a fetch.
        """
        lock = self._flights.get(uri)
        if lock is None:
            lock = self._flights[uri] = asyncio.Lock()
        async with lock:
            try:
                return await self._ensure(uri, progress, deadline_s)
            except s3.NotFoundError as error:
                raise _not_fetched(uri, "404: there is no such object", retryable=False) from error
            except s3.DeniedError as error:
                raise _not_fetched(uri, "403: access denied", retryable=False) from error
            except s3.ObjectStoreError as error:
                raise _not_fetched(uri, error.message, retryable=error.retryable) from error

    async def _ensure(self, uri: str, progress: Progress, deadline_s: float) -> Artifact:
        stat = await self._objects.stat(uri)
        if stat is None:
            raise s3.NotFoundError("no such object", uri=uri)
        if stat.size > self._bounds.packed_bytes:
            limit = self._bounds.packed_bytes
            raise DriverError(
                f"Model data {uri} has {stat.size} bytes, more than the limit of {limit}.", retryable=False
            )
        known = await asyncio.to_thread(self._lookup, uri, stat.etag)
        if known is not None:
            progress(f"model data {uri} is in the cache")
            return known
        async with self._slots:
            progress(f"downloading model data {uri} ({stat.size} bytes)")
            return await self._fetch(uri, progress, deadline_s)

    async def _fetch(self, uri: str, progress: Progress, deadline_s: float) -> Artifact:
        work = await asyncio.to_thread(tempfile.mkdtemp, dir=self._temporary)
        try:
            packed = Path(work, "packed")
            etag = await self._objects.get_to_file(
                uri, packed, max_bytes=self._bounds.packed_bytes, deadline_s=deadline_s
            )
            progress("checking and unpacking model data")
            # to its end even when the caller gives up: a thread cannot be stopped, and must not lose its directory
            return await _uninterrupted(self._unpack, uri, etag, packed, work)
        finally:
            await asyncio.shield(asyncio.to_thread(_remove_tree, work))

    # blocking parts, run in threads ---------------------------------------------------------------------------------
    def _unpack(self, uri: str, etag: str, packed: Path, work: str) -> Artifact:
        digest = _digest(packed)
        entry = os.path.join(self._root, digest)
        if not os.path.exists(os.path.join(entry, "complete.json")):
            self._publish(uri, packed, work, entry)
        source = json.dumps({"digest": digest, "uri": uri, "etag": etag}).encode()
        proc.write_atomically(self._source_path(uri, etag), source, sync=True)
        self._touch(entry)
        return Artifact(digest=digest, directory=os.path.join(entry, "model"))

    def _publish(self, uri: str, packed: Path, work: str, entry: str) -> None:
        building = os.path.join(work, "entry")
        model = os.path.join(building, "model")
        os.makedirs(model, mode=0o755)
        try:
            with packed.open("rb") as file:
                unpacked = archive.unpack(file, model, self._bounds)
        except archive.ArchiveError as error:
            raise DriverError(f"Model data {uri} cannot be used: {error}", retryable=False) from error
        except OSError as error:
            raise DriverError(f"Model data {uri} could not be unpacked: {error.strerror}", retryable=True) from error
        _seal(model)
        facts = {"files": unpacked.files, "size_bytes": unpacked.size_bytes}
        proc.write_atomically(os.path.join(building, "complete.json"), json.dumps(facts).encode(), sync=True)
        if os.path.isdir(entry):  # without its marker: collected halfway, or from a crash
            os.rename(entry, os.path.join(work, "garbage"))
        try:
            os.rename(building, entry)
        except OSError:  # another URI with the same content was quicker
            if not os.path.exists(os.path.join(entry, "complete.json")):
                raise
        proc.sync_directory(self._root)

    def _lookup(self, uri: str, etag: str) -> Artifact | None:
        try:
            digest = json.loads(Path(self._source_path(uri, etag)).read_bytes())["digest"]
        except (OSError, ValueError, KeyError):
            return None
        entry = os.path.join(self._root, os.path.basename(str(digest)))
        if not os.path.exists(os.path.join(entry, "complete.json")):
            return None
        self._touch(entry)
        return Artifact(digest=digest, directory=os.path.join(entry, "model"))

    def _source_path(self, uri: str, etag: str) -> str:
        return os.path.join(self._sources, hashlib.sha256(f"{uri}\0{etag}".encode()).hexdigest() + ".json")

    def _touch(self, entry: str) -> None:
        now_s = self._clock.now_s()
        try:
            os.utime(os.path.join(entry, "complete.json"), (now_s, now_s))
        except FileNotFoundError as error:
            raise DriverError("model data was collected while it was being used", retryable=True) from error

    def collect(self, in_use: Collection[str]) -> int:
        """Remove the entries longest unused until the cache is within its bound; digests `in_use` stay. Returns bytes freed.

        Blocking.
        """
        entries = sorted(self._entries(), key=lambda entry: entry[1])
        excess = sum(entry[2] for entry in entries) - self._max_bytes
        freed = 0
        for digest, used_s, size in entries:
            if excess - freed <= 0:
                break
            if digest in in_use or self._clock.now_s() - used_s < _FRESH_S:
                continue
            os.unlink(os.path.join(self._root, digest, "complete.json"))  # first: from here on it is garbage
            _remove_tree(os.path.join(self._root, digest))
            freed += size
        return freed

    def _entries(self) -> list[tuple[str, float, int]]:
        found = []
        for name in os.listdir(self._root):
            marker = Path(self._root, name, "complete.json")
            try:
                found.append((name, marker.stat().st_mtime, int(json.loads(marker.read_bytes())["size_bytes"])))
            except (FileNotFoundError, NotADirectoryError):
                continue
        return found


def _not_fetched(uri: str, cause: str, *, retryable: bool) -> DriverError:
    return DriverError(f"{download_failure(uri)} ({cause})", retryable=retryable)


async def _uninterrupted(function: Callable[..., T], *arguments: object) -> T:
    """Run in a thread and see it end, even when cancelled; the cancellation then goes on."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _digest(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            content.update(chunk)
    return content.hexdigest()


def _seal(root: str) -> None:
    """Make a tree's directories durable and read-only (its files are)."""
    for directory, _, _ in os.walk(root, topdown=False):
        proc.sync_directory(directory)
        os.chmod(directory, 0o555)  # noqa: S103  # instances have user ids of their own


def _remove_tree(root: str) -> None:
    """Delete a read-only tree; who is not root needs write permission on its directories first."""
    for directory, _, _ in os.walk(root):
        os.chmod(directory, 0o700)
    shutil.rmtree(root, ignore_errors=False)
