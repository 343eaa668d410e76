"""How the supervisor tells a child what it is: one JSON document on an inherited descriptor (MOORING_LAUNCH_FD).

Never argv and never the environment's values: those are readable by others.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from mooring.kit.counters import Layout
from mooring.settings import Settings

ADDRESS_NAME = "address"  # <data>/run/address: "<numeric host> <port>", read by instances' forwarders
ENV_LAUNCH_FD = "MOORING_LAUNCH_FD"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a child process gets. A descriptor is -1 where the process has none of that kind."""

    process: str  # edge | control | s3
    settings: Settings  # data_dir is absolute
    supervisor_pid: int
    data_id: str  # <data>/id: names this directory's cgroups
    layout: Layout
    counters_fd: int = -1
    worker: int = -1  # edge: its index
    listen_fd: int = -1  # edge: TCP; s3: s3.sock; control: control.sock
    routes_fd: int = -1  # control: routes.sock
    ready_fd: int = -1  # control: a byte is written there when the server answers
    port: int = 0  # the port really bound (settings.port may be 0)
    drop_member: str | None = None  # test-only: Operation.Member thrown away after parsing

    @property
    def url(self) -> str:
        """Where this machine reaches the server."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.host, self.settings.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def run_dir(self) -> Path:
        """Where the sockets of this server's life are."""
        return self.settings.data_dir / "run"


def write(launch: Launch) -> int:
    """Put the document into an anonymous file; returns its descriptor for the child."""
    fd = os.memfd_create("mooring-launch", 0)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(msgspec.json.encode(launch, enc_hook=_plain))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read() -> Launch:
    """What this process is. Raises KeyError when it was not started by a supervisor."""
    fd = int(os.environ.pop(ENV_LAUNCH_FD))
    with os.fdopen(fd, "rb") as file:
        return msgspec.json.decode(file.read(), type=Launch, dec_hook=_typed)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))


def _typed(kind: type[Any], value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)
