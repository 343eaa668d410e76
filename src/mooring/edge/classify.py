"""Which of the three fronts a request is for, by its head alone. Pure.

    signature's service  s3 ─▶ S3        sagemaker, path of an invocation ─▶ gateway       any other ─▶ control
    no signature         presigned S3, a bucket's host, any path we do not know ─▶ S3      the rest ─▶ control, gateway

Only a route is chosen here: each front checks the signature by itself. Called by edge.worker.
"""

import enum
import re
from typing import Final, NamedTuple

from mooring.net.request import Request


class Front(enum.IntEnum):
    """Who answers."""

    HEALTH = 0
    INVOKE = 1
    CONTROL = 2
    S3 = 3


class Target(NamedTuple):
    """A front; for invocations the endpoint's name as in the path, and the operation when it is not InvokeEndpoint."""

    front: Front
    name: bytes = b""
    operation: str | None = None


HEALTH_PATH: Final = b"/_mooring/health"
_HEALTH, _CONTROL, _S3 = Target(Front.HEALTH), Target(Front.CONTROL), Target(Front.S3)
_PREFIX: Final = b"/endpoints/"
_OPERATIONS: Final[dict[bytes, str | None]] = {
    b"invocations": None,
    b"invocations-response-stream": "InvokeEndpointWithResponseStream",
    b"async-invocations": "InvokeEndpointAsync",
    b"invocations-bidirectional-stream": "InvokeEndpointWithBidirectionalStream",
}
_SCOPE = re.compile(rb"Credential=[^,]*/([^/,]+)/aws4_request")
_QUERY_SCOPE = re.compile(rb"X-Amz-Credential=[^&]*(?:/|%2[Ff])([^/&%]+)(?:/|%2[Ff])aws4_request")
_BUCKET_HOST = re.compile(rb"(?:.+\.)?s3(?:[.-][a-z0-9-]+)?\..+|.+\.localhost", re.IGNORECASE)


def classify(request: Request) -> Target:
    """The front for a request."""
    path, headers = request.path, request.headers
    authorization = headers.get(b"authorization")
    if authorization is not None:
        if path.startswith(_PREFIX) and b"/s3/aws4_request" not in authorization:  # the hot path: no pattern needed
            target = invocation(request.method, path)
            if target is not None:
                return target
        scope = _SCOPE.search(authorization)
        if scope is not None:
            if scope[1] == b"s3":
                return _S3
            return invocation(request.method, path) or _own(request) or _CONTROL
        if authorization.startswith(b"AWS "):
            return _S3  # Signature V2, which only S3 ever took here: its own refusal is the helpful one
    scope = _QUERY_SCOPE.search(request.query)
    if scope is not None:
        return _S3 if scope[1] == b"s3" else _CONTROL
    if _BUCKET_HOST.fullmatch(headers.get(b"host", b"").partition(b":")[0]):
        return _S3
    own = _own(request)
    if own is not None:
        return own
    if b"x-amz-target" in headers or (path == b"/" and request.method == b"POST"):
        return _CONTROL
    return invocation(request.method, path) or _S3


def invocation(method: bytes, path: bytes) -> Target | None:
    """The target when the path is one of sagemaker-runtime's."""
    if not path.startswith(_PREFIX) or method != b"POST":
        return None
    name, _, tail = path[len(_PREFIX) :].partition(b"/")
    if not name or tail not in _OPERATIONS:
        return None
    return Target(Front.INVOKE, name, _OPERATIONS[tail])


def _own(request: Request) -> Target | None:
    if request.path == HEALTH_PATH and request.method in (b"GET", b"HEAD"):
        return _HEALTH
    return _CONTROL if request.path.startswith(b"/_mooring/") else None
