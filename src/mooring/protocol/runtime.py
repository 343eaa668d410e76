"""The sagemaker-runtime boundary: InvokeEndpoint's path, headers and error replies. Bytes in, bytes out.

Called by the edge and the gateway for every invocation, so it must not know botocore; a test holds `RULES` against
botocore's sagemaker-runtime model. It reads no body.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from mooring.domain import errors
from mooring.protocol import constraints, forms
from mooring.protocol.forms import Reply

_PREFIX = b"/endpoints/"
_SUFFIX = b"/invocations"
_MAX_MESSAGE_CHARS = 2048  # of ModelError's Message and OriginalMessage

_NAME = "^[a-zA-Z0-9](-*[a-zA-Z0-9])*"
_PRINTABLE = "\\A\\S[\\p{Print}]*\\z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Constraints of one request member. `pattern` as the service model writes it, `matches` the same for bytes."""

    member: str  # as in the API
    header: bytes  # lower-case; empty for the name in the path
    max: int
    min: int = 0
    pattern: str
    matches: re.Pattern[bytes]
    sensitive: bool = False

    @property
    def path(self) -> str:
        """The member as violations name it."""
        return self.member[0].lower() + self.member[1:]


def _rule(
    member: str, header: str, limit: int, pattern: str, own: bytes, *, least: int = 0, sensitive: bool = False
) -> Rule:
    return Rule(
        member=member,
        header=header.lower().encode(),
        max=limit,
        min=least,
        pattern=pattern,
        matches=re.compile(own, re.DOTALL),
        sensitive=sensitive,
    )


_ASCII = rb"[\x00-\x7f]*"
_NAME_BYTES = rb"[a-zA-Z0-9](?:-*[a-zA-Z0-9])*"
_PRINT_BYTES = rb"[^ \t\n\x0b\f\r][\x20-\x7e]*"

ENDPOINT_RULE = _rule("EndpointName", "", 63, _NAME, _NAME_BYTES)
RULES: tuple[Rule, ...] = (
    _rule("ContentType", "Content-Type", 1024, "\\p{ASCII}*", _ASCII),
    _rule("Accept", "Accept", 1024, "\\p{ASCII}*", _ASCII),
    _rule("CustomAttributes", "X-Amzn-SageMaker-Custom-Attributes", 1024, "\\p{ASCII}*", _ASCII, sensitive=True),
    _rule("TargetModel", "X-Amzn-SageMaker-Target-Model", 1024, _PRINTABLE, _PRINT_BYTES, least=1),
    _rule("TargetVariant", "X-Amzn-SageMaker-Target-Variant", 63, _NAME, _NAME_BYTES),
    _rule("TargetContainerHostname", "X-Amzn-SageMaker-Target-Container-Hostname", 63, _NAME, _NAME_BYTES),
    _rule("InferenceId", "X-Amzn-SageMaker-Inference-Id", 64, _PRINTABLE, _PRINT_BYTES, least=1),
    _rule("EnableExplanations", "X-Amzn-SageMaker-Enable-Explanations", 64, ".*", rb"[^\n\r]*", least=1),
    _rule(
        "InferenceComponentName",
        "X-Amzn-SageMaker-Inference-Component",
        63,
        "^[a-zA-Z0-9]([\\-a-zA-Z0-9]*[a-zA-Z0-9])?$",
        rb"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?",
    ),
    _rule(
        "SessionId",
        "X-Amzn-SageMaker-Session-Id",
        256,
        "^(NEW_SESSION)$|^[a-zA-Z0-9](-*[a-zA-Z0-9])*$",
        rb"NEW_SESSION|" + _NAME_BYTES,
    ),
    _rule("PrefixAwareId", "X-Amzn-SageMaker-Prefix-Aware-Id", 64, _PRINTABLE, _PRINT_BYTES, least=1),
)
_BY_HEADER: Mapping[bytes, Rule] = {rule.header: rule for rule in RULES}
_ORDER: Mapping[str, int] = {rule.member: index for index, rule in enumerate(RULES)}


class Invocation(NamedTuple):
    """The members of one InvokeEndpoint request but its body; None where the header was not sent."""

    endpoint_name: str
    content_type: bytes | None = None
    accept: bytes | None = None
    custom_attributes: bytes | None = None
    target_model: str | None = None
    target_variant: str | None = None
    target_container_hostname: str | None = None
    inference_id: bytes | None = None
    enable_explanations: bytes | None = None
    inference_component_name: str | None = None
    session_id: bytes | None = None
    prefix_aware_id: bytes | None = None


def endpoint_of(path: bytes) -> bytes | None:
    """The endpoint's name in the path of an InvokeEndpoint request, percent-decoded; None for any other path."""
    if not (path.startswith(_PREFIX) and path.endswith(_SUFFIX)):
        return None
    name = path[len(_PREFIX) : -len(_SUFFIX)]
    if not name or b"/" in name:
        return None
    return unquote_to_bytes(name) if b"%" in name else name


def parse_invocation(endpoint_name: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Invocation:
    """Check every constraint of InvokeEndpoint's members. Header names in any case; the last of a repeated one counts.

    Raises ValidationError that lists all violations.
    """
    found: dict[str, bytes] = {}
    bad: list[tuple[int, str]] = []
    if len(endpoint_name) > 63 or not ENDPOINT_RULE.matches.fullmatch(endpoint_name):
        bad.extend((-1, text) for text in _violations(ENDPOINT_RULE, endpoint_name))
    for name, value in headers:
        rule = _BY_HEADER.get(name) or _BY_HEADER.get(name.lower())
        if rule is None:
            continue
        if not rule.min <= len(value) <= rule.max or not rule.matches.fullmatch(value):
            bad.extend((_ORDER[rule.member], text) for text in _violations(rule, value))
        found[rule.member] = value
    if bad:
        bad.sort(key=lambda item: item[0])
        raise errors.ValidationError(constraints.summary([text for _, text in bad]))
    return _invocation(endpoint_name, found)


def _invocation(endpoint_name: bytes, found: Mapping[str, bytes]) -> Invocation:
    get = found.get
    return Invocation(
        endpoint_name=endpoint_name.decode("ascii"),
        content_type=get("ContentType"),
        accept=get("Accept"),
        custom_attributes=get("CustomAttributes"),
        target_model=_text(get("TargetModel")),
        target_variant=_text(get("TargetVariant")),
        target_container_hostname=_text(get("TargetContainerHostname")),
        inference_id=get("InferenceId"),
        enable_explanations=get("EnableExplanations"),
        inference_component_name=_text(get("InferenceComponentName")),
        session_id=get("SessionId"),
        prefix_aware_id=get("PrefixAwareId"),
    )


def _text(value: bytes | None) -> str | None:
    # TargetModel may start with one byte beyond ASCII; the others are ASCII by their patterns.
    return None if value is None else value.decode("utf-8", "replace")


def _violations(rule: Rule, value: bytes) -> list[str]:
    shown = None if rule.sensitive else value.decode("utf-8", "replace")
    found = []
    if len(value) > rule.max:
        found.append(constraints.violation(rule.path, shown, constraints.max_length(rule.max)))
    if len(value) < rule.min:
        found.append(constraints.violation(rule.path, shown, constraints.min_length(rule.min)))
    if not rule.matches.fullmatch(value):
        found.append(constraints.violation(rule.path, shown, constraints.pattern(rule.pattern)))
    return found


# Replies ------------------------------------------------------------------------------------------------------------
def error_reply(error: errors.ServiceError, request_id: str) -> Reply:
    """A failed invocation as the sagemaker-runtime client reads it (hosting.md sections 5.3 to 5.5)."""
    if isinstance(error, errors.ModelError):
        return forms.rest_json_reply(error, request_id, _model_error(error))
    return forms.rest_json_reply(error, request_id)


def _model_error(error: errors.ModelError) -> dict[str, object]:
    by_client = 400 <= error.original_status_code < 500
    return {
        "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if by_client else "INTERNAL_FAILURE_FROM_MODEL",
        "LogStreamArn": error.log_stream_arn,
        "Message": error.message[:_MAX_MESSAGE_CHARS],
        "OriginalMessage": error.original_message[:_MAX_MESSAGE_CHARS],
        "OriginalStatusCode": error.original_status_code,
    }


def too_large_reply(limit_bytes: int, request_id: str) -> Reply:
    """A body over the limit: plain text, no error type, as the real service answers (hosting.md section 5.2)."""
    return Reply(
        status=413,
        headers=((b"content-type", b"text/plain"), (b"x-amzn-requestid", request_id.encode())),
        body=b"HTTP content length exceeded %d bytes." % limit_bytes,
    )
