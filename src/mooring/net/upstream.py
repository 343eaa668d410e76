"""The client side of HTTP/1.1: one `Upstream` per socket towards an instance or a sibling process.

    exchange ── send() ─▶ Upstream ─▶ peer
    exchange ◀─ answered(): one call per read of the socket, with what the read held in `status`, `fields`, `parts`
    exchange ◀─ lost(): the peer went, or sent what is not HTTP, before its answer was whole

    IDLE (no exchange) ──begin()──▶ BUSY ──answer whole──▶ IDLE, if `keep`, else closed

An answer ends by its length, its last chunk or, lacking both, by the peer's close. Bytes that follow a whole answer are
nobody's: they close the connection, so that they can never be read as the next answer.

Called by invoke (towards instances) and edge.forward. Must not know what is asked.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from mooring.net import answers

_MAX_HEAD_BYTES = 64 << 10
_MAX_FIELDS = 200
_LAST_WORDS_BYTES = 4 << 20  # more than the kernel holds of what a peer wrote before it went
_READ_BYTES = 64 << 10


class UpstreamError(Exception):
    """The peer answered with something that is not HTTP, or not within our bounds."""


class Sink(Protocol):
    """What a request's sender gives. None may raise or block."""

    def answered(self, upstream: "Upstream", *, ended: bool) -> None:
        """A part of the answer: `upstream.take()` the body's parts; the head is whole. `ended`: so is the answer, and the
        upstream is the caller's to keep (`upstream.keep`) or close.
        """

    def informed(self, status: int) -> None:
        """The peer sent an interim answer (1xx)."""

    def lost(self, upstream: "Upstream", error: Exception | None) -> None:
        """No whole answer will come, but perhaps from `upstream.hear_out`. `upstream.heard`: a byte of one came."""

    def upstream_pause(self) -> None:
        """The peer reads slowly: send no more for now."""

    def upstream_resume(self) -> None:
        """The peer caught up."""


class Upstream(asyncio.Protocol):
    """One connection. See the module."""

    fields: list[tuple[bytes, bytes]]
    head: answers.AnswerHead | None  # set when the answer came whole under a head that is known
    heard: bool  # a byte of an answer has come
    keep: bool  # the connection may be used again
    parts: list[bytes]
    reason: bytes
    send: Callable[[bytes], None]  # bytes of a request; the transport's own method, for one call less
    status: int
    _close_delimited: bool
    _done: bool
    _fed: bool  # the parser was given a byte since begin()
    _fields_seen: int
    _head_bytes: int
    _headless: bool
    _no_body: bool
    _poisoned: bool

    def __init__(self, on_gone: Callable[["Upstream"], None], sock: socket.socket | None = None) -> None:
        self._on_gone = on_gone
        self._socket = sock
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)  # set by connection_made
        self._sink: Sink | None = None
        self._gone = False
        self._new_parser()
        self.reused = False
        self.keep = True
        self.idle_since_s = 0.0
        self._fed = False
        self._reset(no_body=False)

    # the caller's side -------------------------------------------------------------------------------------------
    def begin(self, sink: Sink, *, no_body: bool = False) -> None:
        """The next answer is `sink`'s. `no_body`: it answers a HEAD."""
        self._sink = sink
        if self._fed or no_body or self._no_body:
            self._fed = False
            self._reset(no_body=no_body)
        else:
            self.status = 0

    def send_parts(self, parts: list[bytes]) -> None:
        """Bytes of a request, in parts."""
        self._transport.writelines(parts)

    def take(self) -> list[bytes]:
        """The body's parts that came since the last take."""
        parts, self.parts = self.parts, []
        return parts

    def pause(self) -> None:
        """Read no more of the answer for now."""
        if not self._gone:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self._gone:
            self._transport.resume_reading()

    def usable(self) -> bool:
        """Whether an idle connection still is one, as far as this side knows."""
        return not (self._gone or self._transport.is_closing())

    def quiet(self) -> bool:
        """Ask the kernel: nothing has come on this idle connection, not even its end. One system call."""
        if self._socket is None:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # an end, or bytes that nobody asked for

    def close(self) -> None:
        """Let the connection go; whoever waits on it hears nothing more."""
        self._sink = None
        if not self._gone:
            self._transport.abort()

    def hear_out(self, sink: Sink) -> bool:
        """Within `lost()`: the answer of a peer that went without reading all of the request, as far as it came.

        Our write fails then, and the loop drops the connection with what it has not read yet, though the kernel still
        holds it. True: `sink` was told how the answer ended. False: it was told what there was, and that is not all.
        """
        sock, self._socket = self._socket, None
        if sock is None or self._done:
            return False
        self.keep = False
        self._sink = sink
        for _ in range(_LAST_WORDS_BYTES // _READ_BYTES):
            try:
                data = sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except OSError:
                break
            if not data:
                break
            self.data_received(data)
            if self._told():
                return True
        self._sink = None
        return False

    # the loop's side ---------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)
        self.send = self._transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer went, or we closed."""
        self._gone = True
        sink, self._sink = self._sink, None
        if sink is not None:
            if exc is None and self._close_delimited and not self._headless:
                self.keep = False
                sink.answered(self, ended=True)
            else:
                sink.lost(self, exc)
        self._on_gone(self)

    def eof_received(self) -> bool:
        """The peer ended its side; the transport closes, and connection_lost tells the rest."""
        return False

    def pause_writing(self) -> None:
        """The peer reads slowly."""
        if self._sink is not None:
            self._sink.upstream_pause()

    def resume_writing(self) -> None:
        """The peer caught up."""
        if self._sink is not None:
            self._sink.upstream_resume()

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        sink = self._sink
        if sink is None:
            self._transport.abort()  # nobody asked
            return
        fresh = not (self._fed or self._no_body)
        if fresh:
            head = answers.find(data)
            if head is not None:
                self.head = head
                self.status = head.status
                self.reason = head.reason
                self.fields = head.fields
                self.parts = [data[head.size :]]
                self._sink = None
                sink.answered(self, ended=True)
                return
            if self.head is not None:
                self._reset(no_body=False)  # of what the answer before was
        self._fed = True
        self.heard = True
        if self._headless:
            self._head_bytes += len(data)
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._done:
                self._fail(UpstreamError(f"the answer is not HTTP: {error}"))
                return
            self._poisoned = True
        if self._done:
            self._sink = None
            if self._poisoned or self._gone:
                self.keep = False
            elif fresh and self.keep:
                length = sum(map(len, self.parts))
                answers.learn(data, status=self.status, reason=self.reason, fields=self.fields, length=length)
            sink.answered(self, ended=True)
        elif self._headless:
            if self._head_bytes > _MAX_HEAD_BYTES or self._fields_seen > _MAX_FIELDS:
                self._fail(UpstreamError("the answer's head is over the limit"))
        elif self.status >= 200:
            sink.answered(self, ended=False)

    # the parser's side -------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        """The first byte of an answer."""
        if self._done:
            self._poisoned = True

    def on_status(self, reason: bytes) -> None:
        """The status line's text."""
        if self._done:
            self._poisoned = True
        else:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head; trailers are dropped."""
        self._fields_seen += 1
        if self._headless:
            self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A whole head."""
        if self._done:
            self._poisoned = True
            return
        self.status = status = self._parser.get_status_code()
        if status < 200:
            return
        self._headless = False
        self.keep = self._parser.should_keep_alive()
        if self._no_body:
            self._done = True
            self._new_parser()  # this one waits for a body that a HEAD's answer does not have
        elif not self.keep and status not in (204, 304):
            self._close_delimited = not any(
                name in (b"content-length", b"transfer-encoding") for name, _ in self.fields
            )

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self._done:
            self._poisoned = True
        else:
            self.parts.append(data)

    def on_message_complete(self) -> None:
        """The end of an answer, or of an interim one."""
        if self.status >= 200:
            self._done = True
            return
        sink, status = self._sink, self.status
        self._reset(no_body=self._no_body)
        if sink is not None:
            sink.informed(status)

    # inside ------------------------------------------------------------------------------------------------------
    def _told(self) -> bool:
        """Whether the last exchange knows how it ended."""
        return self._sink is None

    def _reset(self, *, no_body: bool) -> None:
        self.status = self._head_bytes = self._fields_seen = 0
        self.reason = b""
        self.head = None
        self.fields = []
        self.parts = []
        self._no_body = no_body
        self._headless = True
        self.heard = self._done = self._poisoned = self._close_delimited = False

    def _new_parser(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data

    def _fail(self, error: UpstreamError) -> None:
        sink, self._sink = self._sink, None
        self._transport.abort()
        if sink is not None:
            sink.lost(self, error)
