"""A worker on uvloop in a thread, a route channel that the test holds, instances that do what the test says.

Everything is real sockets and blocking test code, so that a test reads in the order in which things happen.
"""

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from struct import pack, unpack

import msgspec
import uvloop

from mooring.domain import channel, routing
from mooring.edge import worker
from mooring.gateway.server import GatewayLimits
from mooring.kit import counters as kit_counters
from mooring.net.server import Limits
from mooring.protocol import sigv4

REGION = "us-east-1"
ACCOUNT = "000000000000"
KEY = routing.Credential(
    access_key="AKIDTEST", secret_key="secret", account=ACCOUNT, arn="arn:aws:iam::000000000000:root"
)
DEADLINE_S = 20.0


def wait_for(condition: Callable[[], object], what: str = "the condition") -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)


class Heard:
    """One message as a peer read it."""

    def __init__(self, start: bytes, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.start = start
        self.fields = fields
        self.body = body

    @property
    def status(self) -> int:
        return int(self.start.split()[1])

    def field(self, name: str) -> str | None:
        for key, value in self.fields:
            if key.lower() == name.lower().encode():
                return value.decode()
        return None

    def json(self) -> dict[str, object]:
        return json.loads(self.body)


class Lost(Exception):
    """The peer closed before the message was whole."""


class Wire:
    """A blocking socket that reads HTTP messages."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(DEADLINE_S)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close(self) -> None:
        self.sock.close()

    def _more(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise Lost(self.buffer)
        self.buffer += data

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self._more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def head(self) -> Heard:
        start = self._line()
        fields = []
        while line := self._line():
            name, _, value = line.partition(b":")
            fields.append((name, value.strip()))
        return Heard(start, fields, b"")

    def read(self, *, no_body: bool = False) -> Heard:
        heard = self.head()
        if heard.start.startswith(b"HTTP/1.1 1") or no_body:
            return heard
        length = heard.field("content-length")
        if (heard.field("transfer-encoding") or "").lower() == "chunked":
            while size := int(self._line().split(b";")[0], 16):
                heard.body += self.exactly(size)
                self._line()
            self._line()
        elif length is not None:
            heard.body = self.exactly(int(length))
        elif heard.start.startswith(b"HTTP/"):
            with contextlib.suppress(Lost):
                while True:
                    self._more()
            heard.body, self.buffer = self.buffer, b""
        return heard

    def at_end(self) -> bool:
        """Whether the peer closes now, with nothing more to say."""
        try:
            return self.sock.recv(1 << 16) == b""
        except ConnectionResetError:
            return True


Behaviour = Callable[[Wire, Heard], None]


def ok(body: bytes = b'{"ok":true}', extra: bytes = b"") -> Behaviour:
    def behave(wire: Wire, _: Heard) -> None:
        wire.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
            % (extra, len(body), body)
        )

    return behave


def raw(data: bytes, *, close: bool = False) -> Behaviour:
    def behave(wire: Wire, _: Heard) -> None:
        wire.send(data)
        if close:
            wire.close()

    return behave


def hang_up(wire: Wire, _: Heard) -> None:
    wire.close()


class Instance:
    """A model server that does what `behave` says, on a Unix socket."""

    def __init__(self, path: Path, behave: Behaviour | None = None) -> None:
        self.path = path
        self.behave: Behaviour = behave or ok()
        self.requests: list[Heard] = []
        self.connections = 0
        self.wires: list[Wire] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.open()

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def open(self) -> None:
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        cwd_free = os.path.relpath(self.path) if len(str(self.path)) > 100 else str(self.path)
        listener.bind(cwd_free)
        listener.listen(128)
        self._listener = listener
        thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def close(self) -> None:
        """Crash: nobody listens and every connection is gone."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop()

    def drop(self) -> None:
        """Close every connection, and go on listening."""
        wires, self.wires = self.wires, []
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)  # its thread closes it

    def join(self) -> None:
        self.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            wire = Wire(sock)
            self.wires.append(wire)
            thread = threading.Thread(target=self._serve, args=(wire,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, wire: Wire) -> None:
        with contextlib.suppress(Lost, OSError, ValueError):
            while True:
                heard = wire.read()
                self.requests.append(heard)
                self.behave(wire, heard)
        wire.close()


class Control:
    """The other end of the route channel."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = routing.RouteTable(generation=0)
        self.acked: list[int] = []
        self.hellos: list[channel.Hello] = []
        self._peers: list[socket.socket] = []
        self._lock = threading.Lock()  # tables reach a peer in the order of their generations
        self._listener: socket.socket | None = None
        self.open()

    def open(self) -> None:
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(8)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Die, as control does when it is killed."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        peers, self._peers = self._peers, []
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()

    def publish(self, table: routing.RouteTable, *, wait: bool = True) -> None:
        with self._lock:
            self.table = table
            for peer in self._peers:
                self._send(peer)
        if wait:
            wait_for(lambda: table.generation in self.acked, f"the ack of generation {table.generation}")

    def _send(self, peer: socket.socket) -> None:
        payload = msgspec.json.encode(self.table)
        peer.sendall(pack(">I", len(payload)) + payload)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._follow, args=(peer,), daemon=True).start()

    def _follow(self, peer: socket.socket) -> None:
        wire = Wire(peer)
        wire.sock.settimeout(None)
        with contextlib.suppress(Lost, OSError):
            self.hellos.append(msgspec.json.decode(self._frame(wire), type=channel.Hello))
            with self._lock:
                self._peers.append(peer)
                self._send(peer)
            while True:
                self.acked.append(msgspec.json.decode(self._frame(wire), type=channel.Ack).generation)

    @staticmethod
    def _frame(wire: Wire) -> bytes:
        (length,) = unpack(">I", wire.exactly(4))
        return wire.exactly(length)


def variant(
    instances: Sequence[Instance], *, name: str = "AllTraffic", slot: int = 0, weight: float = 1.0, first: int = 0
) -> routing.VariantRoute:
    routes = tuple(
        routing.InstanceRoute(instance_id=f"i-{one.path.name}", slot=first + index, address=one.address)
        for index, one in enumerate(instances)
    )
    return routing.VariantRoute(name=name, slot=slot, weight=weight, instances=routes)


class Rig:
    """See the module."""

    def __init__(
        self,
        directory: Path,
        *,
        gateway_limits: GatewayLimits | None = None,
        http_limits: Limits | None = None,
        workers: int = 2,
        serve: bool = True,
    ) -> None:
        self.directory = directory
        self.layout = kit_counters.Layout(workers=workers, gauges=64, groups=16)
        self._fd = kit_counters.create(self.layout)
        self.counters = kit_counters.Counters(self._fd, self.layout)
        self.control = Control(directory / "routes.sock")
        self.api = Instance(directory / "control.sock", ok(b"control"))
        self.s3 = Instance(directory / "s3.sock", ok(b"s3"))
        self.instances: list[Instance] = []
        self.generation = 0
        self._limits = (gateway_limits or GatewayLimits(), http_limits or Limits())
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        self.port: int = listener.getsockname()[1]
        self._listen_fd = listener.detach()
        self._ready = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.wires: list[Wire] = []
        if serve:
            self.start()

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(DEADLINE_S)

    def _run(self) -> None:
        loop = uvloop.new_event_loop()
        try:
            loop.run_until_complete(self._main())
        except BaseException as error:
            self.error = error
        finally:
            loop.close()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.stop_event = asyncio.Event()
        self._ready.set()
        await worker.run(
            listen_fd=self._listen_fd,
            worker=0,
            counters=self.counters,
            control_socket=str(self.api.path),
            s3_socket=str(self.s3.path),
            routes_socket=str(self.control.path),
            region=REGION,
            gateway_limits=self._limits[0],
            http_limits=self._limits[1],
            drain_s=10.0,
            stop=self.stop_event,
        )

    def begin_stop(self) -> None:
        self._loop.call_soon_threadsafe(self.stop_event.set)

    def join(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def close(self) -> None:
        for wire in self.wires:
            wire.close()
        if self._thread.is_alive():
            self.begin_stop()
            self.join()
        self.control.close()
        for instance in (self.api, self.s3, *self.instances):
            instance.join()
        self.counters.close()
        os.close(self._fd)
        if self.error is not None:
            raise self.error

    # what a test says ------------------------------------------------------------------------------------------------
    def instance(self, behave: Behaviour | None = None, name: str | None = None) -> Instance:
        one = Instance(self.directory / (name or f"i{len(self.instances)}.sock"), behave)
        self.instances.append(one)
        return one

    def publish(
        self, *variants: routing.VariantRoute, name: str = "demo", serving: bool = True, wait: bool = True
    ) -> None:
        self.generation += 1
        endpoint = routing.EndpointRoute(account=ACCOUNT, region=REGION, name=name, variants=variants)
        table = routing.RouteTable(
            generation=self.generation, endpoints=(endpoint,) if variants else (), credentials=(KEY,), serving=serving
        )
        self.control.publish(table, wait=wait)

    def serve(self, *behaviours: Behaviour) -> Instance:
        """One endpoint `demo` of one variant, an instance for each behaviour; returns the first."""
        made = [self.instance(each) for each in behaviours or (ok(),)]
        self.publish(variant(made))
        return made[0]

    def connect(self) -> Wire:
        wire = Wire(socket.create_connection(("127.0.0.1", self.port), DEADLINE_S))
        self.wires.append(wire)
        return wire

    def invoke(self, body: bytes = b"{}", **kwargs: object) -> Heard:
        wire = self.connect()
        wire.send(request(body, **kwargs))  # type: ignore[arg-type]
        heard = wire.read()
        wire.close()
        return heard

    def in_flight(self) -> int:
        return sum(self.counters.gauge_total(slot) for slot in range(self.layout.gauges))

    def counted(self, counter: int, slot: int = 0) -> int:
        return self.counters.counter_total(slot, counter)

    def settled(self) -> None:
        """Every gauge is back at zero."""
        wait_for(lambda: self.in_flight() == 0, "the in-flight gauges to return to zero")


def request(
    body: bytes = b"{}",
    *,
    path: bytes = b"/endpoints/demo/invocations",
    method: bytes = b"POST",
    query: bytes = b"",
    fields: Sequence[tuple[bytes, bytes]] = (),
    unsigned: Sequence[tuple[bytes, bytes]] = (),
    chunks: Sequence[bytes] | None = None,
    service: str = "sagemaker",
    secret: str = KEY.secret_key,
    access_key: str = KEY.access_key,
    now_s: float | None = None,
    signed_body: bytes | None = None,
    declared: int | None = None,
) -> bytes:
    """A signed request's bytes. `chunks`: sent chunked. `signed_body`: what the signature is over, instead of the body."""
    whole = b"".join(chunks) if chunks is not None else body
    head = [(b"host", b"127.0.0.1"), *fields]
    added = sigv4.sign(
        method=method,
        path=path,
        query=query,
        headers=head,
        payload_sha256=sha256(whole if signed_body is None else signed_body).hexdigest(),
        access_key=access_key,
        secret_key=secret,
        region=REGION,
        service=service,
        now_s=time.time() if now_s is None else now_s,
    )
    lines = [*head, *added, *unsigned]
    if chunks is not None:
        lines.append((b"transfer-encoding", b"chunked"))
        payload = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\n\r\n"
    else:
        lines.append((b"content-length", b"%d" % (len(body) if declared is None else declared)))
        payload = body
    target = path + (b"?" + query if query else b"")
    return (
        b"%b %b HTTP/1.1\r\n" % (method, target) + b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n" + payload
    )


@contextlib.contextmanager
def running(directory: Path, **kwargs: object) -> Iterator[Rig]:
    rig = Rig(directory, **kwargs)  # type: ignore[arg-type]
    try:
        yield rig
        rig.settled()
    finally:
        rig.close()
