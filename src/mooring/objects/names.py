"""Bucket names, keys, and where a request finds them: Host and raw path → bucket and key. Pure.

A key is bytes: the percent-decoded path, UTF-8, never normalised. It is used as a column value and never as a file name.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from mooring.objects.errors import S3Error

MAX_KEY_BYTES = 1024
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
# <bucket>.s3.<region>.amazonaws.com, <bucket>.s3-<region>.amazonaws.com, <bucket>.s3.localhost, <bucket>.localhost …
_VIRTUAL = re.compile(
    r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d))?\.(?:localhost|amazonaws\.com(?:\.cn)?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a request is about: the service (no bucket), a bucket (no key), or an object."""

    bucket: str = ""
    key: bytes = b""


def is_bucket_name(name: str) -> bool:
    """Whether a bucket may have this name (S3 user guide: bucket naming rules)."""
    if not _BUCKET.fullmatch(name) or ".." in name:
        return False
    if name.startswith(_RESERVED_PREFIXES) or name.endswith(_RESERVED_SUFFIXES):
        return False
    return not re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", name)


def virtual_bucket(host: str) -> str:
    """The bucket that a Host header names; "" where the bucket is in the path."""
    name = _without_port(host.strip().lower()).rstrip(".")
    if _is_address(name):
        return ""
    if match := _VIRTUAL.fullmatch(name):
        return match["bucket"] or ""
    if name.endswith(".localhost"):
        return name.removesuffix(".localhost")
    return ""


def target_of(host: str, raw_path: bytes) -> Target:
    """Bucket and key of a request. Raises InvalidURI, KeyTooLongError."""
    bucket = virtual_bucket(host)
    rest = raw_path[1:] if raw_path.startswith(b"/") else raw_path
    if not bucket:
        head, _, rest = rest.partition(b"/")
        try:
            bucket = unquote_to_bytes(head).decode("utf-8")
        except UnicodeDecodeError as error:
            raise S3Error("InvalidURI", "Couldn't parse the specified URI.") from error
    return Target(bucket=bucket, key=key_of(rest))


def key_of(encoded: bytes) -> bytes:
    """Percent-decode a key once and check it. Raises InvalidURI, KeyTooLongError."""
    key = unquote_to_bytes(encoded)
    try:
        key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise S3Error("InvalidURI", "Couldn't parse the specified URI.") from error
    return checked_key(key)


def checked_key(key: bytes) -> bytes:
    """A key within S3's bound. Raises KeyTooLongError."""
    if len(key) > MAX_KEY_BYTES:
        raise S3Error(
            "KeyTooLongError",
            "Your key is too long",
            fields={"Size": str(len(key)), "MaxSizeAllowed": str(MAX_KEY_BYTES)},
        )
    return key


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0][1:]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
