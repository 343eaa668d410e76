"""Runs an ASGI application on a listening socket that somebody else made: uvicorn, without its signals and its log."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from mooring.kit.tasks import Group

App = ASGIApp

_KEEP_ALIVE_S = 3600  # the edge keeps its connections; who closes first is its choice
_DRAIN_S = 3


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business."""
        yield


@contextlib.asynccontextmanager
async def serving(app: App, listen_fd: int, tasks: Group) -> AsyncIterator[None]:
    """Serve until the end of the block; requests in flight then have a moment to end. The descriptor becomes ours."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    server = _Server(config)
    with socket.socket(fileno=listen_fd) as listener:
        task = tasks.start("http", server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.wait([task])
