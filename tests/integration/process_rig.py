"""Real instances without the model server: a small program that answers /ping and runs what a test asks of it."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mooring.domain.ids import InstanceId, PoolId, Scope
from mooring.domain.instance import Handle, InstanceSpec, Limits
from mooring.kit import clock, control_groups, unixpath
from mooring.runtime import artifacts, environments, network, process, recipes, sandbox
from mooring.runtime.driver import Prepared
from mooring.s3.memory import MemoryObjectStore

DEADLINE_S = 30.0

# POST /invocations: `exit <n>`; `eval <expression>` answers its repr, an exception's too; anything else is echoed.
PROGRAM = r"""
import os, signal, socket, sys, threading, time, ctypes, subprocess
print("server is up", flush=True)
print("on stderr", file=sys.stderr, flush=True)
def ended(*_):
    print("got SIGTERM", flush=True)
    if not os.environ.get("IGNORE_TERM"):
        os._exit(0)
signal.signal(signal.SIGTERM, ended)
hoard = []
def hog(size):
    block = bytearray(size)
    for at in range(0, size, 4096):
        block[at] = 1
    hoard.append(block)
def fork_bomb():
    made = 0
    try:
        while made < 100000:
            if os.fork() == 0:
                signal.pause()
            made += 1
    except OSError as error:
        return made, error.errno
def serve(listener):
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=talk, args=(peer,), daemon=True).start()
def talk(peer):
    file = peer.makefile("rb")
    while line := file.readline():
        length = 0
        while (header := file.readline().strip().lower()):
            if header.startswith(b"content-length:"):
                length = int(header.split(b":")[1])
        body = file.read(length)
        if body.startswith(b"exit "):
            os._exit(int(body[5:]))
        if body.startswith(b"eval "):
            try:
                body = repr(eval(body[5:].decode())).encode()
            except BaseException as error:
                body = repr(error).encode()
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
if os.environ.get("LISTEN_TCP"):
    listener = socket.create_server(("127.0.0.1", 8080))
else:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ["MOORING_SERVE_SOCKET"])
    listener.listen(64)
serve(listener)
"""

PYTHON = os.path.realpath(sys.executable)


def spec(name: str = "i-1", *, memory_bytes: int = 256 << 20, pids: int = 256, vcpu: float = 1.0) -> InstanceSpec:
    return InstanceSpec(
        instance_id=InstanceId(name),
        pool_id=PoolId("pool"),
        scope=Scope(account="000000000000", region="us-east-1"),
        owner="endpoint/test",
        image="mooring-python",
        environment={},
        model_data_url=None,
        limits=Limits(vcpu=vcpu, memory_bytes=memory_bytes, pids=pids, tmp_bytes=8 << 20),
        log_group="/aws/sagemaker/Endpoints/test",
        log_stream=f"AllTraffic/{name}",
    )


async def open_driver(
    data_dir: Path,
    *,
    node_id: str,
    settings: process.ProcessSettings | None = None,
    objects: MemoryObjectStore | None = None,
    server: network.Server | None = None,
) -> process.ProcessDriver:
    return await process.ProcessDriver.open(
        data_dir=data_dir,
        node_id=node_id,
        objects=objects or MemoryObjectStore(),
        environments=environments.EnvironmentStore(data_dir / "cache" / "envs", uv="/nonexistent/uv"),
        clock=clock.SystemClock(),
        settings=settings,
        server=server,
    )


def prepared(data_dir: Path, *, tcp: bool = False, model: Path | None = None, **environment: str) -> Prepared:
    """What `prepare` would give for the program above."""
    if tcp:
        environment["LISTEN_TCP"] = "1"
    program = sandbox.Program(
        argv=(PYTHON, "-I", "-c", PROGRAM),
        environment={"PATH": "/usr/bin:/bin", **environment},
        mounts=sandbox.interpreter_mounts(),
        python=PYTHON,
        tcp=tcp,
    )
    directory = model or data_dir / "cache" / "artifacts" / "empty"
    artifact = artifacts.Artifact(digest="", directory=str(directory))
    token = recipes.Recipe(program=program, artifact=artifact)
    return Prepared(resolved_image="mooring-python@sha256:0", resolved_at_s=0.0, token=token)


async def call(address: str, body: bytes = b"", *, path: str = "/invocations") -> bytes:
    """One request on a connection of its own; the answer's body."""
    target = unixpath.SocketPath(address.removeprefix("unix:"))
    try:
        reader, writer = await asyncio.open_unix_connection(target.address)
    finally:
        target.close()
    try:
        method = "POST" if body else "GET"
        writer.write(f"{method} {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        length = 0
        if not (await reader.readline()).startswith(b"HTTP/1.1 200"):
            raise ConnectionError("no 200")
        while line := (await reader.readline()).strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("closed") from error
    finally:
        writer.close()


async def ask(handle: Handle, expression: str) -> str:
    """What an expression is worth inside the instance."""
    return (await call(handle.address, b"eval " + expression.encode())).decode()


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while True:
        outcome = condition()
        if outcome if isinstance(outcome, bool) else await outcome:
            return
        assert time.monotonic() < end_s, f"waited in vain for: {what}"
        await asyncio.sleep(0.01)


async def healthy(handle: Handle) -> None:
    async def pings() -> bool:
        try:
            await call(handle.address, path="/ping")
        except OSError:
            return False
        return True

    await until(pings, "a ping")


def processes_of(data_dir: Path) -> list[int]:
    """Processes that have the data directory in their command line, or live in a control group of its instances."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                words = Path("/proc", name, "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(str(data_dir)) in words:
                found.append(int(name))
    return found


def groups_of(node_id: str) -> list[str]:
    wanted = f"mooring-{node_id}"
    walk = os.walk("/sys/fs/cgroup")  # passes over groups of other tests that go meanwhile
    return [os.path.join(at, name) for at, names, _ in walk for name in names if name.startswith(wanted)]


@asynccontextmanager
async def driven(
    data_dir: Path,
    node_id: str,
    settings: process.ProcessSettings | None = None,
    server: network.Server | None = None,
) -> AsyncIterator[process.ProcessDriver]:
    """A driver; afterwards nothing is left of its instances."""
    driver = await open_driver(data_dir, node_id=node_id, settings=settings, server=server)
    try:
        yield driver
    finally:
        await driver.sweep(())
        assert processes_of(data_dir) == []
        for group in groups_of(node_id):
            assert control_groups.members([group]) == set()
        assert groups_of(node_id) == []
