"""Multipart uploads over a Storage: begun, filled part by part, completed into one object without copying, or aborted.

    create ──▶ parts (any order, again replaces) ──complete──▶ object whose segments are the parts' blobs
                                                 ──abort─────▶ nothing

Completing is one commit: whoever reads sees the old object or the whole new one.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from mooring.kit import clock
from mooring.objects import checksums, preconditions, rows
from mooring.objects.errors import S3Error
from mooring.objects.index import Connection
from mooring.objects.intake import Intake
from mooring.objects.records import (
    Attributes,
    Body,
    Bucket,
    Checksum,
    ObjectHead,
    Part,
    PartChoice,
    PartSpan,
    Precondition,
    Upload,
)
from mooring.objects.storage import Storage

MAX_PARTS = 10_000
MIN_PART_BYTES = 5 << 20
MAX_OBJECT_BYTES = 5 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadMark:
    """Where a listing of uploads goes on: behind this key, or within it behind `upload_id` where that is set."""

    key: bytes = b""
    upload_id: str = ""


class Uploads:
    """See the module. Every method blocks; all are thread-safe."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def create(
        self, bucket: Bucket, key: bytes, *, attributes: Attributes, algorithm: str | None, checksum_kind: str
    ) -> Upload:
        """Begin an upload. Raises NoSuchBucket."""
        initiated_ms = int(self._storage.clock.now_s() * 1000)
        upload = Upload(
            id=f"{initiated_ms:012x}{clock.token_hex(24)}",  # sorts by time, as listings of one key must
            key=key,
            initiated_s=initiated_ms // 1000,
            attributes=attributes,
            algorithm=algorithm,
            checksum_kind=checksum_kind,
        )

        def work(connection: Connection) -> None:
            rows.check_bucket(connection, bucket)
            rows.add_upload(connection, bucket.id, upload)

        self._storage.index.write(work)
        return upload

    def get(self, bucket: Bucket, key: bytes, upload_id: str) -> Upload:
        """An upload of this key. Raises NoSuchUpload."""
        return self._storage.index.read(lambda connection: rows.get_upload(connection, bucket.id, key, upload_id))

    def intake(self, upload: Upload) -> Intake:
        """Somewhere to put a part that is being received, to be sealed as its upload says. Raises StorageError."""
        return self._storage.intake(upload.attributes.encryption, always_blob=True)

    def put_part(self, bucket: Bucket, upload: Upload, number: int, body: Body, *, etag: str, checksum: str) -> Part:
        """Keep a part, durable on return. Raises NoSuchUpload when it ended meanwhile; the body is then discarded."""
        part = rows.StoredPart(
            number=number,
            size=body.size,
            etag=etag,
            checksum=checksum,
            modified_s=self._storage.now_s(),
            segments=body.segments,
        )

        def work(connection: Connection) -> list[str]:
            rows.get_upload(connection, bucket.id, upload.key, upload.id)
            return rows.put_part(connection, upload.id, part)

        self._storage.commit_body(body.segments, work)
        return _part(part)

    def parts(self, bucket: Bucket, key: bytes, upload_id: str, *, after: int, limit: int) -> tuple[Upload, list[Part]]:
        """The upload and up to `limit` of its parts with numbers above `after`. Raises NoSuchUpload."""

        def work(connection: Connection) -> tuple[Upload, list[Part]]:
            upload = rows.get_upload(connection, bucket.id, key, upload_id)
            return upload, [_part(part) for part in rows.list_parts(connection, upload_id, after, limit)]

        return self._storage.index.read(work)

    def abort(self, bucket: Bucket, key: bytes, upload_id: str) -> None:
        """End an upload with nothing. Raises NoSuchUpload."""

        def work(connection: Connection) -> list[str]:
            rows.get_upload(connection, bucket.id, key, upload_id)
            return rows.end_upload(connection, upload_id)

        self._storage.remove_blobs(self._storage.index.write(work, frees=True))

    def complete(
        self,
        bucket: Bucket,
        key: bytes,
        upload_id: str,
        choices: Sequence[PartChoice],
        *,
        stated_checksum: Checksum | None = None,
        stated_size: int | None = None,
        precondition: Precondition | None = None,
    ) -> ObjectHead:
        """Make the chosen parts an object. Raises NoSuchUpload, InvalidPart, InvalidPartOrder, EntityTooSmall, BadDigest.

        Parts that were not chosen are removed.
        """
        modified_s = self._storage.now_s()

        def work(connection: Connection) -> tuple[ObjectHead, list[str]]:
            upload = rows.get_upload(connection, bucket.id, key, upload_id)
            stored = {part.number: part for part in rows.list_parts(connection, upload_id, 0, MAX_PARTS)}
            parts = choose_parts(upload, choices, stored)
            head = _head_of(upload, parts, modified_s)
            _check_stated(head, stated_checksum, stated_size)
            preconditions.check_write(precondition, rows.find_head(connection, bucket.id, key), key)
            segments = tuple(segment for part in parts for segment in part.segments)
            doomed = set(rows.end_upload(connection, upload_id))
            doomed.update(rows.put_object(connection, bucket.id, head, Body(size=head.size, segments=segments)))
            return head, sorted(doomed - {segment.blob for segment in segments})

        head, doomed = self._storage.index.write(work)
        self._storage.remove_blobs(doomed)
        return head

    def uploads(self, bucket: Bucket, *, prefix: bytes, after: UploadMark, limit: int) -> list[Upload]:
        """Up to `limit` unfinished uploads by key and time, behind `after`."""
        return self._storage.index.read(
            lambda connection: rows.list_uploads(connection, bucket.id, prefix, after.key, after.upload_id, limit)
        )


def _part(stored: rows.StoredPart) -> Part:
    return Part(
        number=stored.number, size=stored.size, etag=stored.etag, modified_s=stored.modified_s, checksum=stored.checksum
    )


def choose_parts(
    upload: Upload, choices: Sequence[PartChoice], stored: dict[int, rows.StoredPart]
) -> list[rows.StoredPart]:
    """The parts that a completion names, checked as S3 checks them (API_CompleteMultipartUpload). Pure."""
    numbers = [choice.number for choice in choices]
    if any(one >= other for one, other in itertools.pairwise(numbers)):
        raise S3Error(
            "InvalidPartOrder",
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
            fields={"UploadId": upload.id},
        )
    parts = [_chosen(upload, choice, stored.get(choice.number)) for choice in choices]
    for part in parts[:-1]:
        if part.size < MIN_PART_BYTES:
            raise S3Error(
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
                fields={
                    "ProposedSize": str(part.size),
                    "MinSizeAllowed": str(MIN_PART_BYTES),
                    "PartNumber": str(part.number),
                    "ETag": part.etag,
                },
            )
    if sum(part.size for part in parts) > MAX_OBJECT_BYTES:
        raise S3Error("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
    return parts


def _chosen(upload: Upload, choice: PartChoice, part: rows.StoredPart | None) -> rows.StoredPart:
    named = choice.checksums.get(upload.algorithm or "")
    if upload.algorithm and upload.checksum_kind == "COMPOSITE" and named is None:
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using a {upload.algorithm.lower()} checksum. The complete request must include the "
            f"checksum for each part. It was missing for part {choice.number} in the request.",
        )
    foreign = sorted(set(choice.checksums) - {upload.algorithm})
    if part is None or part.etag != choice.etag or foreign or (named is not None and named != part.checksum):
        raise S3Error(
            "InvalidPart",
            "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified "
            "entity tag may not match the part's entity tag.",
            fields={"UploadId": upload.id, "PartNumber": str(choice.number), "ETag": choice.etag},
        )
    return part


def _head_of(upload: Upload, parts: Sequence[rows.StoredPart], modified_s: int) -> ObjectHead:
    checksum = None
    if upload.algorithm:
        if upload.checksum_kind == "COMPOSITE":
            value = checksums.composite(upload.algorithm, [part.checksum for part in parts])
        else:
            value = checksums.full_object(upload.algorithm, [(part.checksum, part.size) for part in parts])
        checksum = Checksum(algorithm=upload.algorithm, value=value, kind=upload.checksum_kind)
    return ObjectHead(
        key=upload.key,
        size=sum(part.size for part in parts),
        etag=checksums.multipart_etag([part.etag for part in parts]),
        modified_s=modified_s,
        attributes=upload.attributes,
        checksum=checksum,
        parts=tuple(PartSpan(size=part.size, checksum=part.checksum) for part in parts),
    )


def _check_stated(head: ObjectHead, checksum: Checksum | None, size: int | None) -> None:
    if size is not None and size != head.size:
        raise S3Error(
            "InvalidRequest",
            f"The provided 'x-amz-mp-object-size' header value {size} does not match what was computed: {head.size}",
        )
    if checksum is None:
        return
    if head.checksum is None or head.checksum.algorithm != checksum.algorithm:
        raise S3Error("InvalidRequest", "The object's checksum is not of the algorithm that the request states.")
    if checksum.value not in (head.checksum.value, head.checksum.value.partition("-")[0]):
        raise S3Error("BadDigest", f"The {checksum.algorithm} you specified did not match the calculated checksum.")
