"""The edge worker process: its own listening socket, shared counters, the other processes by their Unix sockets."""

import asyncio
import contextlib
import resource

import uvloop

from mooring.app.launch import Launch
from mooring.edge import worker
from mooring.gateway.server import GatewayLimits
from mooring.kit.counters import Counters

DRAIN_S = 15.0  # under the supervisor's EDGE_GRACE_S
_MAX_FILES = 1 << 17


def run(launch: Launch) -> int:
    """Until SIGTERM; returns the exit status."""
    _raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(launch))
    return 0


async def _run(launch: Launch) -> None:
    settings = launch.settings
    await worker.run(
        listen_fd=launch.listen_fd,
        worker=launch.worker,
        counters=Counters(launch.counters_fd, launch.layout),
        control_socket=str(launch.run_dir / "control.sock"),
        s3_socket=str(launch.run_dir / "s3.sock"),
        routes_socket=str(launch.run_dir / "routes.sock"),
        region=settings.region,
        gateway_limits=GatewayLimits(
            invocation_timeout_s=settings.invocation_timeout_s, max_body_bytes=settings.invocation_max_bytes
        ),
        drain_s=DRAIN_S,
        drop_member=launch.drop_member,
    )


def _raise_file_limit() -> None:
    """A worker holds a descriptor per client; the usual soft limit of 1024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(_MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
