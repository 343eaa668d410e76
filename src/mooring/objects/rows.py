"""Rows of the index ↔ records. SQL on one connection, inside a transaction that the caller holds; no files, no HTTP."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from mooring.objects.errors import no_such_bucket, no_such_key, no_such_upload
from mooring.objects.index import Connection
from mooring.objects.records import Attributes, Body, Bucket, Checksum, ObjectHead, PartSpan, Segment, Upload


class Detail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an object's row keeps as JSON."""

    attributes: Attributes
    segments: tuple[Segment, ...] = ()
    parts: tuple[PartSpan, ...] = ()
    wrapped_key: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object's row. `inline` is set when its bytes lie in the index; `wrapped_key` when they are sealed there."""

    head: ObjectHead
    segments: tuple[Segment, ...]
    inline: bytes | None
    wrapped_key: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObject:
    """What a listing says about an object."""

    key: bytes
    size: int
    etag: str
    modified_s: int
    algorithm: str | None
    checksum_kind: str | None


_encode = msgspec.json.Encoder().encode
_decode_detail = msgspec.json.Decoder(Detail).decode
_decode_attributes = msgspec.json.Decoder(Attributes).decode
_decode_segments = msgspec.json.Decoder(tuple[Segment, ...]).decode


# the root key
def root_key(connection: Connection) -> str | None:
    """The id of the root key under which everything sealed here is; None before the first start that knew of one."""
    row = connection.execute("SELECT id FROM root_key").fetchone()
    return None if row is None else row[0]


def set_root_key(connection: Connection, key_id: str) -> None:
    """Note the root key that is in use from now on."""
    connection.execute("DELETE FROM root_key")
    connection.execute("INSERT INTO root_key (id) VALUES (?)", (key_id,))


def is_anything_sealed(connection: Connection) -> bool:
    """Whether any object or upload is encrypted. Looks at all of them: for the rare start that misses its root key."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM objects WHERE json_type(CAST(detail AS TEXT), '$.attributes.encryption') = 'object')"
        " OR EXISTS (SELECT 1 FROM uploads WHERE json_type(CAST(detail AS TEXT), '$.encryption') = 'object')"
    )
    return bool(connection.execute(query).fetchone()[0])


# buckets
def buckets(connection: Connection) -> list[Bucket]:
    """All buckets, whoever owns them."""
    return [_bucket(row) for row in connection.execute("SELECT id, name, account, region, created_s FROM buckets")]


def _bucket(row: tuple[int, str, str, str, int]) -> Bucket:
    return Bucket(id=row[0], name=row[1], account=row[2], region=row[3], created_s=row[4])


def add_bucket(connection: Connection, name: str, account: str, region: str, created_s: int) -> None:
    """A new bucket; its name must be free."""
    connection.execute(
        "INSERT INTO buckets (name, account, region, created_s) VALUES (?, ?, ?, ?)", (name, account, region, created_s)
    )


def delete_bucket(connection: Connection, bucket_id: int) -> list[str]:
    """Take away a bucket that holds no objects; returns the blobs doomed with its unfinished uploads."""
    uploads = connection.execute("SELECT id FROM uploads WHERE bucket = ?", (bucket_id,)).fetchall()
    doomed = [blob for (upload_id,) in uploads for blob in end_upload(connection, upload_id)]
    connection.execute("DELETE FROM buckets WHERE id = ?", (bucket_id,))
    return doomed


def check_bucket(connection: Connection, checked: Bucket) -> None:
    """That a bucket seen before is still there. Raises NoSuchBucket."""
    if connection.execute("SELECT 1 FROM buckets WHERE id = ?", (checked.id,)).fetchone() is None:
        raise no_such_bucket(checked.name)


# objects
_OBJECT = """
SELECT o.key, o.size, o.etag, o.modified_s, o.checksum, o.checksum_kind, o.detail, i.data
FROM objects o LEFT JOIN inline i ON i.id = o.inline_id WHERE o.bucket = ? AND o.key = ?
"""


def find_object(connection: Connection, bucket_id: int, key: bytes) -> StoredObject | None:
    """An object with its bytes or where they lie."""
    row = connection.execute(_OBJECT, (bucket_id, key)).fetchone()
    if row is None:
        return None
    detail = _decode_detail(row[6])
    return StoredObject(
        head=_head(row, detail), segments=detail.segments, inline=row[7], wrapped_key=detail.wrapped_key
    )


def _head(row: tuple[Any, ...], detail: Detail) -> ObjectHead:
    return ObjectHead(
        key=row[0],
        size=row[1],
        etag=row[2],
        modified_s=row[3],
        attributes=detail.attributes,
        checksum=_checksum(row[4], row[5]),
        parts=detail.parts,
    )


def find_head(connection: Connection, bucket_id: int, key: bytes) -> ObjectHead | None:
    """As `find_object`, without bytes."""
    query = (
        "SELECT key, size, etag, modified_s, checksum, checksum_kind, detail FROM objects WHERE bucket = ? AND key = ?"
    )
    row = connection.execute(query, (bucket_id, key)).fetchone()
    return None if row is None else _head(row, _decode_detail(row[6]))


def get_head(connection: Connection, bucket_id: int, key: bytes) -> ObjectHead:
    """As `find_head`; raises NoSuchKey."""
    found = find_head(connection, bucket_id, key)
    if found is None:
        raise no_such_key(key)
    return found


def get_object(connection: Connection, bucket_id: int, key: bytes) -> StoredObject:
    """As `find_object`; raises NoSuchKey."""
    found = find_object(connection, bucket_id, key)
    if found is None:
        raise no_such_key(key)
    return found


def _checksum(stored: str | None, kind: str | None) -> Checksum | None:
    if stored is None or kind is None:
        return None
    algorithm, _, value = stored.partition(":")
    return Checksum(algorithm=algorithm, value=value, kind=kind)


def put_object(connection: Connection, bucket_id: int, head: ObjectHead, body: Body) -> list[str]:
    """Point a key at a body, in place of what it had; returns the blobs that are doomed by it."""
    doomed = delete_object(connection, bucket_id, head.key)
    inline_id = None
    if body.inline is not None:
        inline_id = connection.execute("INSERT INTO inline (data) VALUES (?)", (body.inline,)).lastrowid
    add_blobs(connection, (segment.blob for segment in body.segments))
    checksum = head.checksum
    connection.execute(
        "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            bucket_id,
            head.key,
            head.size,
            head.etag,
            head.modified_s,
            None if checksum is None else f"{checksum.algorithm}:{checksum.value}",
            None if checksum is None else checksum.kind,
            inline_id,
            _encode(
                Detail(
                    attributes=head.attributes,
                    segments=body.segments,
                    parts=head.parts,
                    wrapped_key=body.wrapped_key,
                )
            ),
        ),
    )
    return doomed


def delete_object(connection: Connection, bucket_id: int, key: bytes) -> list[str]:
    """Take an object away, if there is one; returns the blobs that are doomed by it."""
    query = "DELETE FROM objects WHERE bucket = ? AND key = ? RETURNING inline_id, detail"
    row = connection.execute(query, (bucket_id, key)).fetchone()
    if row is None:
        return []
    if row[0] is not None:
        connection.execute("DELETE FROM inline WHERE id = ?", (row[0],))
        return []
    return doom_blobs(connection, [segment.blob for segment in _decode_detail(row[1]).segments])


def list_objects(
    connection: Connection, bucket_id: int, start: bytes, end: bytes | None, limit: int
) -> list[ListedObject]:
    """Objects with start ≤ key < end, in binary order of their keys."""
    bound, values = (
        ("AND key < ?", (bucket_id, start, end, limit)) if end is not None else ("", (bucket_id, start, limit))
    )
    rows = connection.execute(
        "SELECT key, size, etag, modified_s, checksum, checksum_kind FROM objects "  # noqa: S608 - no outside text in it
        f"WHERE bucket = ? AND key >= ? {bound} ORDER BY key LIMIT ?",
        values,
    )
    return [
        ListedObject(
            key=row[0],
            size=row[1],
            etag=row[2],
            modified_s=row[3],
            algorithm=None if row[4] is None else row[4].partition(":")[0],
            checksum_kind=row[5],
        )
        for row in rows
    ]


# blobs
def add_blobs(connection: Connection, names: Iterable[str]) -> None:
    """Refer to blobs; those referred to already (a part becomes a segment) stay so."""
    statement = "INSERT INTO blobs (name) VALUES (?) ON CONFLICT (name) DO UPDATE SET doomed = 0"
    connection.executemany(statement, ((name,) for name in names))


def doom_blobs(connection: Connection, names: list[str]) -> list[str]:
    """Refer to blobs no longer; they are still on disk."""
    connection.executemany("UPDATE blobs SET doomed = 1 WHERE name = ?", ((name,) for name in names))
    return names


def forget_blobs(connection: Connection, names: Iterable[str]) -> None:
    """Blobs are off the disk."""
    connection.executemany("DELETE FROM blobs WHERE name = ? AND doomed", ((name,) for name in names))


def doomed_blobs(connection: Connection, limit: int) -> list[str]:
    """Blobs that may still be on disk though nothing refers to them."""
    return [row[0] for row in connection.execute("SELECT name FROM blobs WHERE doomed LIMIT ?", (limit,))]


def is_blob(connection: Connection, name: str) -> bool:
    """Whether something refers to this blob."""
    return connection.execute("SELECT 1 FROM blobs WHERE name = ? AND NOT doomed", (name,)).fetchone() is not None


# uploads
def add_upload(connection: Connection, bucket_id: int, upload: Upload) -> None:
    """Begin a multipart upload."""
    connection.execute(
        "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            upload.id,
            bucket_id,
            upload.key,
            upload.initiated_s,
            upload.algorithm,
            upload.checksum_kind,
            _encode(upload.attributes),
        ),
    )


_UPLOAD = "SELECT id, key, initiated_s, algorithm, checksum_kind, detail FROM uploads WHERE bucket = ?"


def get_upload(connection: Connection, bucket_id: int, key: bytes, upload_id: str) -> Upload:
    """An upload of this key. Raises NoSuchUpload."""
    row = connection.execute(f"{_UPLOAD} AND id = ? AND key = ?", (bucket_id, upload_id, key)).fetchone()
    if row is None:
        raise no_such_upload(upload_id)
    return _upload(row)


def list_uploads(
    connection: Connection, bucket_id: int, prefix: bytes, after_key: bytes, after_id: str, limit: int
) -> list[Upload]:
    """Uploads of keys with a prefix, by key and id (which is by time), behind a key or behind an upload of that key."""
    query = (
        f"{_UPLOAD} AND key >= ? AND (? OR key > ? OR (key = ? AND ? AND id > ?)) "
        "AND substr(key, 1, ?) = ? ORDER BY key, id LIMIT ?"
    )
    start = max(prefix, after_key)
    rows = connection.execute(
        query,
        (bucket_id, start, not after_key, after_key, after_key, bool(after_id), after_id, len(prefix), prefix, limit),
    )
    return [_upload(row) for row in rows]


def _upload(row: tuple[str, bytes, int, str | None, str, bytes]) -> Upload:
    return Upload(
        id=row[0],
        key=row[1],
        initiated_s=row[2],
        algorithm=row[3],
        checksum_kind=row[4],
        attributes=_decode_attributes(row[5]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """An uploaded part and where its bytes lie."""

    number: int
    size: int
    etag: str
    checksum: str
    modified_s: int
    segments: tuple[Segment, ...]


def put_part(connection: Connection, upload_id: str, part: StoredPart) -> list[str]:
    """Keep a part, in place of an earlier one of its number; returns the blobs doomed by it."""
    doomed = _delete_parts(connection, "upload = ? AND number = ?", (upload_id, part.number))
    add_blobs(connection, (segment.blob for segment in part.segments))
    connection.execute(
        "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)",
        (upload_id, part.number, part.size, part.etag, part.checksum, part.modified_s, _encode(part.segments)),
    )
    return doomed


def list_parts(connection: Connection, upload_id: str, after: int, limit: int) -> list[StoredPart]:
    """Parts with a number above `after`, in order."""
    query = (
        "SELECT number, size, etag, checksum, modified_s, segments FROM parts "
        "WHERE upload = ? AND number > ? ORDER BY number LIMIT ?"
    )
    return [
        StoredPart(
            number=row[0],
            size=row[1],
            etag=row[2],
            checksum=row[3],
            modified_s=row[4],
            segments=_decode_segments(row[5]),
        )
        for row in connection.execute(query, (upload_id, after, limit))
    ]


def end_upload(connection: Connection, upload_id: str) -> list[str]:
    """Take an upload and all its parts away; returns the blobs doomed by it."""
    doomed = _delete_parts(connection, "upload = ?", (upload_id,))
    connection.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))
    return doomed


def _delete_parts(connection: Connection, where: str, values: tuple[str | int, ...]) -> list[str]:
    rows = connection.execute(f"DELETE FROM parts WHERE {where} RETURNING segments", values).fetchall()  # noqa: S608
    return doom_blobs(connection, [segment.blob for row in rows for segment in _decode_segments(row[0])])
