"""The supervisor process: `mooring serve`. Builds what the children share, starts them, stops them.

Order of start: bind rule, data directory, credentials, sockets, counters, then s3, control and edges at once (they wait for
each other: the server is ready when control says so). Stop: edges, control, s3.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mooring.app import launch
from mooring.app.launch import ADDRESS_NAME, Launch
from mooring.identity import credentials
from mooring.identity.credentials import CredentialsError
from mooring.kit import counters, durable
from mooring.kit.clock import SystemClock
from mooring.kit.counters import Layout
from mooring.settings import Settings
from mooring.supervisor import data_dir, sockets
from mooring.supervisor.children import ChildSpec, Start
from mooring.supervisor.data_dir import Claim, DataDirError
from mooring.supervisor.sockets import ListenError
from mooring.supervisor.supervise import SIGNALS, Supervisor

logger = logging.getLogger(__name__)

# From SIGTERM to SIGKILL, one after the other: together well under the 40 s that a stop may take.
EDGE_GRACE_S = 18.0
CONTROL_GRACE_S = 15.0
S3_GRACE_S = 4.0

ENV_DROP_MEMBER = "MOORING_TEST_DROP_MEMBER"  # test-only, see api.effects


class StartError(Exception):
    """The server cannot start. One line for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a user needs to know of a server that listens."""

    url: str
    data_dir: Path
    credentials_file: Path
    region: str
    credentials_made: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What the supervisor holds open for its children."""

    settings: Settings
    claim: Claim
    layout: Layout
    counters_fd: int
    tcp: tuple[socket.socket, ...]
    control: socket.socket
    routes: socket.socket
    s3: socket.socket
    ready_read: int
    ready_write: int

    @property
    def port(self) -> int:
        return int(self.tcp[0].getsockname()[1])


def serve(settings: Settings, *, on_listening: Callable[[Started], None], on_ready: Callable[[float], None]) -> int:
    """Run the server until it is told to stop; returns the exit status. Raises StartError.

    `on_ready` gets the seconds since the start, once; restarts of a child do not call it again.
    """
    began_s = SystemClock().monotonic_s()
    for number in SIGNALS:  # until the supervisor takes them over: leave by way of every `finally`
        signal.signal(number, lambda *_: sys.exit(0))
    check_bind(settings)
    try:
        claim = data_dir.claim(settings.data_dir)
    except DataDirError as error:
        raise StartError(str(error)) from error
    try:
        made, shared = _open(settings, claim)
        try:
            on_listening(_started(shared, made=made))
            return asyncio.run(_supervise(shared, lambda: on_ready(SystemClock().monotonic_s() - began_s)))
        finally:
            _close(shared)
    finally:  # also when told to stop half-way through opening
        _empty(claim.path / "run")
        claim.release()


def _open(settings: Settings, claim: Claim) -> tuple[bool, _Shared]:
    """(whether credentials were made, what is held open). Raises StartError."""
    try:
        _, made = credentials.load_or_create(claim.path)
        return made, _share(replace(settings, data_dir=claim.path), claim)
    except (CredentialsError, ListenError) as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"cannot use the data directory {claim.path}: {error.strerror}") from error


def check_bind(settings: Settings) -> None:
    """Refuse to be reachable from elsewhere in the clear unless that was asked for. Raises StartError."""
    if not settings.insecure and not sockets.is_loopback(settings.host):
        raise StartError(
            f"--host {settings.host} can be reached from other machines and requests would cross the network "
            "unencrypted; put a TLS proxy in front and bind to 127.0.0.1, or say --insecure"
        )


def _share(settings: Settings, claim: Claim) -> _Shared:
    run = claim.path / "run"
    _empty(run)
    layout = Layout(workers=settings.edge_workers)
    tcp = tuple(sockets.listen_tcp(settings.host, settings.port, settings.edge_workers))
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    shared = _Shared(
        settings=settings,
        claim=claim,
        layout=layout,
        counters_fd=counters.create(layout),
        tcp=tcp,
        control=sockets.listen_unix(run / "control.sock"),
        routes=sockets.listen_unix(run / "routes.sock"),
        s3=sockets.listen_unix(run / "s3.sock"),
        ready_read=ready_read,
        ready_write=ready_write,
    )
    durable.write_private(run / "port", f"{shared.port}\n".encode())
    host = sockets.reachable_host(tcp[0])
    durable.write_private(run / ADDRESS_NAME, f"{host} {shared.port}\n".encode())
    return shared


def _started(shared: _Shared, *, made: bool) -> Started:
    return Started(
        url=_launch(shared).url,
        data_dir=shared.claim.path,
        credentials_file=shared.claim.path / credentials.FILE_NAME,
        region=shared.settings.region,
        credentials_made=made,
    )


async def _supervise(shared: _Shared, on_ready: Callable[[], None]) -> int:
    loop = asyncio.get_running_loop()
    said: list[bool] = []

    def ready() -> None:
        os.read(shared.ready_read, 64)
        if said:
            logger.info("ready again")
        else:
            said.append(True)
            on_ready()

    loop.add_reader(shared.ready_read, ready)
    try:
        supervisor = Supervisor(_children(shared), SystemClock())
        return await supervisor.run(on_stop=lambda: _stop_listening(shared))
    finally:
        loop.remove_reader(shared.ready_read)


def _stop_listening(shared: _Shared) -> None:
    """The edges hold the last descriptors now: when one stops accepting, the kernel refuses."""
    for listener in shared.tcp:
        listener.close()


def _close(shared: _Shared) -> None:
    for listener in (*shared.tcp, shared.control, shared.routes, shared.s3):
        listener.close()
    for fd in (shared.counters_fd, shared.ready_read, shared.ready_write):
        os.close(fd)


def _empty(run: Path) -> None:
    """Sockets, port, slots: what lies there is of one server life. The directory is ours (data_dir.claim)."""
    for entry in run.iterdir():
        if not entry.is_dir():
            entry.unlink(missing_ok=True)


# children -------------------------------------------------------------------------------------------------------------
def _launch(shared: _Shared) -> Launch:
    """What is the same for every child."""
    return Launch(
        process="",
        settings=shared.settings,
        supervisor_pid=os.getpid(),
        data_id=shared.claim.id,
        layout=shared.layout,
        port=shared.port,
        drop_member=os.environ.get(ENV_DROP_MEMBER),
    )


def _children(shared: _Shared) -> list[ChildSpec]:
    base = _launch(shared)
    s3 = msgspec.structs.replace(base, process="s3", listen_fd=shared.s3.fileno())
    control = msgspec.structs.replace(
        base,
        process="control",
        listen_fd=shared.control.fileno(),
        routes_fd=shared.routes.fileno(),
        counters_fd=shared.counters_fd,
        ready_fd=shared.ready_write,
    )
    edges = [
        msgspec.structs.replace(
            base, process="edge", worker=index, listen_fd=listener.fileno(), counters_fd=shared.counters_fd
        )
        for index, listener in enumerate(shared.tcp)
    ]
    return [
        _child("control", control, shared, grace_s=CONTROL_GRACE_S, stage=1),
        _child("s3", s3, shared, grace_s=S3_GRACE_S, stage=2),
        *(_child(f"edge {edge.worker}", edge, shared, grace_s=EDGE_GRACE_S, stage=0) for edge in edges),
    ]


def _child(name: str, document: Launch, shared: _Shared, *, grace_s: float, stage: int) -> ChildSpec:
    given = (document.listen_fd, document.routes_fd, document.counters_fd, document.ready_fd)

    def prepare() -> Start:
        fd = launch.write(document)
        return Start(
            environment=_environment() | {launch.ENV_LAUNCH_FD: str(fd)},
            # the lock goes along so that it is free only when the last process of this server is gone
            pass_fds=(fd, shared.claim.lock_fd, *(each for each in given if each >= 0)),
            own_fds=(fd,),
        )

    return ChildSpec(
        name=name, arguments=("-m", "mooring.app", document.process), prepare=prepare, grace_s=grace_s, stage=stage
    )


def _environment() -> dict[str, str]:
    """What children inherit: nothing that would steer the AWS libraries inside them, nothing of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOORING_", "BOTO"))}
