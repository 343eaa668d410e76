"""The S3 endpoint as an ASGI application: authenticate, find the operation, run its handler, answer; errors as S3's XML.

    edge ──▶ admission ──▶ credentials there? ──▶ signature ──▶ operation ──▶ handler ──▶ reply ──▶ edge

No framework: bodies stream both ways, and every header is ours. Must not know SQLite or files.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from mooring.domain.errors import AuthError, ServiceError
from mooring.kit import clock
from mooring.objects.credentials import CredentialSource
from mooring.objects.errors import NoSpaceError, S3Error, StorageError, insufficient_storage
from mooring.objects.exchange import Reply, Request, Stream, headers_of, parameters_of
from mooring.objects.handlers import HANDLERS
from mooring.objects.names import target_of
from mooring.objects.operations import operation_of
from mooring.objects.presigned import check_not_presigned
from mooring.objects.receiving import BLOCK_BYTES
from mooring.objects.site import Site
from mooring.protocol import forms, sigv4

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_REQUESTS = 256  # in flight; each may hold two blocks
_SKIPPED_BYTES = 1 << 20  # cheaper to read than to connect again
_LINGERED_BYTES = 16 << 20  # SDKs send parts of 8 MiB
_DRAIN_S = 2.0
_MAX_LINGERING = 64  # connections that wait to be closed; beyond it they are closed at once
_RETRY_AFTER = {"retry-after": "1"}


class ClientGoneError(Exception):
    """The client closed its connection before the request was over."""


class WireBody:
    """The request's body as ASGI brings it; knows whether it was read to its end, and reads what nobody wanted.

    An answer that comes while the body still does gets lost when the connection is closed over unread bytes: the peer's
    next write fails, and the reset takes the answer with it. Therefore a small body is read to its end before the answer,
    and the connection goes on; behind a large one the connection stays open for a moment after the answer, for the peer
    to read it and close.
    """

    def __init__(self, receive: Receive, headers: list[tuple[bytes, bytes]]) -> None:
        self._receive = receive
        fields = dict(headers)
        length = fields.get(b"content-length", b"")
        self._length = int(length) if length.isdigit() else None
        self._awaits_leave = fields.get(b"expect", b"").lower() == b"100-continue"
        self.ended = self._length == 0 or (self._length is None and b"transfer-encoding" not in fields)

    async def blocks(self) -> AsyncIterator[bytes]:
        """Each block once. Raises ClientGoneError."""
        while not self.ended:
            self._awaits_leave = False  # asking for the body gives it
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self.ended = not message.get("more_body", False)
            if block := message.get("body", b""):
                yield block

    async def skip(self) -> None:
        """Before an answer: read a small body to its end, unless it is slow. Raises ClientGoneError."""
        small = self._length is None or self._length <= _SKIPPED_BYTES
        if small and not self._awaits_leave:
            await self._drain(_SKIPPED_BYTES)

    async def linger(self) -> None:
        """Behind an answer: let the peer read it before the connection is closed."""
        with contextlib.suppress(ClientGoneError):
            await self._drain(_LINGERED_BYTES)

    async def _drain(self, limit: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                async for block in self.blocks():
                    limit -= len(block)
                    if limit < 0:
                        return


class S3App:
    """See the module."""

    def __init__(self, site: Site, credentials: CredentialSource, clock: clock.Clock) -> None:
        self._site = site
        self._credentials = credentials
        self._clock = clock
        self._in_flight = 0
        self._lingering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            raise ValueError(f"an ASGI {scope['type']} scope is not served")
        request_id = clock.token_hex(8).upper()
        body = WireBody(receive, scope["headers"])
        self._in_flight += 1
        try:
            reply = await self._answer(scope, request_id, body)
            if not isinstance(reply.body, Stream):
                await body.skip()
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
            return _of_error(error, resource, request_id)
        except NoSpaceError as error:
            logger.warning("request %s: %s", request_id, error)
            return _of_error(insufficient_storage(), resource, request_id)
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
        check_not_presigned(scope["method"], scope["query_string"], scope["headers"])
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
        if not body.ended:
            headers["connection"] = "close"
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": raw})
        if isinstance(reply.body, Stream):
            await self._send_stream(reply.body, receive, send)
        else:
            content = b"" if scope["method"] == "HEAD" else reply.body
            await send({"type": "http.response.body", "body": content, "more_body": not body.ended})
            if not body.ended:
                await self._linger(body)
                await send({"type": "http.response.body", "body": b""})

    async def _linger(self, body: WireBody) -> None:
        """Holds nothing that other requests need: neither a place among those in flight nor a thread."""
        if self._lingering >= _MAX_LINGERING:
            return
        self._lingering += 1
        self._in_flight -= 1
        try:
            await body.linger()
        finally:
            self._in_flight += 1
            self._lingering -= 1

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


def _access_key(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            try:
                return sigv4.parse_authorization(value).access_key
            except AuthError:
                return ""
    return ""


def _of_error(error: S3Error, resource: str, request_id: str) -> Reply:
    if error.status == 304:
        return Reply(status=304, headers=error.headers)
    form = forms.s3_error_reply(error.code, error.message, error.status, resource, request_id, error.fields)
    return _of_form(form, error.headers)


def _of_form(form: forms.Reply, headers: MutableMapping[str, str]) -> Reply:
    own = {name.decode("latin-1"): value.decode("latin-1") for name, value in form.headers}
    return Reply(status=form.status, headers={**own, **headers}, body=form.body)
