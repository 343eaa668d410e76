"""Driver without processes: each instance is an HTTP server on a real Unix socket in this very process.

Shipped for tests of everything above the driver (reconcile, gateway, app). A `FakeMachine` is what outlives a server: give
the same one to a new FakeDriver to play a restart, and take its instances with `recover`. Failures are scripted per image
(`machine.behaviours`), or done to running instances (`crash`, `set_ping`). The default model echoes, but for the body
`exit <n>`, which ends the instance with that code, as tests/conformance's real program does.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mooring import contract
from mooring.domain.ids import InstanceId
from mooring.domain.instance import Exit, Handle, InstanceSpec
from mooring.kit import unixpath
from mooring.kit.tasks import Group
from mooring.runtime.driver import Capabilities, DriverError, Prepared, Progress

DRIVER = "fake"
_MAX_BODY_BYTES = 64 << 20
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a fake model gets. Header names in lower case."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a fake model gives."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/octet-stream"),)


Model = Callable[[Request], Awaitable[Answer]]


async def echo(request: Request) -> Answer:
    """The default model."""
    return Answer(body=request.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How instances of an image behave. `prepare_gate`: preparing waits until it is set. `exit_at_start`: the instance ends
    as soon as it has been started, printing `output`. `ignores_stop`: it needs SIGKILL.
    """

    prepare_error: DriverError | None = None
    prepare_gate: asyncio.Event | None = None
    start_error: DriverError | None = None
    exit_at_start: Exit | None = None
    ping_status: int = 200
    ignores_stop: bool = False
    output: str = ""
    model: Model = echo


@dataclass(slots=True)
class FakeInstance:
    """An instance that was started. `requests` counts invocations."""

    spec: InstanceSpec
    handle: Handle
    behaviour: Behaviour
    server: asyncio.Server
    ended: asyncio.Future[Exit]
    requests: int = 0
    connections: set[asyncio.StreamWriter] = field(default_factory=set)


class FakeMachine:
    """What outlives a server: instances, and how images behave. Sockets lie in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.default = Behaviour()
        self.behaviours: dict[str, Behaviour] = {}  # by image
        self.instances: dict[InstanceId, FakeInstance] = {}
        self.started = 0  # starts that succeeded
        self.prepared = 0
        self._tasks = Group("fake-machine")
        self._next_pid = 1

    def crash(self, instance_id: InstanceId, *, code: int = 1, oom_killed: bool = False) -> None:
        """End a running instance from within."""
        instance = self.instances[instance_id]
        words = instance.behaviour.output
        self._end(instance, Exit(code=code, oom_killed=oom_killed, last_words=words))

    def set_ping(self, instance_id: InstanceId, status: int) -> None:
        """What a running instance's /ping answers from now on."""
        instance = self.instances[instance_id]
        instance.behaviour = replace(instance.behaviour, ping_status=status)

    async def aclose(self) -> None:
        """End everything."""
        for instance in list(self.instances.values()):
            self._end(instance, Exit(code=-9))
        await self._tasks.aclose()

    async def start(self, spec: InstanceSpec, behaviour: Behaviour, resolved_image: str) -> FakeInstance:
        """What a driver's start does here."""
        path = str(self.directory / f"{spec.instance_id}.sock")
        with contextlib.closing(unixpath.SocketPath(path)) as socket_path:
            server = await asyncio.start_unix_server(
                lambda reader, writer: self._accept(spec.instance_id, reader, writer), socket_path.address
            )
        self.started += 1
        self._next_pid += 1
        handle = Handle(
            instance_id=spec.instance_id,
            driver=DRIVER,
            directory=str(self.directory),
            address=f"unix:{path}",
            resolved_image=resolved_image,
            shim_pid=self._next_pid,
        )
        ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        instance = FakeInstance(spec=spec, handle=handle, behaviour=behaviour, server=server, ended=ended)
        self.instances[spec.instance_id] = instance
        if behaviour.exit_at_start is not None:
            self._end(instance, replace(behaviour.exit_at_start, last_words=behaviour.output))
        return instance

    def _end(self, instance: FakeInstance, outcome: Exit) -> None:
        if instance.ended.done():
            return
        instance.ended.set_result(outcome)
        instance.server.close()
        for writer in list(instance.connections):
            writer.transport.abort()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(instance.handle.address.removeprefix("unix:"))

    def terminate(self, instance: FakeInstance) -> None:
        """SIGTERM."""
        if not instance.behaviour.ignores_stop:
            self._end(instance, Exit(code=0, last_words=instance.behaviour.output))

    def kill(self, instance: FakeInstance) -> None:
        """SIGKILL."""
        self._end(instance, Exit(code=-9, last_words=instance.behaviour.output))

    # HTTP ------------------------------------------------------------------------------------------------------------
    def _accept(self, instance_id: InstanceId, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        instance = self.instances[instance_id]
        instance.connections.add(writer)
        self._tasks.start(f"{instance_id}-connection", self._serve(instance, reader, writer))

    async def _serve(self, instance: FakeInstance, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(instance, reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):  # the client, or the instance, is gone
            pass
        finally:
            instance.connections.discard(writer)
            writer.close()

    async def _exchange(
        self, instance: FakeInstance, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        line = await reader.readline()
        if not line:
            return False
        method, path, _ = line.decode("latin-1").split(" ", 2)
        headers = await _read_headers(reader)
        request = Request(headers=headers, body=await _read_body(reader, headers))
        answer = await self._answer(instance, method, path, request)
        writer.write(_format(answer))
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    async def _answer(self, instance: FakeInstance, method: str, path: str, request: Request) -> Answer:
        if (method, path) == ("GET", contract.PATH_PING):
            return Answer(status=instance.behaviour.ping_status)
        if (method, path) != ("POST", contract.PATH_INVOCATIONS):
            return Answer(status=404)
        instance.requests += 1
        if request.body.startswith(b"exit "):
            self.crash(instance.spec.instance_id, code=int(request.body[5:]))
            raise ConnectionAbortedError
        return await instance.behaviour.model(request)


async def _read_headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return headers


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(min(int(headers.get("content-length", "0")), _MAX_BODY_BYTES))
    body = b""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        if len(body) + size > _MAX_BODY_BYTES:
            raise ConnectionAbortedError
        body += await reader.readexactly(size)
        await reader.readline()
    await _read_headers(reader)  # trailers
    return body


def _format(answer: Answer) -> bytes:
    head = f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Status')}\r\nContent-Length: {len(answer.body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
    return head.encode("latin-1") + b"\r\n" + answer.body


class FakeDriver:
    """See the module."""

    def __init__(self, machine: FakeMachine, *, now_s: Callable[[], float] = lambda: 0.0) -> None:
        self.machine = machine
        self._now_s = now_s

    @property
    def capabilities(self) -> Capabilities:
        """None: nothing here is closed in."""
        return Capabilities(sandbox=False, network_namespace=False, hard_limits=False, notes=("fake instances",))

    def _behaviour(self, spec: InstanceSpec) -> Behaviour:
        return self.machine.behaviours.get(spec.image, self.machine.default)

    async def prepare(self, spec: InstanceSpec, progress: Progress) -> Prepared:
        """See Driver."""
        behaviour = self._behaviour(spec)
        progress(f"preparing {spec.image}")
        if behaviour.prepare_gate is not None:
            await behaviour.prepare_gate.wait()
        if behaviour.prepare_error is not None:
            raise behaviour.prepare_error
        self.machine.prepared += 1
        resolved = spec.resolved_image or f"{spec.image.partition(':')[0]}@sha256:{'0' * 64}"
        return Prepared(resolved_image=resolved, resolved_at_s=self._now_s(), token=None)

    async def start(self, spec: InstanceSpec, prepared: Prepared) -> Handle:
        """See Driver."""
        behaviour = self._behaviour(spec)
        if behaviour.start_error is not None:
            raise behaviour.start_error
        await self.remove(spec.instance_id)
        return (await self.machine.start(spec, behaviour, prepared.resolved_image)).handle

    async def recover(self, spec: InstanceSpec, handle: Handle | None) -> Handle | None:
        """See Driver."""
        instance = self.machine.instances.get(spec.instance_id)
        return None if instance is None or instance.ended.done() else instance.handle

    async def wait(self, handle: Handle) -> Exit:
        """See Driver."""
        instance = self.machine.instances.get(handle.instance_id)
        return Exit(code=-9) if instance is None else await asyncio.shield(instance.ended)

    async def stop(self, handle: Handle, *, grace_s: float) -> Exit:
        """See Driver."""
        instance = self.machine.instances.get(handle.instance_id)
        if instance is None:
            return Exit(code=-9)
        self.machine.terminate(instance)
        try:
            async with asyncio.timeout(grace_s):
                return await asyncio.shield(instance.ended)
        except TimeoutError:
            self.machine.kill(instance)
            return await instance.ended

    async def remove(self, instance_id: InstanceId) -> None:
        """See Driver."""
        instance = self.machine.instances.pop(instance_id, None)
        if instance is not None:
            self.machine.kill(instance)

    async def sweep(self, known: Collection[InstanceId]) -> Sequence[InstanceId]:
        """See Driver."""
        strays = sorted(set(self.machine.instances) - set(known))
        for stray in strays:
            await self.remove(stray)
        return strays

    async def last_words(self, handle: Handle, *, max_bytes: int) -> str:
        """See Driver."""
        instance = self.machine.instances.get(handle.instance_id)
        return "" if instance is None else instance.behaviour.output[-max_bytes:]
