"""The front process: listens, speaks HTTP, hands each request to a worker that is free, and watches over the workers.

    clients ──HTTP──▶ front (this; one thread, selectors) ──frames──▶ worker × N (forked; model; one request at a time)

It loads nothing of the user's, so /ping is answered whatever a handler does, and forking is always safe. Requests wait here
and not in a worker, so none waits behind a busy worker while another is idle; one whose caller has gone is dropped. Exit
codes: 0 after SIGTERM, contract.EXIT_MODEL_LOAD_FAILED, or 70 when a worker died (the platform replaces the instance).
"""

import json
import os
import selectors
import signal
import socket
import stat
import sys
import time
from collections import deque
from typing import Any, Deque, List, Optional, Set, Tuple

from mooring import contract
from mooring.serving import channel, wire
from mooring.serving.connections import LINGER_S, Connection
from mooring.serving.settings import Settings
from mooring.serving.worker import say
from mooring.serving.workers import Worker

EXIT_WORKER_DIED = 70  # EX_SOFTWARE
MAX_CONNECTIONS = 4096
_BACKLOG = 1024
_ACCEPTS_AT_ONCE = 64
_TICK_S = 1.0
_PARTIAL_TIMEOUT_S = 120.0  # for a request that began and does not go on
_DRAIN_S = 25.0  # the platform kills 30 s after SIGTERM
_DRAIN_AFTER_DEATH_S = 5.0
_END_S = 2.0
_JSON = "application/json"

_PING = contract.PATH_PING.encode()
_INVOCATIONS = contract.PATH_INVOCATIONS.encode()
_PARAMETERS = contract.PATH_EXECUTION_PARAMETERS.encode()


class Front:
    """See the module."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._selector = selectors.DefaultSelector()
        self._listeners: List[socket.socket] = []
        self._connections: Set[Connection] = set()
        self._workers: List[Worker] = []
        self._idle: List[Worker] = []
        self._queue: Deque[Tuple[Connection, wire.Request, int]] = deque()
        self._accepting = False
        self._user_parameters = False
        self._began_s = time.monotonic()
        self._announced = False
        self._exit_code: Optional[int] = None  # known: draining
        self._deadline_s = 0.0
        self._signals: Set[int] = set()

    def run(self) -> int:
        """Serve until told to end; returns the exit code."""
        self._watch_signals()
        try:
            self._listen()
            for index in range(self._settings.workers):
                self._workers.append(self._start_worker(index))
            self._loop()
        finally:
            self._end()
        return self._exit_code or 0

    # --- loop ---

    def _loop(self) -> None:
        next_tick_s = time.monotonic() + _TICK_S
        while not self._is_done():
            for key, mask in self._selector.select(_TICK_S):
                key.data(mask)
            if self._signals:
                self._take_signals()
            if time.monotonic() >= next_tick_s:
                next_tick_s = time.monotonic() + _TICK_S
                self._tick()

    def _is_done(self) -> bool:
        if self._exit_code is None:
            return False
        return not self._connections or time.monotonic() >= self._deadline_s

    def _tick(self) -> None:
        now_s = time.monotonic()
        for connection in list(self._connections):
            age_s = now_s - connection.active_at_s
            if connection.lingering:
                if age_s > LINGER_S:
                    connection.close()
            elif not connection.busy and not connection.is_idle and age_s > _PARTIAL_TIMEOUT_S:
                connection.close()
        if self._settings.timeout_s:
            for worker in self._workers:
                if worker.connection is not None and now_s - worker.busy_since_s > self._settings.timeout_s:
                    say(
                        "worker {}: no answer within {:g} s; it is replaced".format(
                            worker.pid, self._settings.timeout_s
                        )
                    )
                    worker.timed_out = True
                    worker.kill()
        for worker in list(self._workers):
            worker.reap(wait=False)
        if self._exit_code is None and len(self._connections) < MAX_CONNECTIONS:
            self._set_accepting(True)

    # --- signals ---

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._wake = (reader, writer)
        self._selector.register(reader, selectors.EVENT_READ, self._woken)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals.add(number)

    def _woken(self, mask: int) -> None:
        try:
            self._wake[0].recv(4096)
        except BlockingIOError:
            return

    def _take_signals(self) -> None:
        signals, self._signals = self._signals, set()
        if signal.SIGCHLD in signals:
            for worker in list(self._workers):
                worker.reap(wait=False)
        if signals & {signal.SIGTERM, signal.SIGINT}:
            if self._exit_code is not None:
                self._deadline_s = 0.0  # asked twice
            else:
                say("stopping")
                self._drain(0, _DRAIN_S)

    def _drain(self, exit_code: int, within_s: float) -> None:
        """Take nothing new, finish what is under way, then leave the loop."""
        self._exit_code = exit_code
        self._deadline_s = time.monotonic() + within_s
        for listener in self._listeners:
            if self._accepting:
                self._selector.unregister(listener)
            listener.close()
        self._listeners = []
        self._accepting = False
        for connection in list(self._connections):
            if connection.is_idle:
                connection.close()

    def _end(self) -> None:
        signal.set_wakeup_fd(-1)
        for connection in list(self._connections):
            connection.close()
        for worker in self._workers:
            worker.connection = None
            worker.hang_up()
        deadline_s = time.monotonic() + _END_S
        while self._workers and time.monotonic() < deadline_s:
            for worker in list(self._workers):
                worker.reap(wait=False)
            time.sleep(0.005)
        for worker in list(self._workers):
            worker.kill()
            worker.reap(wait=True)
        for listener in self._listeners:
            listener.close()
        if self._settings.socket_path is not None and self._exit_code is not None:
            _remove_socket(self._settings.socket_path)

    # --- listening ---

    def _listen(self) -> None:
        places = []
        if self._settings.socket_path is not None:
            self._listeners.append(_listen_unix(self._settings.socket_path))
            places.append("unix:" + self._settings.socket_path)
        if self._settings.tcp_port is not None:
            listener = _listen_tcp(self._settings.tcp_port)
            self._listeners.append(listener)
            places.append("http://127.0.0.1:{}".format(listener.getsockname()[1]))
        say("listening on {}".format(" and ".join(places)))
        self._set_accepting(True)

    def _set_accepting(self, wanted: bool) -> None:
        if wanted == self._accepting:
            return
        self._accepting = wanted
        for listener in self._listeners:
            if wanted:
                self._selector.register(listener, selectors.EVENT_READ, _Acceptor(self, listener).on_event)
            else:
                self._selector.unregister(listener)

    def accept(self, listener: socket.socket) -> None:
        """Take new connections, as many as there is room for."""
        if not self._accepting:  # the event is of the same round as what made us stop
            return
        for _ in range(_ACCEPTS_AT_ONCE):
            if len(self._connections) >= MAX_CONNECTIONS:
                self._set_accepting(False)
                return
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # out of descriptors: those in use go on, new ones wait until one ends, or for a tick
                say("a connection cannot be accepted: {}".format(error))
                self._set_accepting(False)
                return
            sock.setblocking(False)
            if sock.family != getattr(socket, "AF_UNIX", None):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(
                sock, self._selector, self._settings.max_body_bytes, self._handle, self._connection_closed
            )
            self._connections.add(connection)

    def _connection_closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._accepting and self._exit_code is None:
            self._set_accepting(True)

    # --- requests ---

    def _handle(self, connection: Connection, request: wire.Request) -> None:
        if request.path == _INVOCATIONS:
            if request.method != b"POST":
                self._reply(connection, 405, b"", headers=(("Allow", "POST"),))
            else:
                self._submit(connection, request, channel.INVOKE)
        elif request.path == _PING:
            self._get(connection, request, *self._health())
        elif request.path == _PARAMETERS:
            if self._user_parameters and request.method == b"GET":
                self._submit(connection, request, channel.PARAMETERS)
            else:
                self._get(connection, request, 200, self._default_parameters(), _JSON)
        else:
            self._reply(connection, 404, b"")

    def _get(self, connection: Connection, request: wire.Request, status: int, body: bytes, kind: str = "") -> None:
        if request.method not in (b"GET", b"HEAD"):
            self._reply(connection, 405, b"", headers=(("Allow", "GET, HEAD"),))
        else:
            self._reply(connection, status, body, kind, head_only=request.method == b"HEAD")

    def _reply(self, connection: Connection, status: int, body: bytes, kind: str = "", **more: Any) -> None:
        request = connection.request
        last = self._exit_code is not None or (request is not None and not request.keep_alive)
        connection.reply(wire.response(status, body, kind, keep_alive=not last, **more), last=last)

    def _health(self) -> Tuple[int, bytes]:
        """200 as soon as a worker has the model; what the others do does not matter."""
        healthy = self._exit_code is None and any(worker.ready for worker in self._workers)
        return (200, b"") if healthy else (503, b"")

    def _default_parameters(self) -> bytes:
        parameters = {
            "MaxConcurrentTransforms": self._settings.workers,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": min(6, self._settings.max_body_bytes >> 20),
        }
        return json.dumps(parameters).encode()

    def _submit(self, connection: Connection, request: wire.Request, kind: int) -> None:
        if self._idle:
            self._idle.pop().give(kind, request.headers, request.body, connection)
        elif not any(worker.ready for worker in self._workers):
            self._reply(connection, 503, _error("ModelNotReady", "the model is still being loaded"), _JSON)
        else:
            self._queue.append((connection, request, kind))  # bounded by the connections: one request of each

    # --- workers ---

    def _start_worker(self, index: int) -> Worker:
        return Worker(index, self._settings, self._selector, self._received, self._worker_ended)

    def _received(self, worker: Worker, kind: int, payload: bytes) -> None:
        if kind == channel.ANSWER:
            connection, worker.connection = worker.connection, None
            self._next(worker)
            if connection is not None and connection.is_open:
                connection.reply(payload, last=self._exit_code is not None)
        elif kind == channel.READY:
            self._worker_ready(worker, json.loads(payload))
        elif kind == channel.FAILED and self._exit_code is None:
            self._fail(payload.decode("utf-8", "replace"), contract.EXIT_MODEL_LOAD_FAILED)

    def _next(self, worker: Worker) -> None:
        if not worker.is_alive:  # these were its last words
            return
        while self._queue:
            connection, request, kind = self._queue.popleft()
            if connection.is_open:
                worker.give(kind, request.headers, request.body, connection)
                return
        self._idle.append(worker)

    def _worker_ready(self, worker: Worker, about: Any) -> None:
        worker.ready = True
        self._user_parameters = bool(about["execution_parameters"])
        if not self._announced:
            self._announced = True
            say(
                "the model is loaded: {}; {} worker(s), {} s after the start".format(
                    about["versions"], self._settings.workers, round(time.monotonic() - self._began_s, 2)
                )
            )
        self._next(worker)

    def _fail(self, report: str, exit_code: int) -> None:
        """End because the model cannot be loaded; the last line says why."""
        trace, _, cause = report.rstrip().rpartition("\n")
        if trace:
            sys.stderr.write(trace + "\n")
        say("the model cannot be loaded: {}".format(cause))
        for worker in self._workers:
            worker.kill()
        self._drain(exit_code, 0.0)

    def _worker_ended(self, worker: Worker, how: str) -> None:
        self._workers.remove(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        connection, worker.connection = worker.connection, None
        if connection is not None and connection.is_open:
            text = "the model server's process {} while it worked on this request".format(how)
            if worker.timed_out:
                text = "the handler did not answer within {:g} s".format(self._settings.timeout_s)
            self._reply(connection, 504 if worker.timed_out else 500, _error("WorkerDied", text), _JSON)
        if self._exit_code is not None:
            return
        if worker.timed_out:
            self._workers.append(self._start_worker(worker.index))
        elif not worker.ready:
            code = EXIT_WORKER_DIED if "SIGKILL" in how else contract.EXIT_MODEL_LOAD_FAILED
            self._fail("the process {} while it loaded the model".format(how), code)
        else:
            say("worker {} {}; leaving, for the platform to start this instance anew".format(worker.pid, how))
            for waiting, _, _ in self._queue:
                if waiting.is_open:
                    self._reply(waiting, 503, _error("WorkerDied", "the model server restarts"), _JSON)
            self._queue.clear()
            self._drain(EXIT_WORKER_DIED, _DRAIN_AFTER_DEATH_S)


class _Acceptor:
    """Binds a listener to the front, for the selector."""

    def __init__(self, front: Front, listener: socket.socket) -> None:
        self._front = front
        self._listener = listener

    def on_event(self, mask: int) -> None:
        self._front.accept(self._listener)


def _error(name: str, text: str) -> bytes:
    return json.dumps({"error": name, "error-message": text}).encode("utf-8")


def _listen_unix(path: str) -> socket.socket:
    _remove_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory, name = os.path.split(os.path.abspath(path))
    fd = -1
    try:
        address = path
        if len(os.fsencode(path)) > 100:  # sun_path holds 107 bytes
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            address = "/proc/self/fd/{}/{}".format(fd, name)
        listener.bind(address)
        # the directory decides who may come here; the server may run as another user
        os.chmod(address, 0o666)  # noqa: S103
    finally:
        if fd >= 0:
            os.close(fd)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _remove_socket(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return


def _listen_tcp(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener
