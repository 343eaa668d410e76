"""The status socket: whoever may open `run/status.sock` (the server's owner) gets a Report as JSON, and the end.

Not on the public port: it names everything that runs. `mooring status` reads it through app.ask.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from mooring.kit.unixpath import SocketPath
from mooring.telemetry.status import Report

logger = logging.getLogger(__name__)

SOCKET_NAME = "status.sock"
_TIMEOUT_S = 5.0
_BACKLOG = 16


class StatusSocket:
    """Serves one value, made anew for each connection."""

    def __init__(self, path: Path, report: Callable[[], Awaitable[Report]]) -> None:
        self._path = path
        self._report = report
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Listen; a socket file of an earlier life is replaced."""
        self._path.unlink(missing_ok=True)
        place = SocketPath(str(self._path))
        try:
            self._server = await asyncio.start_unix_server(self._answer, path=place.address, backlog=_BACKLOG)
            os.chmod(self._path, 0o600)
        finally:
            place.close()

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                writer.write(msgspec.json.encode(await self._report()))
                await writer.drain()
        except (TimeoutError, ConnectionError) as error:
            logger.debug("nobody took the status: %s", error)
        finally:
            writer.close()

    async def aclose(self) -> None:
        """Stop listening and remove the file."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
