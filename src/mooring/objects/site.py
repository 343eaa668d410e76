"""What handlers work with, built once per process; and what several of them ask of it."""

import hashlib
from dataclasses import dataclass

from mooring.kit import clock
from mooring.objects import encryption
from mooring.objects.errors import S3Error, not_implemented
from mooring.objects.exchange import Request
from mooring.objects.integrity import Seal
from mooring.objects.receiving import Workers
from mooring.objects.records import Bucket, Encryption
from mooring.objects.storage import Storage
from mooring.objects.uploads import Uploads
from mooring.objects.xml import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The storage and the threads that use it."""

    storage: Storage
    uploads: Uploads
    workers: Workers

    def bucket(self, request: Request) -> Bucket:
        """The bucket a request names. Raises NoSuchBucket, AccessDenied, PermanentRedirect."""
        bucket = self.storage.bucket(request.target.bucket)
        self.check_owner(request.headers.get("x-amz-expected-bucket-owner"))
        return bucket

    def check_owner(self, expected: str | None) -> None:
        """That the owner a request expects is ours. Raises AccessDenied."""
        if expected is not None and expected != self.storage.scope.account:
            raise S3Error("AccessDenied", "Access Denied")

    def encryption_of(self, request: Request) -> Encryption | None:
        """How a write's body is to be sealed. Raises InvalidArgument, KMS.NotFoundException, NotImplemented."""
        return encryption.encryption_of(request.headers, self.storage.keys, self.storage.scope)

    def etag_of(self, seal: Seal, sealed: Encryption | None) -> str:
        """The ETag of bytes that were received or copied."""
        return encryption.etag_of(seal.etag, sealed, clock.token_hex(16))

    def owner(self) -> tuple[Node, ...]:
        """The Owner element's content: a canonical user id, made from the account."""
        account = self.storage.scope.account
        return (("ID", hashlib.sha256(account.encode()).hexdigest()), ("DisplayName", account))


def check_encoding_type(request: Request) -> bool:
    """Whether keys in the reply are URL-encoded. Raises InvalidArgument."""
    value = request.parameters.get("encoding-type", "")
    if value not in ("", "url"):
        raise S3Error(
            "InvalidArgument",
            "Invalid Encoding Method specified in Request",
            fields={"ArgumentName": "encoding-type", "ArgumentValue": value},
        )
    return value == "url"


def refuse_null_version(version: str | None) -> None:
    """There is one version of everything, which S3 calls null. Raises NotImplemented for any other."""
    if version not in (None, "null"):
        raise not_implemented("Versioning (VersionId)")
