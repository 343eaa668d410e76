"""The control plane's front: every AWS service but S3 and the runtime, on one path.

    POST / → signature's head → body (bounded) → signature → parse → validate → handler → serialize
                     any step may raise a ServiceError ─────────────────────────▶ the protocol's error form

The edge forwards requests here over a Unix socket, with headers and target as the client sent them. Built by `app`, run by
uvicorn. Knows no operation: services come as `Registration`s.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from mooring.api import effects
from mooring.api.services import Registration, ServedService, by_signing_name
from mooring.domain import errors, ids
from mooring.domain.call import Caller, Params
from mooring.kit.clock import Clock, new_id
from mooring.protocol import forms, parse, serialize, sigv4, validate
from mooring.protocol.forms import Reply
from mooring.protocol.model import Operation
from mooring.store.base import StoreError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
MAX_BODIES = 64  # being read at a time: bounds what unproven clients can make us hold
BODY_TIMEOUT_S = 60.0


class RequestEntityTooLarge(errors.ServiceError):
    """More than MAX_BODY_BYTES."""

    code = "RequestEntityTooLargeException"


class RequestTimeout(errors.ServiceError):
    """The body did not come in time."""

    code = "RequestTimeoutException"


# Statuses of what only this front raises; all others are the protocol's.
_STATUS = {RequestEntityTooLarge.code: 413, RequestTimeout.code: 408}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A request's lines as far as they are known before it is authenticated."""

    request: Request
    request_id: str
    served: ServedService | None

    @property
    def protocol(self) -> str:
        """For the form of errors; a guess where the signature names no service."""
        if self.served is not None:
            return self.served.protocol
        form = self.request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        return "query" if form and "x-amz-target" not in self.request.headers else "json"


class AwsApi:
    """An ASGI application."""

    def __init__(
        self,
        *,
        registrations: Sequence[Registration],
        verifier: Callable[[], sigv4.Verifier],
        clock: Clock,
        region: str,
        drop_member: str | None,
    ) -> None:
        self._services = by_signing_name(registrations)
        self._verifier = verifier
        self._clock = clock
        self._region = region
        self._drop_member = drop_member
        self._bodies = asyncio.Semaphore(MAX_BODIES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        call = _Call(request=request, request_id=new_id(), served=self._claimed_service(request))
        try:
            reply = await self._answer(call)
        except ClientDisconnect:
            logger.debug("request %s: the client went away", call.request_id)
            return
        except errors.ServiceError as error:
            reply = _error_reply(call, error)
        except StoreError as error:
            reply = _error_reply(call, _for_caller(error, call.request_id))
        except Exception:
            logger.exception("request %s failed", call.request_id)
            reply = _error_reply(call, _internal_failure(call.request_id))
        response = Response(reply.body, status_code=reply.status)
        response.raw_headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
        await response(scope, receive, send)

    def _claimed_service(self, request: Request) -> ServedService | None:
        header = request.headers.get("authorization")
        if header is None:
            return None
        try:
            claim = sigv4.parse_authorization(header.encode("latin-1"))
        except errors.AuthError:
            return None
        return self._services.get(claim.service)

    async def _answer(self, call: _Call) -> Reply:
        caller, body = await self._authenticate(call)
        served = call.served
        assert served is not None, "the signature's service was checked to be one of ours"
        _check_target(call.request)
        operation = served.operation(call.request.headers.get("x-amz-target", ""), body)
        params = self._members(operation, body)
        output = await served.handler(operation)(caller, params)
        logger.info("request %s: %s by %s", call.request_id, operation.name, caller.arn)
        return _success(operation, output, call.request_id)

    async def _authenticate(self, call: _Call) -> tuple[Caller, bytes]:
        """The proven caller, and the body that the signature covers. What can be refused before the body is, is."""
        scope = call.request.scope
        verifier = self._verifier()
        head = verifier.check_head(
            method=call.request.method.encode("latin-1"),
            path=scope.get("raw_path") or scope["path"].encode(),
            query=scope["query_string"],
            headers=scope["headers"],
            now_s=self._clock.now_s(),
            services=self._services.keys(),
        )
        async with self._bodies:
            body = await _read_body(call.request)
        identity = verifier.finish(head, hashlib.sha256(body).hexdigest())
        caller = Caller(
            scope=ids.Scope(account=identity.account, region=self._region),
            access_key=identity.access_key,
            arn=identity.arn,
            request_id=call.request_id,
        )
        return caller, body

    def _members(self, operation: Operation, body: bytes) -> Params:
        params = (
            parse.parse_query(operation, body)
            if operation.protocol == "query"
            else parse.parse_json(operation, body or b"{}")
        )
        if self._drop_member is not None:
            name, _, path = self._drop_member.partition(".")
            if name == operation.name and path:
                params = effects.drop(params, path)
        validate.validate(operation, params)
        return params


def build_app(
    *,
    registrations: Sequence[Registration],
    verifier: Callable[[], sigv4.Verifier],
    clock: Clock,
    region: str,
    routes: Sequence[BaseRoute] = (),
    drop_member: str | None = None,
) -> ASGIApp:
    """The application of the control process. `verifier` gives the one for the credentials of now; `routes` (health,
    metrics, console) come first; `drop_member` is the test-only switch of `effects`.
    """
    api = AwsApi(registrations=registrations, verifier=verifier, clock=clock, region=region, drop_member=drop_member)
    return Starlette(routes=[*routes, Mount("/", app=api)])


def _check_target(request: Request) -> None:
    path: str = request.scope["path"]
    if request.method != "POST" or path != "/":
        raise errors.UnknownOperationException(
            f"No operation of this server has the target {request.method} {path[:128]}."
        )


async def _read_body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                parts.append(part)
    except TimeoutError:
        raise RequestTimeout(f"The body was not received within {BODY_TIMEOUT_S:g} seconds.") from None
    return b"".join(parts)


def _too_large() -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"The request is longer than {MAX_BODY_BYTES} bytes.")


def _success(operation: Operation, output: Params, request_id: str) -> Reply:
    query = operation.protocol == "query"
    return Reply(
        status=200,
        headers=(
            (b"content-type", b"text/xml" if query else forms.JSON_1_1),
            (b"x-amzn-requestid", request_id.encode()),
        ),
        body=(
            serialize.serialize_query(operation, output, request_id)
            if query
            else serialize.serialize_json(operation, output)
        ),
    )


def _error_reply(call: _Call, error: errors.ServiceError) -> Reply:
    logger.info("request %s refused: %s", call.request_id, error.code)
    namespace = call.served.model.namespace if call.served is not None else ""
    reply = serialize.error_reply(call.protocol, error, call.request_id, namespace=namespace)
    status = _STATUS.get(error.code)
    if status is None:
        return reply
    # The rest of the body is not read: the connection cannot be used again.
    return replace(reply, status=status, headers=(*reply.headers, (b"connection", b"close")))


def _for_caller(error: StoreError, request_id: str) -> errors.ServiceError:
    if not error.retryable:
        logger.error("request %s: the store failed", request_id, exc_info=error)
        return _internal_failure(request_id)
    logger.warning("request %s: %s", request_id, error)
    return errors.ServiceUnavailable(f"The server cannot read or write its state at the moment: {error}.")


def _internal_failure(request_id: str) -> errors.InternalFailure:
    return errors.InternalFailure(
        f"The request failed because of an error of this server; its log has more under request id {request_id}."
    )
