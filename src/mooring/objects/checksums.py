"""S3's checksums: computed as bytes go by, written as base64, combined over parts. Pure.

CRC32C and CRC64NVME come from awscrt, AWS's own library, for plain Python would do some 10 MB/s; it is imported when first
needed. An algorithm that is not here is refused by name, never ignored.
"""

import base64
import binascii
import hashlib
import zlib
from collections.abc import Sequence
from typing import Protocol

from mooring.objects.errors import not_implemented

ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
LENGTHS = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}
CRCS = ("CRC32", "CRC32C", "CRC64NVME")


class Digest(Protocol):
    """A checksum being computed."""

    def update(self, data: bytes | bytearray, /) -> None:
        """Take in more bytes."""

    def digest(self) -> bytes:
        """The checksum so far, big-endian."""


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | bytearray, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _Crc32c:
    def __init__(self) -> None:
        from awscrt import checksums

        self._next = checksums.crc32c
        self._value = 0

    def update(self, data: bytes | bytearray, /) -> None:
        self._value = self._next(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _Crc64nvme:
    def __init__(self) -> None:
        from awscrt import checksums

        self._next = checksums.crc64nvme
        self._value = 0

    def update(self, data: bytes | bytearray, /) -> None:
        self._value = self._next(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(8, "big")


class _Hash:
    def __init__(self, name: str) -> None:
        self._hash = hashlib.new(name, usedforsecurity=False)

    def update(self, data: bytes | bytearray, /) -> None:
        self._hash.update(data)

    def digest(self) -> bytes:
        return self._hash.digest()


def new(algorithm: str) -> Digest:
    """A checksum of no bytes yet. Raises NotImplemented for an algorithm that is not here."""
    match algorithm:
        case "CRC32":
            return _Crc32()
        case "CRC32C":
            return _Crc32c()
        case "CRC64NVME":
            return _Crc64nvme()
        case "SHA1" | "SHA256":
            return _Hash(algorithm.lower())
        case _:
            raise not_implemented(f"The checksum algorithm {algorithm}")


def encode(digest: bytes) -> str:
    """A checksum as headers and XML carry it."""
    return base64.b64encode(digest).decode("ascii")


def decode(value: str, length: int) -> bytes | None:
    """The bytes of a checksum in base64; None when it is not one of this length."""
    try:
        digest = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == length else None


def of(algorithm: str, data: bytes) -> str:
    """The checksum of some bytes, as base64."""
    digest = new(algorithm)
    digest.update(data)
    return encode(digest.digest())


def composite(algorithm: str, parts: Sequence[str]) -> str:
    """The checksum of the parts' checksums (all base64), with `-<parts>` behind it."""
    joined = b"".join(base64.b64decode(part) for part in parts)
    return f"{of(algorithm, joined)}-{len(parts)}"


def full_object(algorithm: str, parts: Sequence[tuple[str, int]]) -> str:
    """The checksum of the whole from (checksum, size) of its parts; only CRCs can be combined."""
    from awscrt import checksums

    combine = {
        "CRC32": checksums.combine_crc32,
        "CRC32C": checksums.combine_crc32c,
        "CRC64NVME": checksums.combine_crc64nvme,
    }[algorithm]
    total = 0
    for value, size in parts:
        total = combine(total, int.from_bytes(base64.b64decode(value), "big"), size)
    return encode(total.to_bytes(LENGTHS[algorithm], "big"))


def default_kind(algorithm: str) -> str:
    """The checksum type of a multipart upload that names none (S3 user guide: checking object integrity)."""
    return "FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE"


def multipart_etag(etags: Sequence[str]) -> str:
    """The ETag of a completed multipart upload: MD5 over the parts' MD5s."""
    joined = b"".join(bytes.fromhex(etag) for etag in etags)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"
