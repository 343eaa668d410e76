"""Runs an ASGI application on a listening socket that somebody else made: uvicorn, without its signals and its log.

Called by app (the control process) and objects (the S3 process); both sit behind the edge.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from mooring.kit.tasks import Group

App = ASGIApp

_KEEP_ALIVE_S = 3600  # the edge keeps its connections; who closes first is its choice


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, saying when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self._ready()


@contextlib.asynccontextmanager
async def serving(
    app: App, listener: socket.socket, tasks: Group, *, drain_s: int, ready: Callable[[], None] = lambda: None
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve until the end of the block; requests in flight then have `drain_s` to end. Yields the serving task, which ends
    early only by failing. The socket stays the caller's.
    """
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
        timeout_graceful_shutdown=drain_s,
    )
    server = _Server(config, ready)
    task = tasks.start("http", server.serve(sockets=[listener]))
    try:
        yield task
    finally:
        server.should_exit = True
        await asyncio.wait([task])
