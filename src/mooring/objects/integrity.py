"""What a body must prove: the digests its request states, computed as it goes by and compared at its end. Pure.

headers ──guards_of──▶ Guards ──update(bytes)…──▶ settle(trailers) ──▶ Seal (MD5, stored checksum) or an S3Error
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from mooring.objects import checksums
from mooring.objects.errors import S3Error, invalid_argument, not_implemented
from mooring.objects.records import Checksum

_PREFIX = "x-amz-checksum-"
_NOT_DIGESTS = (f"{_PREFIX}algorithm", f"{_PREFIX}mode", f"{_PREFIX}type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What a body turned out to be. `checksum` is base64; "" when none was computed."""

    etag: str
    algorithm: str | None
    checksum: str = ""

    def stored(self) -> Checksum | None:
        """The checksum as an object keeps it."""
        return None if self.algorithm is None else Checksum(algorithm=self.algorithm, value=self.checksum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What the head of a request says about its body."""

    md5: bytes | None = None
    sha256: str | None = None  # hex, from x-amz-content-sha256
    algorithm: str | None = None
    value: str | None = None  # base64, from a header
    trailer: str | None = None  # name of the trailer that will bring it


def algorithm_of_header(name: str) -> str | None:
    """The algorithm of an x-amz-checksum-… header; None for any other. Raises NotImplemented for one not offered."""
    if not name.startswith(_PREFIX) or name in _NOT_DIGESTS:
        return None
    algorithm = name.removeprefix(_PREFIX).upper()
    if algorithm not in checksums.ALGORITHMS:
        raise not_implemented(f"The checksum algorithm {algorithm}")
    return algorithm


def stated_by(headers: Mapping[str, str], *, sha256: str | None) -> Stated:
    """Read the head. Raises InvalidDigest, InvalidRequest, NotImplemented."""
    md5 = None
    if "content-md5" in headers:
        md5 = checksums.decode(headers["content-md5"], 16)
        if md5 is None:
            raise S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.")
    named = {algorithm: name for name in headers if (algorithm := algorithm_of_header(name))}
    trailer = headers.get("x-amz-trailer", "").strip().lower() or None
    trailing = algorithm_of_header(trailer) if trailer else None
    if trailer and trailing is None:
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    if len(named) + bool(trailing) > 1:
        raise S3Error(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    algorithm = trailing or next(iter(named), None)
    value = None
    if named:
        algorithm, name = next(iter(named.items()))
        value = headers[name].strip()
        if checksums.decode(value, checksums.LENGTHS[algorithm]) is None:
            raise S3Error("InvalidRequest", f"Value for {name} header is invalid.")
    _check_announced(headers.get("x-amz-sdk-checksum-algorithm"), algorithm)
    return Stated(md5=md5, sha256=sha256, algorithm=algorithm, value=value, trailer=trailer)


def _check_announced(announced: str | None, algorithm: str | None) -> None:
    if announced is None:
        return
    wanted = announced.strip().upper()
    if wanted not in checksums.ALGORITHMS:
        raise not_implemented(f"The checksum algorithm {wanted}")
    if algorithm is None:
        raise S3Error(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were "
            "found.",
        )
    if wanted != algorithm:
        raise invalid_argument(
            "x-amz-sdk-checksum-algorithm", announced, "Value for x-amz-sdk-checksum-algorithm header is invalid."
        )


class Guards:
    """The digests of one body. `also` names an algorithm to compute even where the request states none."""

    def __init__(self, stated: Stated, *, also: str | None = None) -> None:
        self._stated = stated
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256() if stated.sha256 is not None else None
        self._algorithm = stated.algorithm or also
        self._checksum = None if self._algorithm is None else checksums.new(self._algorithm)

    def update(self, data: bytes | bytearray) -> None:
        """Take in more of the body."""
        self._md5.update(data)
        if self._sha256 is not None:
            self._sha256.update(data)
        if self._checksum is not None:
            self._checksum.update(data)

    def settle(self, trailers: Mapping[str, str]) -> Seal:
        """Compare at the end. Raises XAmzContentSHA256Mismatch, BadDigest, InvalidRequest, MalformedTrailerError's kin."""
        stated = self._stated
        if self._sha256 is not None and self._sha256.hexdigest() != stated.sha256:
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                fields={
                    "ClientComputedContentSHA256": stated.sha256 or "",
                    "S3ComputedContentSHA256": self._sha256.hexdigest(),
                },
            )
        if stated.md5 is not None and stated.md5 != self._md5.digest():
            raise S3Error(
                "BadDigest",
                "The Content-MD5 you specified did not match what we received.",
                fields={
                    "ExpectedDigest": checksums.encode(stated.md5),
                    "CalculatedDigest": checksums.encode(self._md5.digest()),
                },
            )
        computed = "" if self._checksum is None else checksums.encode(self._checksum.digest())
        value = stated.value if stated.trailer is None else trailers.get(stated.trailer, "").strip()
        if stated.trailer is not None and not value:
            raise S3Error("InvalidRequest", f"The trailer {stated.trailer} that x-amz-trailer announces did not come.")
        if value is not None and value != computed:
            raise S3Error("BadDigest", f"The {self._algorithm} you specified did not match the calculated checksum.")
        return Seal(etag=self._md5.hexdigest(), algorithm=self._algorithm, checksum=computed)
