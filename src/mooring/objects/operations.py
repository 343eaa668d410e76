"""Which S3 operation a request is, and which of its query parameters and x-amz-… headers mean something here. Pure.

Whatever is not listed for an operation is refused by name: an ignored header could change what the caller gets.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mooring.objects.errors import S3Error, not_implemented
from mooring.objects.names import Target

# Any request may carry these; they do not change what is done.
_ANY_PARAMETERS = frozenset({"x-id"})
_ANY_HEADERS = frozenset(
    {
        "x-amz-date",
        "x-amz-content-sha256",
        "x-amz-user-agent",
        "x-amz-expected-bucket-owner",
        "x-amz-request-payer",  # no bucket here is a requester-pays one
    }
)
_BODY_HEADERS = frozenset({"x-amz-decoded-content-length", "x-amz-sdk-checksum-algorithm", "x-amz-trailer"})
_WRITE_HEADERS = frozenset(
    {
        "x-amz-acl",
        "x-amz-storage-class",
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-server-side-encryption-bucket-key-enabled",
        "x-amz-server-side-encryption-context",
    }
)
_WRITE_CONDITIONS = frozenset({"if-match", "if-none-match"})
_READ_CONDITIONS = _WRITE_CONDITIONS | {"if-modified-since", "if-unmodified-since"}
_RESPONSE_PARAMETERS = frozenset(
    {
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation. `checksums`: takes x-amz-checksum-<algorithm>; `metadata`: takes x-amz-meta-…"""

    name: str
    parameters: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()
    checksums: bool = False
    metadata: bool = False
    conditions: frozenset[str] = frozenset()


def _operation(
    name: str,
    *parameters: str,
    headers: frozenset[str] = frozenset(),
    checksums: bool = False,
    metadata: bool = False,
    conditions: frozenset[str] = frozenset(),
) -> Operation:
    return Operation(
        name=name,
        parameters=frozenset(parameters),
        headers=headers,
        checksums=checksums,
        metadata=metadata,
        conditions=conditions,
    )


OPERATIONS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        _operation("ListBuckets", "max-buckets", "continuation-token", "prefix", "bucket-region"),
        _operation(
            "CreateBucket",
            headers=frozenset({"x-amz-acl", "x-amz-object-ownership", "x-amz-bucket-object-lock-enabled"}),
        ),
        _operation("HeadBucket"),
        _operation("DeleteBucket"),
        _operation("GetBucketLocation", "location"),
        _operation("GetBucketVersioning", "versioning"),
        _operation("ListObjects", "prefix", "delimiter", "marker", "max-keys", "encoding-type"),
        _operation(
            "ListObjectsV2",
            *("list-type", "prefix", "delimiter", "max-keys", "encoding-type"),
            *("continuation-token", "start-after", "fetch-owner"),
        ),
        _operation("DeleteObjects", "delete", headers=_BODY_HEADERS, checksums=True),
        _operation(
            "ListMultipartUploads",
            *("uploads", "prefix", "key-marker", "upload-id-marker", "max-uploads", "encoding-type"),
        ),
        _operation(
            "PutObject",
            headers=_BODY_HEADERS | _WRITE_HEADERS,
            checksums=True,
            metadata=True,
            conditions=_WRITE_CONDITIONS,
        ),
        _operation(
            "CopyObject",
            headers=_WRITE_HEADERS
            | {"x-amz-copy-source", "x-amz-metadata-directive", "x-amz-source-expected-bucket-owner"},
            metadata=True,
        ),
        _operation(
            "GetObject",
            "partNumber",
            *_RESPONSE_PARAMETERS,
            headers=frozenset({"x-amz-checksum-mode"}),
            conditions=_READ_CONDITIONS,
        ),
        _operation(
            "HeadObject",
            "partNumber",
            *_RESPONSE_PARAMETERS,
            headers=frozenset({"x-amz-checksum-mode"}),
            conditions=_READ_CONDITIONS,
        ),
        _operation("DeleteObject"),
        _operation(
            "CreateMultipartUpload",
            "uploads",
            headers=_WRITE_HEADERS | {"x-amz-checksum-algorithm", "x-amz-checksum-type"},
            metadata=True,
        ),
        _operation("UploadPart", "partNumber", "uploadId", headers=_BODY_HEADERS, checksums=True),
        _operation("ListParts", "uploadId", "part-number-marker", "max-parts"),
        _operation(
            "CompleteMultipartUpload",
            "uploadId",
            headers=frozenset({"x-amz-decoded-content-length", "x-amz-checksum-type", "x-amz-mp-object-size"}),
            checksums=True,
            conditions=_WRITE_CONDITIONS,
        ),
        _operation("AbortMultipartUpload", "uploadId"),
    )
}

_VERBS = {"GET": "Get", "PUT": "Put", "DELETE": "Delete", "POST": "Post", "HEAD": "Head"}
# query parameter that names a sub-resource → what S3's operation names call it
_BUCKET_RESOURCES = {
    "accelerate": "BucketAccelerateConfiguration",
    "acl": "BucketAcl",
    "analytics": "BucketAnalyticsConfiguration",
    "cors": "BucketCors",
    "encryption": "BucketEncryption",
    "intelligent-tiering": "BucketIntelligentTieringConfiguration",
    "inventory": "BucketInventoryConfiguration",
    "lifecycle": "BucketLifecycleConfiguration",
    "logging": "BucketLogging",
    "metrics": "BucketMetricsConfiguration",
    "notification": "BucketNotificationConfiguration",
    "object-lock": "ObjectLockConfiguration",
    "ownershipControls": "BucketOwnershipControls",
    "policy": "BucketPolicy",
    "policyStatus": "BucketPolicyStatus",
    "publicAccessBlock": "PublicAccessBlock",
    "replication": "BucketReplication",
    "requestPayment": "BucketRequestPayment",
    "tagging": "BucketTagging",
    "versioning": "BucketVersioning",
    "versions": "ObjectVersions",
    "website": "BucketWebsite",
}
_OBJECT_RESOURCES = {
    "acl": "ObjectAcl",
    "attributes": "ObjectAttributes",
    "legal-hold": "ObjectLegalHold",
    "retention": "ObjectRetention",
    "tagging": "ObjectTagging",
    "torrent": "ObjectTorrent",
}


def operation_of(method: str, target: Target, parameters: Mapping[str, str], headers: Mapping[str, str]) -> Operation:
    """The operation of a request, all that it carries checked. Raises NotImplemented naming what is not offered."""
    if target.key:
        name = _object_operation(method, parameters, headers)
    elif target.bucket:
        name = _bucket_operation(method, parameters)
    else:
        name = "ListBuckets" if method == "GET" else ""
    operation = OPERATIONS.get(name)
    if operation is None:
        if name:
            raise not_implemented(f"The operation {name}")
        raise S3Error(
            "MethodNotAllowed", "The specified method is not allowed against this resource.", fields={"Method": method}
        )
    _check_parameters(operation, parameters)
    _check_headers(operation, headers)
    return operation


def _bucket_operation(method: str, parameters: Mapping[str, str]) -> str:
    match method:
        case "GET" if "location" in parameters:
            return "GetBucketLocation"
        case "GET" if "uploads" in parameters:
            return "ListMultipartUploads"
        case "GET" if "versions" in parameters:
            return "ListObjectVersions"
        case "POST" if "delete" in parameters:
            return "DeleteObjects"
    for parameter, resource in _BUCKET_RESOURCES.items():
        if parameter in parameters:
            return _VERBS.get(method, method) + resource
    match method:
        case "GET":
            return "ListObjectsV2" if parameters.get("list-type") == "2" else "ListObjects"
        case "PUT":
            return "CreateBucket"
        case "HEAD":
            return "HeadBucket"
        case "DELETE":
            return "DeleteBucket"
        case "POST":
            return "PostObject"
    return ""


def _object_operation(method: str, parameters: Mapping[str, str], headers: Mapping[str, str]) -> str:
    for parameter, resource in _OBJECT_RESOURCES.items():
        if parameter in parameters:
            return _VERBS.get(method, method) + resource
    copies = "x-amz-copy-source" in headers
    match method:
        case "GET":
            return "ListParts" if "uploadId" in parameters else "GetObject"
        case "HEAD":
            return "HeadObject"
        case "PUT" if "uploadId" in parameters or "partNumber" in parameters:
            return "UploadPartCopy" if copies else "UploadPart"
        case "PUT":
            return "CopyObject" if copies else "PutObject"
        case "DELETE":
            return "AbortMultipartUpload" if "uploadId" in parameters else "DeleteObject"
        case "POST" if "uploads" in parameters:
            return "CreateMultipartUpload"
        case "POST" if "uploadId" in parameters:
            return "CompleteMultipartUpload"
        case "POST" if "restore" in parameters:
            return "RestoreObject"
        case "POST" if "select" in parameters:
            return "SelectObjectContent"
    return ""


def _check_parameters(operation: Operation, parameters: Mapping[str, str]) -> None:
    for name in parameters:
        if name not in operation.parameters and name not in _ANY_PARAMETERS:
            raise not_implemented(f"The query parameter {name} of {operation.name}")


def _check_headers(operation: Operation, headers: Mapping[str, str]) -> None:
    for name in headers:
        if name.startswith("if-") and name not in operation.conditions:
            raise not_implemented(f"The header {name} of {operation.name}")
        if not name.startswith("x-amz-") or name in _ANY_HEADERS or name in operation.headers:
            continue
        if operation.metadata and name.startswith("x-amz-meta-"):
            continue
        if operation.checksums and name.startswith("x-amz-checksum-"):
            continue  # integrity reads it, or refuses its algorithm by name
        raise not_implemented(f"The header {name} of {operation.name}")
