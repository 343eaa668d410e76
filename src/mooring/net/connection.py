"""One client's connection, HTTP/1.1: its state, its parser, its answers. No task, future or await per request.

    bytes ─httptools─▶ Request head ─route()─▶ Exchange ◀─ body(), end(), abort(), pause(), resume()
                                                  └─▶ Connection.send(), reply(), finish()

         ┌──────────── finish(), keep-alive ─────────────┐
         ▼                                               │
       IDLE ──head──▶ EXCHANGE ──────── finish() ────────┤
                          │                              ├─▶ closed          (request read, Connection: close)
                          └─ abort() when the client goes└─▶ LINGER ─▶ closed (answered before its body was read)

One exchange at a time: bytes that a client pipelines behind a request are parsed, kept (at most one read of the socket)
and replayed afterwards. Made by net.server; spoken to by exchanges. Must not know what a request means.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from mooring.net import wire
from mooring.net.request import REFUSED, SINGLE, Exchange, Request, judge, unreadable

if TYPE_CHECKING:
    from mooring.net.server import Server

_IDLE, _EXCHANGE, _LINGER, _CLOSED = range(4)
TOGETHER_BYTES = 16 << 10
_MAX_PIPELINED = 64  # events kept of pipelined requests; more is no client of ours
_REPEATED: Final = 1 << 30  # fields: more than any head has; a field that may come once came again


class Connection(asyncio.Protocol):
    """One client. See the module."""

    __slots__ = (
        "_begun",
        "_between",
        "_close",
        "_early",
        "_exchange",
        "_fed",
        "_feed",
        "_fields",
        "_headers",
        "_held",
        "_kept",
        "_lingered",
        "_parser",
        "_paused",
        "_queue",
        "_reading",
        "_request_read",
        "_server",
        "_state",
        "_target",
        "_tick",
        "_trailer",
        "_transport",
        "memory",
        "whole",
    )

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)  # set by connection_made, before all else
        self._parser = httptools.HttpRequestParser(self)
        self._feed = self._parser.feed_data
        self._state = _IDLE
        self._between = True  # the parser is at the end of a request: no byte of another came yet
        self.memory: object = None  # free for whoever answers: what is worth knowing of this client
        self.whole = b""  # while its last byte is parsed: a request that came in one read or two, and whatever follows
        self._kept = b""  # a head that was not given to the parser, for it may be known with its body
        self._exchange: Exchange = REFUSED
        self._headers: dict[bytes, bytes] = {}
        self._target = b""
        self._fields = 0
        self._fed = 0  # bytes fed since the last head was complete, while no body is open
        self._trailer = False
        self._request_read = True
        self._close = False
        self._begun = False  # a part of the answer was sent
        self._held = False  # an exchange asked not to be fed
        self._early = False  # the client sent more before it was answered: it is not read meanwhile
        self._reading = True
        self._paused = False  # the transport asked not to be written to
        self._lingered = 0
        self._tick = server.tick
        self._queue: deque[Request | bytes | None] | None = None

    # the loop's side ---------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._server.limits.write_buffer_bytes)
        self._server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went, or we closed."""
        state, self._state = self._state, _CLOSED
        self._server.connections.discard(self)
        exchange, self._exchange = self._exchange, REFUSED
        self._queue = None
        if state == _EXCHANGE:
            exchange.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._tick = self._server.tick
        if self._state == _IDLE:
            if self._between and self._queue is None:
                if self.memory is not None:
                    kept, self._kept = self._kept, b""
                    data = kept + data if kept else data
                    known = self._server.recall(self, data)
                    if known:
                        return
                    if known is None and not kept:
                        self._kept = data
                        return
                self.whole = data
        elif self._state == _LINGER:
            self._lingered += len(data)
            if self._lingered > self._server.limits.linger_bytes:
                self._transport.abort()
                return
        elif self.whole:
            self.whole = self.whole + data if len(data) <= TOGETHER_BYTES else b""
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._request_read:
            self._fed += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade:
            self._close = True  # the request itself was taken; we never switch protocols
        except httptools.HttpParserError as error:
            self.whole = b""
            self._garbage(str(error))
            return
        if self._between or len(self.whole) > TOGETHER_BYTES:
            self.whole = b""
        if self._fed and self._request_read:
            if self._state == _EXCHANGE:
                self._early = True
                self._update_reading()
            elif self._state == _IDLE and self._fed > self._server.limits.head_bytes:
                self.refuse(431, b"The request's head is over the limit.")

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._paused = True
        self._tick = self._server.tick
        self._exchange.pause()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._paused = False
        self._exchange.resume()

    # the parser's side -------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._between = False

    def on_url(self, url: bytes) -> None:
        """The request's target, perhaps in parts."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head, or a trailer (dropped: nothing we serve uses any)."""
        self._fields += 1
        if self._trailer:
            return
        name = name.lower()
        headers = self._headers
        if name in headers:
            if name in SINGLE:
                self._fields = _REPEATED  # refused when the head is complete
                return
            headers[name] = headers[name].rstrip() + b"," + value.strip()
        else:
            headers[name] = value

    def on_headers_complete(self) -> None:
        """A whole head: begin its exchange, or queue it behind the one that runs."""
        if self._state >= _LINGER:
            return
        request = Request(self._parser.get_method(), self._target, self._headers)
        fed, fields = self._fed, self._fields
        self._target, self._headers = b"", {}
        self._fields = self._fed = 0
        self._trailer = True
        request.keep_alive = self._parser.should_keep_alive()
        fault = self._fault(request, fed, fields)
        if self._state == _EXCHANGE:
            if self._queue is None:
                self._queue = deque()
            if fault is not None:
                self._close = True  # answer what was asked before it, and go
            self._enqueue(request)
            return
        if fault is not None:
            self._request_read = False
            self.refuse(*fault)
            return
        self._begin(request)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self._queue is not None:
            self._enqueue(data)
        elif self._state == _EXCHANGE:
            self._exchange.body(data)

    def on_message_complete(self) -> None:
        """The end of a request."""
        self._trailer = False
        self._between = True
        self._fields = self._fed = 0
        if self._queue is not None:
            self._enqueue(None)
            return
        self._request_read = True
        if self._state == _EXCHANGE:
            self._exchange.end()
        elif self._state == _LINGER:
            self._shut()

    # the exchange's side -----------------------------------------------------------------------------------------
    @property
    def paused(self) -> bool:
        """The client reads slowly right now."""
        return self._paused

    def begin(self, exchange: Exchange) -> None:
        """Within `Server.recall`: the read was one whole request, and this exchange has its body."""
        self._state = _EXCHANGE
        self._exchange = exchange

    def closing(self) -> bool:
        """Whether this answer is the connection's last: its head must then say `Connection: close`."""
        if self._server.draining or not self._request_read:
            self._close = True
        return self._close

    def head_end(self) -> bytes:
        """What closes an answer's head: the Connection field where one is due, and the empty line."""
        return b"Connection: close\r\n\r\n" if self.closing() else b"\r\n"

    def send(self, data: bytes) -> None:
        """Bytes of an answer, head and framing included."""
        self._begun = True
        self._transport.write(data)

    def send_continue(self) -> None:
        """The client may send its body (RFC 9110 section 10.1.1)."""
        self._transport.write(wire.CONTINUE)

    def hold(self) -> None:
        """Read no more of this request's body for now."""
        self._held = True
        self._update_reading()

    def release(self) -> None:
        """Read on."""
        self._held = False
        self._tick = self._server.tick
        self._update_reading()

    def reply(self, status: int, fields: bytes, payload: bytes) -> None:
        """A whole answer: `fields` are complete lines of a head; length, date and connection are added."""
        line = wire.STATUS_LINES.get(status) or wire.status_line(status)
        length, date = b"Content-Length: %d\r\n" % len(payload), self._server.date
        if self.closing() or self._state != _EXCHANGE or self._queue is not None or not self._reading:
            self._begun = True
            self._transport.write(b"".join((line, date, fields, length, self.head_end(), payload)))
            self.finish()
        else:
            self._transport.write(b"".join((line, date, fields, length, b"\r\n", payload)))
            self._state = _IDLE  # what finish() comes to when nothing else is to be done
            self._exchange = REFUSED

    def refuse(self, status: int, text: bytes) -> None:
        """A plain-text answer after which the connection is closed."""
        self._close = True
        self._state = _EXCHANGE
        self._exchange = REFUSED
        self.reply(status, b"Content-Type: text/plain; charset=utf-8\r\n", text)

    def finish(self) -> None:
        """The answer is complete."""
        if self._state != _EXCHANGE:
            return
        self._exchange = REFUSED
        self._begun = False
        closing = self.closing()
        if not self._request_read:
            # Closing now would reset a client that is still sending, and lose our answer: read on, within bounds.
            self._state = _LINGER
            self._tick = self._server.tick
        elif closing:
            self._shut()
            return
        else:
            self._state = _IDLE
            if self._queue is not None:
                asyncio.get_running_loop().call_soon(self._replay)
                return
        if not self._reading:
            self._held = self._early = False
            self._update_reading()

    def sever(self) -> None:
        """Break the connection in the middle of an answer, so that the client sees it is not whole."""
        self._state = _CLOSED
        self._exchange = REFUSED
        self._transport.abort()

    # the server's side -------------------------------------------------------------------------------------------
    def sweep(self, tick: int) -> None:
        """Once a second: close what stands still."""
        if self._kept:  # its body did not follow at once
            kept, self._kept = self._kept, b""
            self._parse(kept)
        limits, quiet = self._server.limits, tick - self._tick
        if self._state == _EXCHANGE:
            stalled = self._paused or not (self._request_read or self._held)
            if stalled and quiet > limits.stall_timeout_s:
                exchange = self._exchange
                self.sever()
                exchange.abort()
        elif self._state == _LINGER:
            if quiet > limits.linger_timeout_s:
                self._shut()
        elif self._state == _IDLE:
            started = self._fed > 0 or not self._between
            if started and quiet > limits.head_timeout_s:
                self.refuse(408, b"The request's head took too long.")
            elif quiet > limits.idle_timeout_s or (self._server.draining and not started):
                self._shut()

    @property
    def busy(self) -> bool:
        """An answer is owed."""
        return self._state == _EXCHANGE

    # inside ------------------------------------------------------------------------------------------------------
    def _begin(self, request: Request) -> None:
        self._state = _EXCHANGE
        self._request_read = not (request.length or request.chunked)
        if not request.keep_alive or not request.version_1_1:
            self._close = True
        exchange = self._server.route(self, request)
        if self._state == _EXCHANGE:
            self._exchange = exchange

    def _fault(self, request: Request, fed: int, fields: int) -> tuple[int, bytes] | None:
        limits, parser = self._server.limits, self._parser
        if fed > limits.head_bytes and request.head_bytes() > limits.head_bytes:
            return 431, b"The request's head is over the limit."
        if limits.head_fields < fields < _REPEATED:
            return 431, b"The request has too many fields."
        return judge(
            request,
            version=parser.get_http_version(),
            switches=parser.should_upgrade(),
            repeated=fields >= _REPEATED,
        )

    def _garbage(self, reason: str) -> None:
        if self._state == _EXCHANGE and self._request_read:
            self._close = self._early = True  # what was asked is answered; what follows it is not read
            self._update_reading()
            return
        if self._state == _EXCHANGE:
            exchange, self._exchange = self._exchange, REFUSED
            exchange.abort()
            if self._begun:
                self.sever()
                return
        if self._state in (_IDLE, _EXCHANGE):
            self._request_read = True
            self.refuse(400, unreadable(reason))
        else:
            self._shut()

    def _enqueue(self, event: Request | bytes | None) -> None:
        queue = self._queue
        if queue is None:
            return
        if len(queue) >= _MAX_PIPELINED:
            self.sever_with_exchange()
            return
        queue.append(event)
        self._update_reading()

    def sever_with_exchange(self) -> None:
        """Break the connection and tell the exchange."""
        exchange, busy = self._exchange, self._state == _EXCHANGE
        self.sever()
        if busy:
            exchange.abort()

    def _replay(self) -> None:
        """Carry out the next pipelined request, which was parsed while another was answered."""
        queue = self._queue
        while queue and self._state < _LINGER:
            event = queue.popleft()
            if isinstance(event, Request):
                if self._state == _EXCHANGE:
                    queue.appendleft(event)  # the one before is not answered yet
                    return
                self._begin(event)
            elif self._state != _EXCHANGE:
                continue
            elif event is None:
                self._request_read = True
                self._exchange.end()
            else:
                self._exchange.body(event)
        if not queue:
            self._queue = None
            self._early = self._state == _EXCHANGE and self._request_read
            self._update_reading()

    def _update_reading(self) -> None:
        wanted = not self._held and not self._early and self._queue is None
        if wanted == self._reading or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _shut(self) -> None:
        self._state = _CLOSED
        self._transport.close()
