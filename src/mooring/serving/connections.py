"""One client connection of the front: bytes in, one request at a time out, answers back in order. Non-blocking.

    READING ──request──▶ BUSY ──reply──▶ READING …        Malformed or last answer ──▶ LINGERING ──▶ closed

While a request is being answered the connection goes on being read, to see the peer leave, up to a bound. A connection is
ended by half-closing and then reading on for a moment, so that an answer sent to someone still sending is not lost.
"""

import selectors
import socket
import time
from typing import Callable, Optional

from mooring.serving import wire

_READ_BYTES = 1 << 18
_MAX_AHEAD_BYTES = 64 << 10  # read of pipelined requests while one is answered
LINGER_S = 2.0
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Connection:
    """See the module. `handle(connection, request)` answers by `reply`; `closed(connection)` is told the end."""

    __slots__ = (
        "_advancing",
        "_closed",
        "_events",
        "_handle",
        "_last",
        "_out",
        "_reader",
        "_selector",
        "_sock",
        "active_at_s",
        "busy",
        "is_open",
        "lingering",
        "request",
    )

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        max_body_bytes: int,
        handle: "Callable[[Connection, wire.Request], None]",
        closed: "Callable[[Connection], None]",
    ) -> None:
        self._sock = sock
        self._selector = selector
        self._reader = wire.RequestReader(max_body_bytes)
        self._handle = handle
        self._closed = closed
        self._out = memoryview(b"")
        self._last = False  # what is in _out is the last that goes out
        self._events = _READ
        self._advancing = False
        self.busy = False
        self.is_open = True
        self.lingering = False
        self.request: Optional[wire.Request] = None
        self.active_at_s = time.monotonic()
        selector.register(sock, _READ, self.on_event)

    @property
    def is_idle(self) -> bool:
        """Nothing of a request has come, nothing is being answered."""
        return not self.busy and not self._out and self._reader.is_idle

    def on_event(self, mask: int) -> None:
        """The selector's call."""
        if mask & _WRITE:
            self._flush()
        if mask & _READ and self.is_open:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        if self.lingering:
            return
        self.active_at_s = time.monotonic()
        self._reader.feed(data)
        self._advance()

    def _advance(self) -> None:
        """Hand out requests until one is being answered or none is whole."""
        if self._advancing:
            return  # an answer given at once: the loop below goes on
        self._advancing = True
        try:
            self._hand_out()
        finally:
            self._advancing = False
        self._watch()

    def _hand_out(self) -> None:
        while self.is_open and not self.busy and not self._out and not self._last:
            try:
                request = self._reader.next_request()
            except wire.Malformed as error:
                self._answer(wire.response(error.status, _text(str(error)), "text/plain", keep_alive=False), last=True)
                return
            if request is None:
                if self._reader.expects_continue:
                    self._reader.expects_continue = False
                    self._answer(wire.CONTINUE, last=False)
                return
            self.busy = True
            self.request = request
            self._handle(self, request)

    def reply(self, response: bytes, *, last: bool = False) -> None:
        """The answer to the request that was handed out."""
        if not self.is_open:
            return
        request = self.request
        self.busy = False
        self.request = None
        self.active_at_s = time.monotonic()
        self._answer(response, last=last or (request is not None and not request.keep_alive))
        if not self._reader.is_idle:
            self._advance()

    def _answer(self, data: bytes, *, last: bool) -> None:
        self._last = last
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return
        if sent == len(data):
            self._sent_all()
        else:
            self._out = memoryview(data)[sent:]
            self._watch()

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._out)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self._out = self._out[sent:]
        self.active_at_s = time.monotonic()
        if not self._out:
            self._sent_all()
            self._advance()

    def _sent_all(self) -> None:
        if self._last and not self.lingering:
            self.lingering = True
            self.active_at_s = time.monotonic()
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                self.close()

    def _watch(self) -> None:
        """Ask the selector for what is wanted now."""
        if not self.is_open:
            return
        ahead = self.busy or bool(self._out)
        events = 0 if ahead and self._reader.buffered > _MAX_AHEAD_BYTES else _READ
        if self._out:
            events |= _WRITE
        if events != self._events:
            if not self._events:
                self._selector.register(self._sock, events, self.on_event)
            elif not events:
                self._selector.unregister(self._sock)
            else:
                self._selector.modify(self._sock, events, self.on_event)
            self._events = events

    def close(self) -> None:
        """Close at once. Idempotent."""
        if not self.is_open:
            return
        self.is_open = False
        if self._events:
            self._selector.unregister(self._sock)
        self._sock.close()
        self._closed(self)


def _text(line: str) -> bytes:
    return (line + "\n").encode("utf-8")
