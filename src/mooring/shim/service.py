"""The shim's one loop: output to the log, commands on shim.sock, the end of the child.

    starting ──child runs──▶ running ──stop──▶ stopping ──grace over──▶ killed
                                └──────────────────┴── child ends ──▶ ended: record, answers, exit

One thread, poll(2), nothing that blocks but writes to files.
"""

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from mooring.contract import PORT
from mooring.contract import shim as contract
from mooring.kit import control_groups, logfile, proc, unixpath
from mooring.shim import child, dial, network
from mooring.shim.launch import Launch
from mooring.shim.lines import Lines

_COMMAND_TIMEOUT_S = 10.0  # a connection that says nothing
_DIAL_TIMEOUT_S = 5.0
_DRAIN_S = 2.0  # for output that is still in the pipe once all are dead
_KILL_S = 5.0
_TERM_GRACE_S = 30.0  # when the shim itself gets SIGTERM
_OUTPUT_BYTES_PER_TICK = 1 << 20  # the container's output is read at most this fast,
_TICK_S = 0.1  # so that a flood of it costs the container its time and not the machine

_READ = select.POLLIN | select.POLLHUP | select.POLLERR
_WRITE = select.POLLOUT | select.POLLHUP | select.POLLERR


def run(launch: Launch) -> None:
    """Start the child, tell the starter, serve until it has ended. Ends the process."""
    _point_output_at_nothing()
    try:
        shim = Shim(launch)
    except Exception as error:  # process edge: the starter is told, and nothing is left
        _tell(launch.ready_fd, {"error": f"{type(error).__name__}: {error}"})
        raise SystemExit(1) from error
    _tell(launch.ready_fd, shim.identity())
    try:
        shim.serve()
    except Exception as error:  # process edge: a bug; its death kills the instance, the log says why
        shim.say(f"the shim failed: {type(error).__name__}: {error}, line {_line_of(error)}")
        raise


def _line_of(error: Exception) -> int:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return 0 if at is None else at.tb_lineno


def _tell(fd: int, value: dict[str, object]) -> None:
    try:
        os.write(fd, json.dumps(value).encode() + b"\n")
    except BrokenPipeError:  # the starter was killed: the instance runs on, a later server finds it
        pass
    finally:
        os.close(fd)


def _point_output_at_nothing() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


class _Connection:
    """A client: its half-read command, or what it waits for."""

    def __init__(self, peer: socket.socket, deadline_s: float) -> None:
        self.peer = peer
        self.received = b""
        self.deadline_s = deadline_s  # monotonic; infinite once it waits for the end
        self.waits = False
        self.dialled: socket.socket | None = None


class Shim:
    """See the module. The constructor starts the child; it raises with nothing left running."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._path = launch.directory + "/"
        os.set_inheritable(launch.lock_fd, False)  # held for life, never by the child
        os.set_inheritable(launch.ready_fd, False)
        self._identity: dict[str, object] = {
            "pid": os.getpid(),
            "start_ticks": proc.start_ticks(os.getpid()),
            "boot_id": proc.boot_id(),
        }
        proc.write_atomically(self._path + contract.IDENTITY, json.dumps(self._identity).encode(), sync=False)
        self._log = logfile.SegmentWriter(launch.log_directory, logfile.WRITER_OUTPUT)
        self._lost = 0
        self._lines = Lines(contract.LAST_WORDS_BYTES)
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._connections: dict[int, _Connection] = {}
        self._wake = self._signals()
        self._listener = self._listen()
        for line in launch.preamble:
            self._append(logfile.format_event(_now_ms(), line))
        self._child = child.start(launch)
        if self._child.failures:
            self.say(f"limits that could not be set: {self._child.failures}")
        self._init_pid = 0
        self._network: network.Beside | None = None
        self._info = b""
        self._stop_at_s: float | None = None  # monotonic: SIGKILL then
        self._stopping = False
        self._ended = False
        self._output_open = True
        self._tick_ends_s = 0.0
        self._tick_bytes = 0
        self._watch(self._child.output, self._read_output)
        self._watch(self._child.info, self._read_info)

    def identity(self) -> dict[str, object]:
        """Who the shim and its child are."""
        return {**self._identity, "child_pid": self._child.pid}

    def serve(self) -> None:
        """Run until the child has ended; then record it and answer everyone."""
        while not self._ended:
            self._turn(self._next_deadline_s())
        self._finish()

    def say(self, text: str) -> None:
        """A line of the shim's own in the log."""
        self._append(logfile.format_event(_now_ms(), f"mooring: {text}"))

    # the loop ----------------------------------------------------------------------------------------------------
    def _watch(self, fd: int, handler: Callable[[], None], events: int = _READ) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _turn(self, deadline_s: float) -> None:
        timeout_ms = max(0, min(int((deadline_s - time.monotonic()) * 1000) + 1, 3_600_000))
        for fd, _ in self._poll.poll(timeout_ms):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        self._expire(time.monotonic())

    def _next_deadline_s(self) -> float:
        deadlines = [time.monotonic() + 3600.0, *(connection.deadline_s for connection in self._connections.values())]
        if self._stop_at_s is not None:
            deadlines.append(self._stop_at_s)
        if self._output_paused():
            deadlines.append(self._tick_ends_s)
        return min(deadlines)

    def _expire(self, now_s: float) -> None:
        if self._output_paused() and now_s >= self._tick_ends_s:
            self._watch(self._child.output, self._read_output)
        for connection in [c for c in self._connections.values() if now_s >= c.deadline_s]:
            self._answer(connection, {"ok": False, "error": "timed out"})
        if self._stop_at_s is not None and now_s >= self._stop_at_s:
            self._stop_at_s = now_s + _KILL_S  # again, should one have slipped through
            self._kill()

    def _signals(self) -> int:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self._watch(read, self._signalled)
        return read

    def _signalled(self) -> None:
        numbers = os.read(self._wake, 4096)
        if signal.SIGTERM in numbers:
            self._begin_stop(_TERM_GRACE_S)
        if signal.SIGCHLD in numbers and not self._ended:
            # not reaped yet: until _finish has killed what is left of its process group, its id stays taken
            self._ended = os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    # the child's output --------------------------------------------------------------------------------------------
    def _output_paused(self) -> bool:
        return self._output_open and self._child.output not in self._handlers

    def _read_output(self) -> None:
        try:
            chunk = os.read(self._child.output, 1 << 16)
        except BlockingIOError:
            return
        if not chunk:
            self._output_open = False
            self._unwatch(self._child.output)
            return
        self._append(self._lines.feed(chunk, _now_ms()))
        now_s = time.monotonic()
        if now_s >= self._tick_ends_s:
            self._tick_ends_s, self._tick_bytes = now_s + _TICK_S, 0
        self._tick_bytes += len(chunk)
        if self._tick_bytes >= _OUTPUT_BYTES_PER_TICK:
            self._unwatch(self._child.output)

    def _append(self, events: bytes) -> None:
        if not events:
            return
        try:
            if self._lost:
                self._log.append(_now_ms(), f"mooring: {self._lost} lines were lost: the log could not be written")
                self._lost = 0
            self._log.append_raw(events)
        except OSError:  # full disk: the container runs on, the loss is counted and said
            self._lost += events.count(b"\n")

    def _read_info(self) -> None:
        chunk = os.read(self._child.info, 4096)
        self._info += chunk
        if chunk and len(self._info) < 1 << 16:
            return
        self._unwatch(self._child.info)
        os.close(self._child.info)
        if self._info:
            self._init_pid = int(json.loads(self._info)["child-pid"])
            self._start_network()

    def _start_network(self) -> None:
        """Before anything is dialled: it must come from the host's network. Nobody waits for it."""
        try:
            self._network = network.start(self._launch, self._init_pid)
        except OSError as error:  # most likely the sandbox has ended already, and says why itself
            self.say(f"the network could not be set up: {error}")
        if self._network is not None:
            self._watch(self._network.channel.fileno(), self._read_network)

    def _read_network(self) -> None:
        if self._network is None:
            return
        try:
            chunk = self._network.channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        for line in chunk.decode("utf-8", "replace").splitlines():
            self.say(line)
        if not chunk:
            self._unwatch(self._network.channel.fileno())
            if not self._stopping:
                self.say("the network process has ended: this container reaches nothing outside any more")

    # commands ------------------------------------------------------------------------------------------------------
    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        path = unixpath.SocketPath(self._path + contract.SOCKET)
        listener.bind(path.address)
        path.close()
        os.chmod(self._path + contract.SOCKET, 0o600)
        listener.listen(128)
        self._watch(listener.fileno(), self._accept)
        return listener

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:  # gone again, or out of descriptors: the backlog waits
            return
        peer.setblocking(False)
        connection = _Connection(peer, time.monotonic() + _COMMAND_TIMEOUT_S)
        self._connections[peer.fileno()] = connection
        self._watch(peer.fileno(), lambda: self._receive(connection))
        if len(self._connections) >= contract.MAX_CONNECTIONS:
            self._unwatch(self._listener.fileno())

    def _close(self, connection: _Connection) -> None:
        fd = connection.peer.fileno()
        self._unwatch(fd)
        if connection.dialled is not None:
            self._unwatch(connection.dialled.fileno())
            connection.dialled.close()
        connection.peer.close()
        self._connections.pop(fd, None)
        if self._listener.fileno() not in self._handlers and not self._ended:
            self._watch(self._listener.fileno(), self._accept)

    def _receive(self, connection: _Connection) -> None:
        try:
            chunk = connection.peer.recv(contract.MAX_LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk or connection.waits or connection.dialled is not None:  # gone, or talks out of turn
            self._close(connection)
            return
        connection.received += chunk
        if b"\n" in connection.received:
            self._command(connection, connection.received.partition(b"\n")[0])
        elif len(connection.received) >= contract.MAX_LINE_BYTES:
            self._answer(connection, {"ok": False, "error": "the command is too long"})

    def _command(self, connection: _Connection, line: bytes) -> None:
        try:
            request = json.loads(line)
            command = request["op"]
            if command == "status":
                self._answer(connection, {"ok": True, **self.identity(), "stopping": self._stopping})
            elif command == "stop":
                self._begin_stop(float(request["grace_s"]))
                self._hold(connection)
            elif command == "wait":
                self._hold(connection)
            elif command == "dial":
                self._dial(connection, int(request.get("port", PORT)))
            else:
                self._answer(connection, {"ok": False, "error": "unknown command"})
        except (ValueError, KeyError, TypeError) as error:
            self._answer(connection, {"ok": False, "error": f"not a command: {type(error).__name__}"})

    def _hold(self, connection: _Connection) -> None:
        connection.waits = True
        connection.deadline_s = float("inf")

    def _answer(self, connection: _Connection, value: dict[str, object], *descriptors: int) -> None:
        line = json.dumps(value).encode() + b"\n"
        try:
            if descriptors:
                socket.send_fds(connection.peer, [line], list(descriptors))
            else:
                connection.peer.sendall(line)  # the first bytes on this connection: its buffer holds any answer
        except OSError:  # it left, or does not read
            pass
        self._close(connection)

    def _dial(self, connection: _Connection, port: int) -> None:
        if not 0 < port < 65536:
            raise ValueError("port")
        try:
            if self._init_pid > 0:
                dial.enter_network(self._init_pid)
            connection.dialled = dial.connect(port)
        except OSError as error:
            self._answer(connection, {"ok": False, "error": str(error.strerror)})
            return
        connection.deadline_s = time.monotonic() + _DIAL_TIMEOUT_S
        self._watch(connection.dialled.fileno(), lambda: self._dialled(connection), _WRITE)

    def _dialled(self, connection: _Connection) -> None:
        dialled = connection.dialled
        if dialled is None:
            return
        number = dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._answer(connection, {"ok": False, "error": os.strerror(number)})
        else:
            self._answer(connection, {"ok": True}, dialled.fileno())

    # the end -------------------------------------------------------------------------------------------------------
    def _begin_stop(self, grace_s: float) -> None:
        at_s = time.monotonic() + max(0.0, min(grace_s, 3600.0))
        if not self._stopping:
            self._stopping = True
            child.terminate(self._child.pid, self._init_pid)
        self._stop_at_s = at_s if self._stop_at_s is None else min(self._stop_at_s, at_s)

    def _kill(self) -> None:
        child.kill(self._child.pid, self._init_pid, self._launch.control_group, deadline_s=_KILL_S)

    def _finish(self) -> None:
        """All of it is dead or dies now; what it said last is kept, then everybody hears of it."""
        if self._network is not None:
            self._unwatch(self._network.channel.fileno())
            network.end(self._network)
        self._kill()
        _, status = os.waitpid(self._child.pid, 0)
        end_s = time.monotonic() + _DRAIN_S
        self._tick_ends_s = 0.0
        while self._output_open and time.monotonic() < end_s:
            if self._output_paused():
                self._watch(self._child.output, self._read_output)
            self._turn(end_s)
        self._append(self._lines.end(_now_ms()))
        self._log.close()
        record = self._record(status)
        proc.write_atomically(self._path + contract.EXIT, json.dumps(record).encode(), sync=False)
        self._listener.close()
        for connection in list(self._connections.values()):
            if connection.waits:
                self._answer(connection, record)
        sys.exit(0)

    def _record(self, status: int) -> dict[str, object]:
        code = os.waitstatus_to_exitcode(status)
        if self._launch.info_fd >= 0 and code > 128:  # bwrap reports a signal as shells do
            code = 128 - code
        oom_kills = control_groups.oom_kills(self._launch.control_group)
        return {
            "code": code,
            "oom_killed": bool(oom_kills) and code != 0,
            "last_words": self._lines.last_words(),
            "ended_ms": _now_ms(),
        }


def _now_ms() -> int:
    return int(time.time() * 1000)
