"""The S3 process: opens its directory and serves a listening socket that somebody else made. Called by `app`."""

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from mooring.domain.ids import Scope
from mooring.kit.clock import Clock, SystemClock
from mooring.kit.tasks import Group
from mooring.net import asgi
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
    tasks = Group("objects")
    try:
        await workers.run(storage.start)
        site = Site(storage=storage, uploads=Uploads(storage), workers=workers)
        app = S3App(site, credentials, clock)
        async with asgi.serving(app, listener, tasks, drain_s=DRAIN_S, ready=ready) as serving:
            await asyncio.shield(serving)
    finally:
        await tasks.aclose()
        await asyncio.to_thread(_close, workers, storage)
        listener.close()


def _close(workers: Workers, storage: Storage) -> None:
    workers.close()
    storage.close()
