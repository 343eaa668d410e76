"""How the supervisor tells a child what it is: one JSON document on an inherited descriptor (MOORING_LAUNCH_FD).

Never argv and never the environment's values: those are readable by others.
"""

import os

import msgspec

from mooring.kit.counters import Layout
from mooring.settings import Settings

ENV_LAUNCH_FD = "MOORING_LAUNCH_FD"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a child process gets. A descriptor is -1 where the process has none of that kind."""

    process: str  # edge | control | s3
    settings: Settings
    supervisor_pid: int
    layout: Layout
    counters_fd: int = -1
    worker: int = -1  # edge: its index
    listen_fd: int = -1  # edge: TCP; s3: s3.sock; control: control.sock
    routes_fd: int = -1  # control: routes.sock
    port: int = 0  # the port really bound (settings.port may be 0)


def write(launch: Launch) -> int:
    """Put the document into an anonymous file; returns its descriptor for the child."""
    fd = os.memfd_create("mooring-launch", 0)
    os.write(fd, msgspec.json.encode(launch))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read() -> Launch:
    """What this process is. Raises KeyError when it was not started by a supervisor."""
    fd = int(os.environ.pop(ENV_LAUNCH_FD))
    with os.fdopen(fd, "rb") as file:
        return msgspec.json.decode(file.read(), type=Launch)
