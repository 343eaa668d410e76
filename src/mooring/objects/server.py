"""The S3 endpoint as an ASGI application: authenticate, find the operation, run its handler, answer; errors as S3's XML.

    edge ──▶ admission ──▶ credentials there? ──▶ signature ──▶ operation ──▶ handler ──▶ reply ──▶ edge

No framework: bodies stream both ways, and every header is ours. Must not know SQLite or files.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from mooring.domain.errors import AuthError, ServiceError
from mooring.kit import clock
from mooring.objects.credentials import CredentialSource
from mooring.objects.errors import S3Error, StorageError
from mooring.objects.exchange import Reply, Request, Stream, headers_of, parameters_of
from mooring.objects.handlers import HANDLERS
from mooring.objects.names import target_of
from mooring.objects.operations import operation_of
from mooring.objects.receiving import BLOCK_BYTES
from mooring.objects.site import Site
from mooring.protocol import forms, sigv4

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_REQUESTS = 256  # in flight; each may hold two blocks
_RETRY_AFTER = {"retry-after": "1"}


class ClientGoneError(Exception):
    """The client closed its connection before the request was over."""


class WireBody:
    """The request's body as ASGI brings it; knows whether it was read to its end."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def blocks(self) -> AsyncIterator[bytes]:
        """Each block once. Raises ClientGoneError."""
        while not self.ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self.ended = not message.get("more_body", False)
            if block := message.get("body", b""):
                yield block


class S3App:
    """See the module."""

    def __init__(self, site: Site, credentials: CredentialSource, clock: clock.Clock) -> None:
        self._site = site
        self._credentials = credentials
        self._clock = clock
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            raise ValueError(f"an ASGI {scope['type']} scope is not served")
        request_id = clock.token_hex(8).upper()
        body = WireBody(receive)
        self._in_flight += 1
        try:
            reply = await self._answer(scope, request_id, body)
            await self._send(scope, request_id, reply, body, receive, send)
        except ClientGoneError:
            logger.debug("request %s: the client went away", request_id)
        finally:
            self._in_flight -= 1

    async def _answer(self, scope: Scope, request_id: str, body: WireBody) -> Reply:
        resource = scope["raw_path"].decode("latin-1")
        try:
            return await self._handle(scope, request_id, body)
        except S3Error as error:
            if error.status == 304:
                return Reply(status=304, headers=error.headers)
            form = forms.s3_error_reply(error.code, error.message, error.status, resource, request_id, error.fields)
            return _of_form(form, error.headers)
        except AuthError as error:
            return _of_form(forms.s3_auth_reply(error, resource, request_id, access_key=_access_key(scope)), {})
        except ServiceError as error:  # of the protocol package: framing of the body
            return _of_form(forms.s3_error_reply(error.code, error.message, 400, resource, request_id), {})
        except StorageError:
            logger.exception("request %s: the storage failed", request_id)
        except ClientGoneError:
            raise
        except Exception:
            logger.exception("request %s failed", request_id)
        text = "We encountered an internal error. Please try again."
        return _of_form(forms.s3_error_reply("InternalError", text, 500, resource, request_id), {})

    async def _handle(self, scope: Scope, request_id: str, body: WireBody) -> Reply:
        if self._in_flight > MAX_REQUESTS:
            raise S3Error("SlowDown", "Please reduce your request rate.", headers=_RETRY_AFTER)
        verifier = self._credentials.verifier
        if verifier is None:
            raise S3Error("ServiceUnavailable", "The server is starting. Please try again.", headers=_RETRY_AFTER)
        head = verifier.check_head(
            method=scope["method"].encode("latin-1"),
            path=scope["raw_path"],
            query=scope["query_string"],
            headers=scope["headers"],
            now_s=self._clock.now_s(),
            services={"s3"},
        )
        sigv4.finish(head, None)  # the payload's digest is declared; whoever reads the body compares it
        headers = headers_of(scope["headers"])
        parameters = parameters_of(scope["query_string"])
        target = target_of(headers.get("host", ""), scope["raw_path"])
        operation = operation_of(scope["method"], target, parameters, headers)
        request = Request(
            id=request_id,
            method=scope["method"],
            target=target,
            parameters=parameters,
            headers=headers,
            head=head,
            body=body.blocks(),
        )
        return await HANDLERS[operation.name](self._site, request)

    async def _send(
        self, scope: Scope, request_id: str, reply: Reply, body: WireBody, receive: Receive, send: Send
    ) -> None:
        headers = {"x-amz-request-id": request_id, "x-amz-id-2": request_id, **reply.headers}
        if reply.status not in (204, 304):
            headers["content-length"] = str(_length(reply))
        if not body.ended and _has_body(scope):
            headers["connection"] = "close"  # what is left of the body is not worth reading
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": raw})
        if isinstance(reply.body, Stream):
            await self._send_stream(reply.body, receive, send)
        else:
            content = b"" if scope["method"] == "HEAD" else reply.body
            await send({"type": "http.response.body", "body": content})

    async def _send_stream(self, stream: Stream, receive: Receive, send: Send) -> None:
        """One block is read ahead while another is being sent; a client that goes away ends it."""
        workers = self._site.workers
        block, at, end = stream.first, stream.start + len(stream.first), stream.start + stream.length
        ahead: asyncio.Future[bytes] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                gone = group.create_task(_until_gone(receive))
                while not gone.done():
                    more = at < end
                    ahead = workers.submit(stream.reader.read, at, min(BLOCK_BYTES, end - at)) if more else None
                    await send({"type": "http.response.body", "body": block, "more_body": more})
                    if ahead is None:
                        break
                    block = await ahead
                    at += len(block)
                gone.cancel()
        finally:
            if ahead is not None:
                await asyncio.wait([ahead])  # the reader has one user at a time
            await workers.run(stream.reader.close)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _length(reply: Reply) -> int:
    if reply.length is not None:
        return reply.length
    return reply.body.length if isinstance(reply.body, Stream) else len(reply.body)


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in scope["headers"]
    )


def _access_key(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            try:
                return sigv4.parse_authorization(value).access_key
            except AuthError:
                return ""
    return ""


def _of_form(form: forms.Reply, headers: MutableMapping[str, str]) -> Reply:
    own = {name.decode("latin-1"): value.decode("latin-1") for name, value in form.headers}
    return Reply(status=form.status, headers={**own, **headers}, body=form.body)
