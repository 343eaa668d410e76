"""Hands a request to a sibling process (control, S3) over its Unix socket and its answer back, streamed both ways.

    client ─▶ Connection ─▶ Forward ─▶ Upstream ─▶ control.sock | s3.sock
      ◀─ back-pressure: either side that cannot take more stops the other from being read ─▶

Field values and the target go over byte for byte, since they are signed; what belongs to one hop is dropped and the body
framed anew. A sibling may answer before it has the whole body, and go: what it said is the answer, the rest of the body
is thrown away. Called by edge.worker. Must not know what the request means.
"""

import asyncio
import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass

from mooring.domain import errors
from mooring.invoke import pool
from mooring.kit import tasks
from mooring.net import dial, wire
from mooring.net.connection import Connection
from mooring.net.request import REFUSED, Exchange, Request
from mooring.net.upstream import Upstream
from mooring.protocol import forms

_UNREACHABLE = "The service is not reachable right now. Try again."
_QUIET_AFTER_S = 0.25
_ONE_WRITE_BYTES = 16 << 10
_EARLY_BYTES = 256 << 10  # of a body that came before there was a connection to send it on
_UNWANTED_BYTES = 64 << 20  # of a body that came after its answer had begun

Unavailable = Callable[[Request, str], forms.Reply]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiblingLimits:
    """Bounds of one sibling."""

    connections: int = 256
    idle_connections: int = 32
    idle_timeout_s: float = 4.0  # below uvicorn's 5 s, so that the one who closes is we
    connect_timeout_s: float = 5.0


class Sibling:
    """One process beside ours: its socket, its idle connections."""

    def __init__(
        self,
        path: str,
        *,
        unavailable: Unavailable,
        next_id: Callable[[], str],
        group: tasks.Group,
        limits: SiblingLimits,
    ) -> None:
        self._address = f"unix:{path}"
        self._unavailable = unavailable
        self._next_id = next_id
        self._tasks = group
        self._limits = limits
        self._idle: list[Upstream] = []
        self._open = 0

    def begin(self, connection: Connection, request: Request) -> Exchange:
        """Forward a request; over the bound of connections it is answered 503."""
        if not self._idle and self._open >= self._limits.connections:
            self.refuse(connection, request)
            return REFUSED
        return Forward(self, connection, request)

    def refuse(self, connection: Connection, request: Request) -> None:
        """Answer 503 in the form of the service that was asked."""
        reply = self._unavailable(request, self._next_id())
        fields = b"".join([b"%b: %b\r\n" % field for field in reply.headers])
        connection.reply(reply.status, fields, b"" if request.method == b"HEAD" else reply.body)

    def take(self) -> Upstream | None:
        """An idle connection whose peer has not gone."""
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            upstream = self._idle.pop()
            stale = now_s - upstream.idle_since_s
            if (
                upstream.usable()
                and stale < self._limits.idle_timeout_s
                and (stale < _QUIET_AFTER_S or upstream.quiet())
            ):
                upstream.reused = True
                return upstream
            upstream.close()
        return None

    def give(self, upstream: Upstream) -> None:
        """Back after a whole answer to a whole request."""
        if not upstream.keep or len(self._idle) >= self._limits.idle_connections:
            upstream.close()
            return
        upstream.idle_since_s = asyncio.get_running_loop().time()
        self._idle.append(upstream)

    def connect(self, forward: "Forward") -> None:
        """Connect for `forward`, in a task."""
        self._open += 1
        self._tasks.start("connect", self._connect(forward))

    def close(self) -> None:
        """Close idle connections."""
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.close()

    async def _connect(self, forward: "Forward") -> None:
        try:
            upstream = await pool.open_upstream(self._address, self._gone, timeout_s=self._limits.connect_timeout_s)
        except dial.ConnectError:
            self._open -= 1
            forward.unreachable()
            return
        except BaseException:
            self._open -= 1
            raise
        if not forward.connected(upstream):
            self.give(upstream)

    def _gone(self, upstream: Upstream) -> None:
        self._open -= 1
        with contextlib.suppress(ValueError):
            self._idle.remove(upstream)


class Forward:
    """One forwarded request: an Exchange of the client, a Sink of the sibling."""

    __slots__ = (
        "_answering",
        "_chunked_answer",
        "_connection",
        "_done",
        "_early",
        "_early_size",
        "_request",
        "_sent",
        "_sibling",
        "_unwanted",
        "_upstream",
        "_whole",
    )

    def __init__(self, sibling: Sibling, connection: Connection, request: Request) -> None:
        self._sibling = sibling
        self._connection = connection
        self._request = request
        self._upstream: Upstream | None = None
        self._early: list[bytes] = [_request_head(request)]  # what to send once connected; kept while it may be resent
        self._early_size = len(self._early[0])
        self._sent = 0
        self._whole = False  # the request is complete, and its answer had not begun before
        self._unwanted = 0
        self._answering = False
        self._chunked_answer = False
        self._done = False
        upstream = sibling.take()
        if upstream is not None:
            self._use(upstream)
        else:
            sibling.connect(self)

    # Exchange: the client ----------------------------------------------------------------------------------------
    def body(self, data: bytes) -> None:
        """More of the body."""
        self._pass(wire.chunk(data) if self._request.chunked else data)

    def end(self) -> None:
        """The body is complete."""
        if self._answering:
            return
        self._whole = True
        if self._request.chunked:
            self._pass(wire.LAST_CHUNK)

    def abort(self) -> None:
        """The client is gone."""
        self._finish(keep=False)

    def pause(self) -> None:
        """The client reads slowly."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """The client caught up."""
        if self._upstream is not None:
            self._upstream.resume()

    # the sibling's connection ------------------------------------------------------------------------------------
    def connected(self, upstream: Upstream) -> bool:
        """A fresh connection; False when it is no longer wanted."""
        if self._done:
            return False
        self._use(upstream)
        return True

    def unreachable(self) -> None:
        """Nobody listens."""
        if not self._done:
            self._finish(keep=False)
            self._sibling.refuse(self._connection, self._request)

    # Sink: the sibling -------------------------------------------------------------------------------------------
    def answered(self, upstream: Upstream, *, ended: bool) -> None:
        """A part of the answer."""
        connection = self._connection
        pieces = []
        if not self._answering:
            self._answering = True
            pieces.append(self._answer_head(upstream))
            if not self._whole:
                connection.release()  # a client that sends before it reads must get rid of its body
        for part in upstream.take():
            pieces.append(wire.chunk(part) if self._chunked_answer else part)
        if ended and self._chunked_answer:
            pieces.append(wire.LAST_CHUNK)
        if pieces:
            connection.send(b"".join(pieces))
        if ended:
            self._finish(keep=self._whole)
            connection.finish()
        elif connection.paused:
            upstream.pause()

    def informed(self, status: int) -> None:
        """Pass on the leave to send the body."""
        if status == 100 and self._request.expects_continue and not self._answering:
            self._connection.send_continue()

    def lost(self, upstream: Upstream, error: Exception | None) -> None:
        """The sibling went before its answer was whole."""
        self._upstream = None
        if self._undelivered(upstream, error):
            self._sibling.connect(self)
        elif upstream.hear_out(self):
            return
        elif self._answering:
            self._finish(keep=False)
            self._connection.sever()
        else:
            self._finish(keep=False)
            self._sibling.refuse(self._connection, self._request)

    def upstream_pause(self) -> None:
        """The sibling reads slowly."""
        if not self._answering:
            self._connection.hold()

    def upstream_resume(self) -> None:
        """It caught up."""
        if not self._answering:
            self._connection.release()

    # inside ------------------------------------------------------------------------------------------------------
    def _use(self, upstream: Upstream) -> None:
        self._upstream = upstream
        upstream.begin(self, no_body=self._request.method == b"HEAD")
        early = self._early
        if self._early_size > _ONE_WRITE_BYTES:
            self._early = []
        self._sent += 1
        if not self._whole:
            self._connection.release()  # before send(), which may ask to hold again
        upstream.send(b"".join(early))

    def _pass(self, data: bytes) -> None:
        if self._done:
            return
        if self._answering:
            self._unwanted += len(data)
            if self._unwanted > _UNWANTED_BYTES:
                self._connection.hold()  # until the answer is whole
            return
        if self._upstream is None:
            self._early.append(data)
            self._early_size += len(data)
            if self._early_size > _EARLY_BYTES:
                self._connection.hold()
            return
        self._sent += 1
        self._early = []
        self._upstream.send(data)

    def _undelivered(self, upstream: Upstream, error: Exception | None) -> bool:
        """As for invocations: only a first and only send() that failed with EPIPE proves that nothing arrived."""
        return (
            not upstream.heard
            and upstream.reused
            and self._sent == 1
            and bool(self._early)
            and isinstance(error, OSError)
            and error.errno == errno.EPIPE
        )

    def _answer_head(self, upstream: Upstream) -> bytes:
        request, status = self._request, upstream.status
        dropped = wire.HOP_BY_HOP | wire.connection_options(_field(upstream.fields, b"connection"))
        kept = [(name, value) for name, value in upstream.fields if name not in dropped]
        lines = [wire.status_line(status, upstream.reason)]
        lines += [b"%b: %b\r\n" % field for field in kept]
        unframed = wire.has_body(status, request.method) and _field(kept, b"content-length") is None
        if unframed and request.version_1_1:  # HTTP/1.0: the body ends with the connection
            self._chunked_answer = True
            lines.append(b"Transfer-Encoding: chunked\r\n")
        lines.append(self._connection.head_end())
        return b"".join(lines)

    def _finish(self, *, keep: bool) -> None:
        self._done = True
        self._early = []
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        if keep:
            self._sibling.give(upstream)
        else:
            upstream.close()


def _field(fields: list[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    return next((value for name, value in fields if name == wanted), None)


def _request_head(request: Request) -> bytes:
    dropped = wire.HOP_BY_HOP | wire.connection_options(request.headers.get(b"connection"))
    # Some would name fields that must arrive to hide them from us or from the sibling; those stay.
    dropped -= {b"host", b"content-length", b"authorization"}
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method, request.target)]
    lines += [b"%b: %b\r\n" % field for field in request.headers.items() if field[0] not in dropped]
    if request.chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def unavailable_json(request: Request, request_id: str) -> forms.Reply:
    """503 as the JSON services say it."""
    return forms.rest_json_reply(errors.ServiceUnavailable(_UNREACHABLE), request_id)


def unavailable_s3(request: Request, request_id: str) -> forms.Reply:
    """503 as S3 says it."""
    resource = request.path.decode("utf-8", "replace")
    return forms.s3_error_reply("ServiceUnavailable", _UNREACHABLE, 503, resource, request_id)
