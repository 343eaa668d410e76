"""Headers of a request → what an object keeps, and back. Pure. Values are latin-1 text, exactly the bytes that came."""

from collections.abc import Mapping

from mooring.objects import encryption
from mooring.objects.errors import S3Error, not_implemented
from mooring.objects.records import Attributes, ObjectHead

SYSTEM_HEADERS = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
)
META_PREFIX = "x-amz-meta-"
_MAX_METADATA_BYTES = 2048
_DEFAULT_TYPE = "binary/octet-stream"
_RESPONSE_OVERRIDES = {
    "response-cache-control": "cache-control",
    "response-content-disposition": "content-disposition",
    "response-content-encoding": "content-encoding",
    "response-content-language": "content-language",
    "response-content-type": "content-type",
    "response-expires": "expires",
}


def attributes_of(headers: Mapping[str, str]) -> Attributes:
    """What a write says about its object. Raises MetadataTooLarge."""
    kept = {name: headers[name] for name in SYSTEM_HEADERS if name in headers}
    encoding = _without_chunked(kept.pop("content-encoding", ""))
    if encoding:
        kept["content-encoding"] = encoding
    kept.setdefault("content-type", _DEFAULT_TYPE)
    metadata = {
        name.removeprefix(META_PREFIX): value for name, value in headers.items() if name.startswith(META_PREFIX)
    }
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > _MAX_METADATA_BYTES:
        raise S3Error(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            fields={"Size": str(size), "MaxSizeAllowed": str(_MAX_METADATA_BYTES)},
        )
    return Attributes(headers=kept, metadata=metadata)


def _without_chunked(encoding: str) -> str:
    """aws-chunked is how the body travels, not what it is."""
    return ",".join(word.strip() for word in encoding.split(",") if word.strip().lower() not in ("", "aws-chunked"))


def check_plain(headers: Mapping[str, str]) -> None:
    """Refuse headers that ask for more than is offered, where a plain value means nothing more. Raises NotImplemented."""
    acl = headers.get("x-amz-acl", "private")
    if acl not in ("private", "bucket-owner-full-control"):
        raise not_implemented(f"x-amz-acl: {acl}")
    storage_class = headers.get("x-amz-storage-class", "STANDARD")
    if storage_class != "STANDARD":
        raise not_implemented(f"x-amz-storage-class: {storage_class}")
    ownership = headers.get("x-amz-object-ownership", "BucketOwnerEnforced")
    if ownership != "BucketOwnerEnforced":
        raise not_implemented(f"x-amz-object-ownership: {ownership}")
    if headers.get("x-amz-bucket-object-lock-enabled", "false").lower() != "false":
        raise not_implemented("x-amz-bucket-object-lock-enabled")


def response_headers(head: ObjectHead, overrides: Mapping[str, str]) -> dict[str, str]:
    """What GetObject and HeadObject say about an object. `overrides` are the response-… query parameters."""
    headers = dict(head.attributes.headers)
    for parameter, name in _RESPONSE_OVERRIDES.items():
        if parameter in overrides:
            headers[name] = overrides[parameter]
    headers.update({META_PREFIX + name: value for name, value in head.attributes.metadata.items()})
    headers["etag"] = f'"{head.etag}"'
    headers["accept-ranges"] = "bytes"
    headers.update(encryption.response_headers(head.attributes.encryption))
    return headers


def checksum_headers(head: ObjectHead) -> dict[str, str]:
    """The stored checksum, for x-amz-checksum-mode: ENABLED."""
    if head.checksum is None:
        return {}
    return {
        f"x-amz-checksum-{head.checksum.algorithm.lower()}": head.checksum.value,
        "x-amz-checksum-type": head.checksum.kind,
    }
