"""The front's side of its worker processes: started by fork, given one request at a time, seen to end. Non-blocking.

LOADING ──ready──▶ IDLE ◀──answer── BUSY          any ──▶ ended(how)
"""

import os
import selectors
import signal
import socket
import sys
import time
from typing import Callable, List, Mapping, Optional

from mooring.serving import channel, worker
from mooring.serving.connections import Connection
from mooring.serving.settings import Settings

_READ_BYTES = 1 << 18
_SOCKET_BYTES = 1 << 20
_END_WAIT_S = 1.0
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Worker:
    """One process. `received(worker, kind, payload)` gets its frames, `ended(worker, how)` its end, once."""

    def __init__(
        self,
        index: int,
        settings: Settings,
        selector: selectors.BaseSelector,
        received: "Callable[[Worker, int, bytes], None]",
        ended: "Callable[[Worker, str], None]",
    ) -> None:
        self.index = index
        self.ready = False
        self.connection: Optional[Connection] = None  # whose request it works on
        self.busy_since_s = 0.0
        self.timed_out = False
        self.is_alive = True
        self._selector = selector
        self._received = received
        self._ended = ended
        self._in = bytearray()
        self._out: List[memoryview] = []
        self._sock, theirs = socket.socketpair()
        for end in (self._sock, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        sys.stdout.flush()
        sys.stderr.flush()
        front_pid = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            worker.run_forked(theirs, settings, front_pid, tells=index == 0)
        theirs.close()
        self._sock.setblocking(False)
        selector.register(self._sock, _READ, self.on_event)

    def give(self, kind: int, headers: Mapping[bytes, bytes], body: bytes, connection: Optional[Connection]) -> None:
        """Start a request; the worker must be idle."""
        self.connection = connection
        self.busy_since_s = time.monotonic()
        head, body = channel.pack_request(kind, headers, body)
        # short ones in one piece: one copy is cheaper than a second buffer
        self._out = [memoryview(head + body)] if len(body) < 1 << 16 else [memoryview(head), memoryview(body)]
        self._write()

    def on_event(self, mask: int) -> None:
        """The selector's call."""
        if mask & _WRITE and self.is_alive:
            self._write()
        if mask & _READ and self.is_alive:
            self._read()

    def _write(self) -> None:
        waited = False
        while self._out:
            try:
                sent = self._sock.send(self._out[0])
            except (BlockingIOError, InterruptedError):
                waited = True
                break
            except OSError:
                return  # its end is about to be read
            if sent == len(self._out[0]):
                self._out.pop(0)
            else:
                self._out[0] = self._out[0][sent:]
        events = _READ | _WRITE if waited else _READ
        if self._selector.get_key(self._sock).events != events:
            self._selector.modify(self._sock, events, self.on_event)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.reap(wait=True)
            return
        if self._in or len(data) < channel.REPLY.size:
            self._in += data
            self._read_buffered()
            return
        kind, length = channel.REPLY.unpack_from(data)
        if len(data) == channel.REPLY.size + length:  # nearly always: one answer in one piece
            self._received(self, kind, data[channel.REPLY.size :])
        else:
            self._in += data

    def _read_last(self) -> None:
        """What it said before it ended: news of the end may overtake it. A process it started may hold its side open."""
        while True:
            try:
                data = self._sock.recv(_READ_BYTES)
            except OSError:
                break
            if not data:
                break
            self._in += data
        self._read_buffered()

    def _read_buffered(self) -> None:
        while len(self._in) >= channel.REPLY.size:
            kind, length = channel.REPLY.unpack_from(self._in)
            total = channel.REPLY.size + length
            if len(self._in) < total:
                return
            payload = bytes(memoryview(self._in)[channel.REPLY.size : total])
            self._in = self._in[total:]
            self._received(self, kind, payload)

    def reap(self, *, wait: bool) -> None:
        """Report the end if it has come; `wait`: it has, or is made to."""
        if not self.is_alive:
            return
        deadline = time.monotonic() + _END_WAIT_S
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if not wait:
                return
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)  # it hung up on us without ending
                _, status = os.waitpid(self.pid, 0)
                break
            time.sleep(0.005)
        self.is_alive = False
        self._read_last()
        self._selector.unregister(self._sock)
        self._sock.close()
        self._ended(self, how_ended(status))

    def kill(self) -> None:
        """SIGKILL; the end is reported as any other."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """Tell it to end, by the end of its channel."""
        if self.is_alive:
            self._sock.shutdown(socket.SHUT_WR)


def how_ended(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = " (out of memory?)" if number == signal.SIGKILL else ""
        try:
            return "was killed by {}{}".format(signal.Signals(number).name, hint)
        except ValueError:
            return "was killed by signal {}{}".format(number, hint)
    return "ended with exit code {}".format(os.WEXITSTATUS(status))
