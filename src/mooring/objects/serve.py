"""The S3 process: opens its directory and serves a listening socket that somebody else made. Called by `app`."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from mooring.domain.ids import Scope
from mooring.kit.clock import Clock, SystemClock
from mooring.objects.credentials import CredentialSource
from mooring.objects.keys import KeyRing
from mooring.objects.receiving import Workers
from mooring.objects.server import S3App
from mooring.objects.site import Site
from mooring.objects.storage import Storage
from mooring.objects.uploads import Uploads

logger = logging.getLogger(__name__)

THREADS = 32  # how many requests can share one sync
DRAIN_S = 20
_KEEP_ALIVE_S = 3600  # the edge keeps its connections; who closes first is its choice


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, saying when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the app's business."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self._ready()


async def run(
    listen_fd: int,
    root: Path,
    *,
    region: str,
    account: str,
    credentials: CredentialSource,
    keys: KeyRing,
    ready: Callable[[], None],
    clock: Clock | None = None,
) -> None:
    """Serve until cancelled; then requests in flight have DRAIN_S to end. `ready` is called once the socket is served.

    The descriptor is this function's from now on: it is closed at the end. Raises StorageError when the directory cannot be
    used, KeyLostError when trying again will not help.
    """
    clock = clock or SystemClock()
    listener = socket.socket(fileno=listen_fd)
    storage = Storage(root, Scope(account=account, region=region), clock, keys)
    workers = Workers(THREADS)
    try:
        await workers.run(storage.start)
        site = Site(storage=storage, uploads=Uploads(storage), workers=workers)
        await _serve(S3App(site, credentials, clock), listener, ready)
    finally:
        await asyncio.to_thread(_close, workers, storage)
        listener.close()


def _close(workers: Workers, storage: Storage) -> None:
    workers.close()
    storage.close()


async def _serve(app: S3App, listener: socket.socket, ready: Callable[[], None]) -> None:
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
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = _Server(config, ready)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(sockets=[listener]), name="objects/serve")
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = True
            await asyncio.wait([serving])
            raise
