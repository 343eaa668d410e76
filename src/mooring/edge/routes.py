"""The worker's end of the route channel: takes each table, swaps it in, and only then acknowledges it.

    connect ─▶ Hello ─▶ RouteTable ─▶ swap ─▶ Ack ─▶ RouteTable ─▶ …        lost: wait (0.05 s … 2 s), connect again

The last table stays in force while control restarts. Called by edge.worker. Must not know what a table means.
"""

import asyncio
import logging
import os
from collections.abc import Callable

import msgspec

from mooring.domain import channel
from mooring.domain.routing import RouteTable
from mooring.kit import frames
from mooring.net import dial

logger = logging.getLogger(__name__)

_WAITS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_CONNECT_TIMEOUT_S = 1.0
_STEADY_S = 2.0  # a channel that held this long ends a run of failures


class Subscriber:
    """See the module. `run` never returns by itself."""

    def __init__(self, path: str, *, worker: int, swap: Callable[[RouteTable], None]) -> None:
        self._path = path
        self._worker = worker
        self._swap = swap
        self._decoder = msgspec.json.Decoder(RouteTable)
        self.first = asyncio.Event()  # a table has been taken

    async def run(self) -> None:
        """Follow control for ever."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                reader, writer = await self._connect()
            except dial.ConnectError as error:
                logger.debug("route channel: %s", error)
            else:
                try:
                    await self._follow(reader, writer)
                    logger.debug("the route channel was closed; serving on with the last table")
                except (OSError, frames.FrameError, msgspec.MsgspecError) as error:
                    logger.warning("the route channel broke (%s); serving on with the last table", error)
                finally:
                    writer.close()
            if loop.time() - began_s > _STEADY_S:
                failures = 0
            await asyncio.sleep(_WAITS_S[min(failures, len(_WAITS_S) - 1)])
            failures += 1

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = await dial.connect(f"unix:{self._path}", timeout_s=_CONNECT_TIMEOUT_S)
        try:
            return await asyncio.open_unix_connection(sock=sock)
        except OSError as error:
            sock.close()
            raise dial.ConnectError(str(error)) from error

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = channel.Hello(worker=self._worker, pid=os.getpid())
        writer.write(frames.pack(msgspec.json.encode(hello)))
        await writer.drain()
        while True:
            payload = await frames.read(reader)
            if payload is None:
                return
            table = self._decoder.decode(payload)
            self._swap(table)
            self.first.set()
            writer.write(frames.pack(msgspec.json.encode(channel.Ack(generation=table.generation))))
            await writer.drain()
