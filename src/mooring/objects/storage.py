"""Buckets and objects over one data directory: what S3's operations mean, without HTTP. Called by `handlers`, from threads.

    <root>/index.db    what exists (index, rows)          <root>/staging, <root>/blobs    bytes of larger objects (blobs)
    <root>/reserve     space kept back for deleting

A write makes its bytes durable first (`Intake`), then commits one row; a reader therefore sees a whole old or a whole new
object, whatever is killed in between. Every method blocks; all are thread-safe. One process owns a directory.
"""

import fcntl
import functools
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from mooring.domain.ids import Scope
from mooring.kit.clock import Clock
from mooring.kit.sealing import SealingError
from mooring.objects import envelopes, listing, preconditions, rows
from mooring.objects.blobs import Blobs
from mooring.objects.errors import KeyLostError, NoSpaceError, S3Error, StorageError, no_such_bucket, no_such_key
from mooring.objects.index import Connection, Index, Work
from mooring.objects.intake import Intake
from mooring.objects.keys import KeyRing
from mooring.objects.reading import ObjectReader
from mooring.objects.records import Attributes, Body, Bucket, Checksum, Encryption, ObjectHead, Precondition, Segment
from mooring.objects.reserve import Reserve

logger = logging.getLogger(__name__)

_SWEEP_BATCH = 500
_LOCK_ATTEMPTS = 100
_LOCK_PAUSE_S = 0.05


def lock_directory(path: Path) -> int:
    """Make this process the directory's only one; the lock ends with the descriptor. Raises StorageError.

    A process that is just being replaced gets a moment to go.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 < _LOCK_ATTEMPTS:
                time.sleep(_LOCK_PAUSE_S)
        else:
            return fd
    os.close(fd)
    raise StorageError(f"another process uses {path.parent}")


class Storage:
    """See the module. `start` recovers from whatever the last process left."""

    def __init__(self, root: Path, scope: Scope, clock: Clock, keys: KeyRing) -> None:
        self._root = root
        self.scope = scope
        self.clock = clock
        self.keys = keys
        self.reserve = Reserve(root / "reserve")
        self.index = Index(root / "index.db", self.reserve)
        self.blobs = Blobs(root, self.reserve)
        self._lock = -1
        self._bucket_changes = threading.Lock()
        self._buckets: Mapping[str, Bucket] = {}  # all of them, whoever owns them: this process alone changes them

    def start(self) -> None:
        """Open the directory, making it if need be, and finish what a crash interrupted.

        Raises StorageError; KeyLostError when encrypted objects lie here and their root key does not.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = lock_directory(self._root / "lock")
        try:
            self.reserve.start()
            self.blobs.start()
            self.index.start()
            self._load_keys()
            self._recover()
            self.reserve.hold()
        except BaseException:
            self.close()
            raise

    def _load_keys(self) -> None:
        noted = self.index.read(rows.root_key)
        try:
            found = self.keys.load()
            if noted is not None and found != noted and self.index.read(rows.is_anything_sealed):
                what = "is gone" if found is None else "is another one than they were encrypted with"
                raise KeyLostError(
                    f"{self._root} holds encrypted objects, but their key {self.keys.where} {what}. Nobody can read them "
                    "without it: put it back from a backup"
                )
            used = self.keys.create() if found is None else found
        except SealingError as error:
            raise KeyLostError(str(error)) from error
        except OSError as error:
            raise StorageError(f"cannot use the key {self.keys.where}: {error.strerror}") from error
        if used != noted:
            self.index.write(functools.partial(rows.set_root_key, key_id=used))

    def _recover(self) -> None:
        settled, removed = self.blobs.sweep(lambda name: self.index.read(functools.partial(rows.is_blob, name=name)))
        while doomed := self.index.read(lambda connection: rows.doomed_blobs(connection, _SWEEP_BATCH)):
            gone = self.blobs.remove(doomed)
            self.index.write(functools.partial(rows.forget_blobs, names=gone), frees=True)
            removed += len(gone)
        self._load_buckets()
        if settled or removed:
            logger.info("recovered: %d blobs settled, %d left-over blobs removed", settled, removed)

    def close(self) -> None:
        """Finish what is queued and close."""
        self.index.close()
        fd, self._lock = self._lock, -1
        if fd >= 0:
            os.close(fd)

    def now_s(self) -> int:
        """The time that rows carry."""
        return int(self.clock.now_s())

    # buckets
    def create_bucket(self, name: str) -> bool:
        """Make a bucket; False when we own it already. Raises BucketAlreadyExists when somebody else does."""
        created_s = self.now_s()
        with self._bucket_changes:
            known = self._buckets.get(name)
            if known is None:
                scope = self.scope
                self.index.write(
                    lambda connection: rows.add_bucket(connection, name, scope.account, scope.region, created_s)
                )
                self._load_buckets()
                return True
        if known.account != self.scope.account:
            raise S3Error(
                "BucketAlreadyExists",
                "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
                "Please select a different name and try again.",
                fields={"BucketName": name},
            )
        return False

    def _load_buckets(self) -> None:
        self._buckets = {bucket.name: bucket for bucket in self.index.read(rows.buckets)}

    def bucket(self, name: str) -> Bucket:
        """A bucket of ours. Raises NoSuchBucket, AccessDenied (another account's), PermanentRedirect (another region's).

        Does not block.
        """
        bucket = self._buckets.get(name)
        if bucket is None:
            raise no_such_bucket(name)
        if bucket.account != self.scope.account:
            raise S3Error("AccessDenied", "Access Denied")
        if bucket.region != self.scope.region:
            raise S3Error(
                "PermanentRedirect",
                "The bucket you are attempting to access must be addressed using the specified endpoint. "
                "Please send all future requests to this endpoint.",
                fields={"Bucket": name},
                headers={"x-amz-bucket-region": bucket.region},
            )
        return bucket

    def buckets(self) -> list[Bucket]:
        """All buckets of the account, by name. Does not block."""
        return [bucket for _, bucket in sorted(self._buckets.items()) if bucket.account == self.scope.account]

    def delete_bucket(self, bucket: Bucket) -> None:
        """Take away an empty bucket, with its unfinished uploads. Raises NoSuchBucket, BucketNotEmpty."""

        def work(connection: Connection) -> list[str]:
            rows.check_bucket(connection, bucket)
            if rows.list_objects(connection, bucket.id, b"", None, 1):
                raise S3Error(
                    "BucketNotEmpty", "The bucket you tried to delete is not empty", fields={"BucketName": bucket.name}
                )
            return rows.delete_bucket(connection, bucket.id)

        with self._bucket_changes:
            doomed = self.index.write(work, frees=True)
            self._load_buckets()
        self.remove_blobs(doomed)

    # objects
    def intake(self, encryption: Encryption | None = None, *, always_blob: bool = False) -> Intake:
        """Somewhere to put a body that is being received, to be sealed as `encryption` says. Raises StorageError."""
        return Intake(self.blobs, envelope=envelopes.seal(self.keys, encryption), always_blob=always_blob)

    def put_object(
        self,
        bucket: Bucket,
        key: bytes,
        body: Body,
        *,
        etag: str,
        attributes: Attributes,
        checksum: Checksum | None = None,
        precondition: Precondition | None = None,
    ) -> ObjectHead:
        """Make a body an object, durable on return. Raises PreconditionFailed, NoSuchBucket; the body is then discarded."""
        head = ObjectHead(
            key=key, size=body.size, etag=etag, modified_s=self.now_s(), attributes=attributes, checksum=checksum
        )

        def work(connection: Connection) -> list[str]:
            rows.check_bucket(connection, bucket)
            preconditions.check_write(precondition, rows.find_head(connection, bucket.id, key), key)
            return rows.put_object(connection, bucket.id, head, body)

        self.commit_body(body.segments, work)
        return head

    def commit_body(self, segments: Iterable[Segment], work: Work[list[str]]) -> None:
        """Commit rows that refer to staged segments, then settle those and remove what `work` says is doomed."""
        names = [segment.blob for segment in segments]
        try:
            doomed = self.index.write(work)
        except (S3Error, NoSpaceError):
            self.blobs.discard(names)  # refused, so nothing refers to them
            raise
        # After any other StorageError they stay in staging: a commit that could not be synced may yet turn up after a
        # power loss, so only the next start can tell whether anything refers to them.
        self.blobs.settle(names)
        self.remove_blobs(doomed)

    def remove_blobs(self, doomed: Sequence[str]) -> None:
        """Take blobs that a commit has doomed off the disk. What a crash leaves of them goes at the next start."""
        if doomed:
            gone = self.blobs.remove(doomed)
            self.index.submit(functools.partial(rows.forget_blobs, names=gone), frees=True)

    def open_object(self, bucket: Bucket, key: bytes) -> ObjectReader:
        """An object and its bytes, unchanged until the reader is closed. Raises NoSuchKey."""
        found = self.index.read(lambda connection: rows.get_object(connection, bucket.id, key))
        while found.inline is None:
            names = tuple(segment.blob for segment in found.segments)
            self.blobs.pin(names)
            # Only now is it sure that they stay: seen again after the pin, they were not doomed before it.
            try:
                again = self.index.read(lambda connection: rows.find_object(connection, bucket.id, key))
            except BaseException:
                self.blobs.unpin(names)
                raise
            if again is not None and again.segments == found.segments:
                return ObjectReader(again, self.blobs, names, self.keys)
            self.blobs.unpin(names)
            if again is None:
                raise no_such_key(key)
            found = again
        return ObjectReader(found, self.blobs, (), self.keys)

    def head_object(self, bucket: Bucket, key: bytes) -> ObjectHead:
        """An object without its bytes. Raises NoSuchKey."""
        return self.index.read(lambda connection: rows.get_head(connection, bucket.id, key))

    def delete_objects(self, bucket: Bucket, keys: Sequence[bytes]) -> None:
        """Take objects away, all in one commit; absent ones are no error."""

        def work(connection: Connection) -> list[str]:
            rows.check_bucket(connection, bucket)
            return [blob for key in keys for blob in rows.delete_object(connection, bucket.id, key)]

        self.remove_blobs(self.index.write(work, frees=True))

    def list_objects(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, after: bytes, limit: int
    ) -> listing.Page[rows.ListedObject]:
        """One page of the objects behind `after`, in binary order, from one snapshot."""

        def work(connection: Connection) -> listing.Page[rows.ListedObject]:
            return listing.page_of(
                functools.partial(rows.list_objects, connection, bucket.id),
                prefix=prefix,
                delimiter=delimiter,
                after=after,
                limit=limit,
            )

        return self.index.read(work)

    def copy_body(self, reader: ObjectReader) -> Body:
        """The same bytes once more, staged and durable, without reading them where the file system can link.

        Sealed bytes stay sealed as they are, so the copy must be encrypted as the object is.
        """
        stored = reader.stored
        if stored.inline is not None:
            return Body(size=reader.head.size, inline=stored.inline, wrapped_key=stored.wrapped_key)
        segments = []
        try:
            for segment in reader.segments:
                segments.append(msgspec.structs.replace(segment, blob=self.blobs.link(segment.blob)))
            self.blobs.sync_staging()
        except Exception:
            self.blobs.discard(segment.blob for segment in segments)
            raise
        return Body(size=reader.head.size, segments=tuple(segments))

    def discard(self, body: Body) -> None:
        """Let go of a body that no object was made of."""
        self.blobs.discard(segment.blob for segment in body.segments)
