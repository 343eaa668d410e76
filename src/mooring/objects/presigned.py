"""Requests signed elsewhere than in the Authorization header, which this version does not offer: told by name. Pure."""

from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from mooring.objects.errors import S3Error

_QUERY_NAMES = frozenset({b"X-Amz-Algorithm", b"X-Amz-Signature", b"AWSAccessKeyId"})  # of SigV4 and, last, of SigV2


def check_not_presigned(method: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse presigned URLs and presigned POST forms. Raises NotImplemented; an Authorization header has its own check."""
    fields = dict(headers)
    if b"authorization" in fields:
        return
    if any(unquote_to_bytes(pair.partition(b"=")[0]) in _QUERY_NAMES for pair in query.split(b"&")):
        raise _not_offered("Presigned URLs")
    if method == "POST" and fields.get(b"content-type", b"").lower().startswith(b"multipart/form-data"):
        raise _not_offered("Presigned POST forms")


def _not_offered(what: str) -> S3Error:
    return S3Error(
        "NotImplemented",
        f"{what} are not offered by this version. Sign the request in its Authorization header instead.",
    )
