"""What a failed request looks like on the wire, in the form of each AWS protocol; HTTP status of every error code.

Called by `runtime` (edge), `serialize` (control process) and the S3 process. The only place that knows statuses. It must
not know botocore: the edge and the S3 process start without it.

    ServiceError ──▶ json_reply        AWS JSON 1.1   {"__type", "message", "Message"}
                 ──▶ rest_json_reply   REST JSON      x-amzn-errortype + {"__type", "message", "Message"}
                 ──▶ query_reply       query          <ErrorResponse>
                 ──▶ s3_reply          S3             <Error>
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

from mooring.domain import errors

JSON_1_1 = b"application/x-amz-json-1.1"
_ILLEGAL_IN_XML = {code: "\ufffd" for code in range(32) if code not in (9, 10, 13)} | {
    0xFFFE: "\ufffd",
    0xFFFF: "\ufffd",
}
_LONE_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer; whoever sends it adds Content-Length and Date."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


# 400 unless listed. Unsigned and wrongly signed requests get 403 in every protocol.
_STATUS: Mapping[str, int] = {
    "MissingAuthenticationTokenException": 403,
    "IncompleteSignatureException": 403,
    "UnrecognizedClientException": 403,
    "InvalidSignatureException": 403,
    "ExpiredTokenException": 403,
    "AccessDeniedException": 403,
    "ModelError": 424,
    "ModelNotReadyException": 429,
    "InternalFailure": 500,
    "ServiceUnavailable": 503,
    "InternalDependencyException": 530,
}
_JSON_STATUS: Mapping[str, int] = {**_STATUS, "AccessDeniedException": 400}

# The query protocol's own codes for what JSON services call otherwise (Common Errors page of STS and IAM).
_QUERY_CODES: Mapping[str, tuple[str, int]] = {
    "MissingAuthenticationTokenException": ("MissingAuthenticationToken", 403),
    "IncompleteSignatureException": ("IncompleteSignature", 403),
    "UnrecognizedClientException": ("InvalidClientTokenId", 403),
    "InvalidSignatureException": ("SignatureDoesNotMatch", 403),
    "ExpiredTokenException": ("ExpiredToken", 403),
    "AccessDeniedException": ("AccessDenied", 403),
    "ValidationException": ("ValidationError", 400),
    "SerializationException": ("MalformedInput", 400),
    "UnknownOperationException": ("InvalidAction", 400),
    "ResourceNotFound": ("NoSuchEntity", 404),
    "NoSuchEntity": ("NoSuchEntity", 404),
    "InternalFailure": ("InternalFailure", 500),
    "ServiceUnavailable": ("ServiceUnavailable", 503),
}


def status_of(code: str) -> int:
    """HTTP status of an error code in the REST JSON form."""
    return _STATUS.get(code, 400)


def json_bytes(value: object) -> bytes:
    """Compact JSON in UTF-8; what cannot be encoded is replaced, so that an answer is always sent."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.translate(_LONE_SURROGATES).encode()


def xml_text(value: str) -> str:
    """Text of an element: escaped, without the characters that XML cannot hold."""
    return escape(value.translate(_ILLEGAL_IN_XML).translate(_LONE_SURROGATES), {"\r": "&#13;"})


# JSON ---------------------------------------------------------------------------------------------------------------
def json_reply(error: errors.ServiceError, request_id: str) -> Reply:
    """AWS JSON 1.1. Both spellings of the message: typed exceptions read one, untyped the other (hosting.md section 0)."""
    return Reply(
        status=_JSON_STATUS.get(error.code, 400),
        headers=((b"content-type", JSON_1_1), (b"x-amzn-requestid", request_id.encode())),
        body=json_bytes({"__type": error.code, "message": error.message, "Message": error.message}),
    )


def rest_json_reply(error: errors.ServiceError, request_id: str, body: Mapping[str, object] | None = None) -> Reply:
    """REST JSON; `body` replaces the usual members where an error has its own."""
    members = {"__type": error.code, "message": error.message, "Message": error.message} if body is None else body
    return Reply(
        status=status_of(error.code),
        headers=(
            (b"content-type", b"application/json"),
            (b"x-amzn-errortype", error.code.encode()),
            (b"x-amzn-requestid", request_id.encode()),
        ),
        body=json_bytes(members),
    )


# Query --------------------------------------------------------------------------------------------------------------
def query_reply(error: errors.ServiceError, request_id: str, *, namespace: str) -> Reply:
    """The query protocol of STS and IAM. `namespace` is the service's xmlNamespace."""
    code, status = _QUERY_CODES.get(error.code, (error.code, 400))
    fault = "Receiver" if status >= 500 else "Sender"
    message = "Request is missing Authentication Token" if code == "MissingAuthenticationToken" else error.message
    body = (
        f'<ErrorResponse xmlns="{namespace}">\n  <Error>\n    <Type>{fault}</Type>\n    <Code>{xml_text(code)}</Code>\n'
        f"    <Message>{xml_text(message)}</Message>\n  </Error>\n"
        f"  <RequestId>{xml_text(request_id)}</RequestId>\n</ErrorResponse>\n"
    )
    return Reply(
        status=status,
        headers=((b"content-type", b"text/xml"), (b"x-amzn-requestid", request_id.encode())),
        body=body.encode(),
    )


# S3 -----------------------------------------------------------------------------------------------------------------
def s3_error_reply(
    code: str,
    message: str,
    status: int,
    resource: str,
    request_id: str,
    extra: Mapping[str, str] | None = None,
) -> Reply:
    """S3's <Error>. `extra` are further elements, after Message, in the order given."""
    elements = {"Code": code, "Message": message, **(extra or {}), "Resource": resource, "RequestId": request_id}
    inside = "".join(f"<{name}>{xml_text(value)}</{name}>" for name, value in elements.items())
    return Reply(
        status=status,
        headers=((b"content-type", b"application/xml"), (b"x-amz-request-id", request_id.encode())),
        body=f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'.encode(),
    )


def s3_auth_reply(error: errors.AuthError, resource: str, request_id: str, *, access_key: str = "") -> Reply:
    """A refused signature in S3's words. `access_key` is the one that the request named, if it could be read."""
    code, message, status, extra = _s3_auth(error, access_key)
    return s3_error_reply(code, message, status, resource, request_id, extra)


def _s3_auth(error: errors.AuthError, access_key: str) -> tuple[str, str, int, dict[str, str]]:
    match error:
        case errors.MissingAuthenticationToken():
            return "AccessDenied", "Access Denied", 403, {}
        case errors.InvalidToken():
            return "InvalidToken", "The provided token is malformed or otherwise invalid.", 400, {}
        case errors.UnrecognizedClient():
            text = "The AWS Access Key Id you provided does not exist in our records."
            return "InvalidAccessKeyId", text, 403, {"AWSAccessKeyId": access_key}
        case errors.WrongRegion():
            text = (
                f"The authorization header is malformed; the region '{error.given}' is wrong; "
                f"expecting '{error.expected}'"
            )
            return "AuthorizationHeaderMalformed", text, 400, {"Region": error.expected}
        case errors.HeadersNotSigned():
            text = "There were headers present in the request which were not signed"
            return "AccessDenied", text, 403, {"HeadersNotSigned": ", ".join(error.names)}
        case errors.RequestExpired():
            text = "The difference between the request time and the current time is too large."
            return "RequestTimeTooSkewed", text, 403, {"MaxAllowedSkewMilliseconds": "900000"}
        case errors.PayloadNotDeclared():
            return "InvalidRequest", error.message, 400, {}
        case errors.PresignedNotOffered():
            return "NotImplemented", error.message, 501, {}
        case errors.IncompleteSignature():
            return "AuthorizationHeaderMalformed", f"The authorization header is malformed; {error.message}", 400, {}
        case errors.ExpiredToken():
            return "ExpiredToken", "The provided token has expired.", 400, {}
        case _:
            text = (
                "The request signature we calculated does not match the signature you provided. "
                "Check your key and signing method."
            )
            return "SignatureDoesNotMatch", text, 403, {"AWSAccessKeyId": access_key}
