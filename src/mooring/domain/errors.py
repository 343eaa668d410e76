"""Errors that a caller of the API gets, named by their AWS codes. No HTTP here: protocol.serialize knows status and form.

Family 1 of the three (style): `ServiceError` for callers; `DriverError`, `InvokeError`, `StoreError` live beside their
seams; bugs are everything else.
"""


class ServiceError(Exception):
    """An answer to the caller that is an error. `code` is AWS's code; `str(error)` is the message the caller reads."""

    code = "InternalFailure"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# Control plane -------------------------------------------------------------------------------------------------------
class ValidationException(ServiceError):
    """Bad input, and missing or duplicate models, endpoint configs and endpoints (hosting.md section 0)."""

    code = "ValidationException"


class ResourceNotFound(ServiceError):
    """A newer resource (transform job, recommender job, tags of ...) does not exist."""

    code = "ResourceNotFound"


class ResourceInUse(ServiceError):
    """A newer resource exists already or is busy."""

    code = "ResourceInUse"


class ResourceLimitExceeded(ServiceError):
    """A quota is used up."""

    code = "ResourceLimitExceeded"


class ConflictException(ServiceError):
    """Two writers met."""

    code = "ConflictException"


class UnknownOperationException(ServiceError):
    """No such operation, or one that this server does not offer (the message says which)."""

    code = "UnknownOperationException"


class SerializationException(ServiceError):
    """The body is not of the wire form: broken JSON, wrong type."""

    code = "SerializationException"


# Identity ------------------------------------------------------------------------------------------------------------
class AuthError(ServiceError):
    """The request is not from whom it says it is; each protocol has its own form (protocol.serialize)."""


class MissingAuthenticationToken(AuthError):
    """No signature at all."""

    code = "MissingAuthenticationTokenException"


class IncompleteSignature(AuthError):
    """The Authorization header cannot be read."""

    code = "IncompleteSignatureException"


class UnrecognizedClient(AuthError):
    """Unknown access key (S3: InvalidAccessKeyId; STS, IAM: InvalidClientTokenId)."""

    code = "UnrecognizedClientException"


class InvalidSignature(AuthError):
    """The signature does not match, or its date or scope is off (S3, STS, IAM: SignatureDoesNotMatch)."""

    code = "InvalidSignatureException"


class RequestExpired(AuthError):
    """Signed too long ago or in the future (S3: RequestTimeTooSkewed; else InvalidSignatureException's form)."""

    code = "InvalidSignatureException"


class InvalidToken(UnrecognizedClient):
    """A session token that we did not issue (S3: InvalidToken)."""


class WrongRegion(InvalidSignature):
    """Signed for a region that is not served (S3: AuthorizationHeaderMalformed)."""

    def __init__(self, message: str, *, given: str, expected: str) -> None:
        super().__init__(message)
        self.given = given
        self.expected = expected


class HeadersNotSigned(InvalidSignature):
    """Headers that must be signed are not (S3: AccessDenied naming them). `names` are lower-case."""

    def __init__(self, message: str, *, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


class PayloadNotDeclared(IncompleteSignature):
    """S3 only: x-amz-content-sha256 is missing or not one of its forms (S3: InvalidRequest)."""


class PresignedNotOffered(IncompleteSignature):
    """Signed in the query string (S3: NotImplemented)."""


class ExpiredToken(AuthError):
    """A session token is past its expiry."""

    code = "ExpiredTokenException"


class AccessDenied(ServiceError):
    """Known caller, not allowed."""

    code = "AccessDeniedException"


# Runtime (sagemaker-runtime) -----------------------------------------------------------------------------------------
class ValidationError(ServiceError):
    """The runtime's bad request: unknown endpoint or variant, bad header. Note: *Error*, not *Exception*."""

    code = "ValidationError"


class ModelError(ServiceError):
    """The container answered non-2xx, timed out or was unreachable (HTTP 424)."""

    code = "ModelError"

    def __init__(self, message: str, *, original_status_code: int, original_message: str, log_stream_arn: str) -> None:
        super().__init__(message)
        self.original_status_code = original_status_code
        self.original_message = original_message
        self.log_stream_arn = log_stream_arn


class ServiceUnavailable(ServiceError):
    """Nothing ran, try again (HTTP 503; SDKs do)."""

    code = "ServiceUnavailable"


class InternalFailure(ServiceError):
    """A bug on our side (HTTP 500)."""

    code = "InternalFailure"
