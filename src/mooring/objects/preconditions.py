"""If-Match and its kin, decided on what is there. Pure (RFC 9110 section 13.2.2 gives the order)."""

from mooring.objects.errors import S3Error, no_such_key
from mooring.objects.records import ObjectHead, Precondition


def _failed(condition: str) -> S3Error:
    return S3Error(
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        fields={"Condition": condition},
    )


def _matches(wanted: tuple[str, ...], etag: str) -> bool:
    return "*" in wanted or etag in wanted


def check_write(precondition: Precondition | None, present: ObjectHead | None, key: bytes) -> None:
    """Whether a key may be written. Raises PreconditionFailed, NoSuchKey (If-Match on nothing)."""
    if precondition is None:
        return
    if precondition.if_match:
        if present is None:
            raise no_such_key(key)
        if not _matches(precondition.if_match, present.etag):
            raise _failed("If-Match")
    if precondition.if_none_match and present is not None and _matches(precondition.if_none_match, present.etag):
        raise _failed("If-None-Match")


def check_read(precondition: Precondition, present: ObjectHead) -> None:
    """Whether an object may be sent. Raises PreconditionFailed, NotModified."""
    if precondition.if_match:
        if not _matches(precondition.if_match, present.etag):
            raise _failed("If-Match")
    elif precondition.if_unmodified_since_s is not None and present.modified_s > precondition.if_unmodified_since_s:
        raise _failed("If-Unmodified-Since")
    if precondition.if_none_match:
        if _matches(precondition.if_none_match, present.etag):
            raise S3Error("NotModified", "Not Modified")
    elif precondition.if_modified_since_s is not None and present.modified_s <= precondition.if_modified_since_s:
        raise S3Error("NotModified", "Not Modified")
