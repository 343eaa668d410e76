"""What the storage keeps and hands out: plain values. No I/O, no HTTP.

A `Body` is where bytes lie: inside the index (small ones) or in blob files, in order. A body is immutable; an object is
replaced by pointing its row at another body.
"""

from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One bucket; names are global, as in S3, so a bucket has exactly one owner and region."""

    id: int
    name: str
    account: str
    region: str
    created_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """A checksum as S3 writes it: `value` is base64, with `-<parts>` behind it when `kind` is COMPOSITE."""

    algorithm: str  # CRC32 | CRC32C | CRC64NVME | SHA1 | SHA256
    value: str
    kind: str = "FULL_OBJECT"  # or COMPOSITE


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """How an object's bytes are sealed; an object without one is kept as it is."""

    mode: str  # AES256 | aws:kms
    key: str  # the KMS key's ARN; keys.S3_MANAGED for AES256
    context: str = ""  # the encryption context as canonical JSON


class Segment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of bytes in one blob file; the index keeps it as JSON. `size` is the plaintext's."""

    blob: str
    size: int
    wrapped_key: bytes = b""  # of a sealed blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Bytes that are durable but not yet any object's: either `inline` or `segments`. `size` is the plaintext's."""

    size: int
    inline: bytes | None = None
    wrapped_key: bytes = b""  # of a sealed `inline`
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSpan:
    """One part of a completed multipart upload, for GetObject by PartNumber."""

    size: int
    checksum: str = ""  # base64, of the object's algorithm; "" when the upload had none


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What a client said about an object: system headers by their lower-case names, user metadata without its
    prefix, and how its bytes are to be sealed.
    """

    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    encryption: Encryption | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectHead:
    """Everything about an object but its bytes."""

    key: bytes
    size: int
    etag: str  # without quotes
    modified_s: int
    attributes: Attributes
    checksum: Checksum | None = None
    parts: tuple[PartSpan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Precondition:
    """What must hold of the present object for a request to go on; times in epoch seconds."""

    if_match: tuple[str, ...] = ()  # ETags without quotes, or "*"
    if_none_match: tuple[str, ...] = ()
    if_modified_since_s: int | None = None
    if_unmodified_since_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A multipart upload that is neither completed nor aborted."""

    id: str
    key: bytes
    initiated_s: int
    attributes: Attributes
    algorithm: str | None = None
    checksum_kind: str = "COMPOSITE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One uploaded part. `checksum` is base64, of the upload's algorithm."""

    number: int
    size: int
    etag: str
    modified_s: int
    checksum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartChoice:
    """One part as CompleteMultipartUpload names it."""

    number: int
    etag: str
    checksums: dict[str, str] = field(default_factory=dict)  # algorithm → base64
