"""What an S3 caller is told when a request fails, named by S3's own codes.

Raised by every module of this package, turned into XML by `replies`. `fields` are the extra elements that S3 puts beside
Code and Message (BucketName, Key, …). The HTTP status belongs to the code, so it is looked up here and nowhere else.
"""

from collections.abc import Mapping

from mooring.domain.errors import ServiceError

STATUS: Mapping[str, int] = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "BadDigest": 400,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "EntityTooLarge": 400,
    "EntityTooSmall": 400,
    "IllegalLocationConstraintException": 400,
    "IncompleteBody": 400,
    "InsufficientStorage": 507,
    "InternalError": 500,
    "InvalidArgument": 400,
    "InvalidBucketName": 400,
    "InvalidDigest": 400,
    "InvalidLocationConstraint": 400,
    "InvalidPart": 400,
    "InvalidPartNumber": 416,
    "InvalidPartOrder": 400,
    "InvalidRange": 416,
    "InvalidRequest": 400,
    "InvalidURI": 400,
    "KMS.NotFoundException": 400,
    "KeyTooLongError": 400,
    "MalformedXML": 400,
    "MaxMessageLengthExceeded": 400,
    "MalformedTrailerError": 400,
    "MetadataTooLarge": 400,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "MissingRequestBodyError": 400,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "NotImplemented": 501,
    "NotModified": 304,
    "PermanentRedirect": 301,
    "PreconditionFailed": 412,
    "RequestTimeTooSkewed": 403,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
    "XAmzContentChecksumMismatch": 400,
    "XAmzContentSHA256Mismatch": 400,
}


class S3Error(ServiceError):
    """A failed request. `headers` are response headers that go with the error."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS[code]
        self.fields = dict(fields or {})
        self.headers = dict(headers or {})


class StorageError(Exception):
    """The disk failed us (full, I/O error, closed). Nothing was acknowledged; the caller may retry."""


class NoSpaceError(StorageError):
    """Nothing was written: the data directory's disk is full. Trying again helps once something was deleted."""

    def __init__(self) -> None:
        super().__init__("no space is left on the data directory")


class KeyLostError(StorageError):
    """What is stored was sealed under a root key that is not there; starting again will not help."""


def no_such_bucket(name: str) -> S3Error:
    """The bucket does not exist."""
    return S3Error("NoSuchBucket", "The specified bucket does not exist", fields={"BucketName": name})


def no_such_key(key: bytes) -> S3Error:
    """The object does not exist."""
    return S3Error("NoSuchKey", "The specified key does not exist.", fields={"Key": key.decode("utf-8", "replace")})


def no_such_upload(upload_id: str) -> S3Error:
    """The multipart upload does not exist, is over, or belongs to another key."""
    return S3Error(
        "NoSuchUpload",
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
        "completed.",
        fields={"UploadId": upload_id},
    )


def insufficient_storage() -> S3Error:
    """The disk is full. 507 as other S3-compatible servers say it: no SDK takes it for an outage that passes by itself,
    as they take 500 and 503, so none tries again.
    """
    return S3Error(
        "InsufficientStorage",
        "No space is left on the data directory. Delete objects or make room on its disk, then try again.",
    )


def not_implemented(what: str) -> S3Error:
    """Something that this server does not do, by name."""
    return S3Error("NotImplemented", f"{what} is not implemented by this server")


def invalid_argument(name: str, value: str, message: str) -> S3Error:
    """A header or query parameter with a value that cannot be."""
    return S3Error("InvalidArgument", message, fields={"ArgumentName": name, "ArgumentValue": value})
