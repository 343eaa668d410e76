"""Bodies on their way from the wire into an intake: back-pressure, bounded memory, nothing left of what fails.

    wire ──▶ Payload (length, aws-chunked framing) ──blocks──▶ a thread: hash, write ──▶ a thread: compare, commit

At most two blocks of a body are in memory: one being filled here, one being written there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from mooring.objects import integrity
from mooring.objects.exchange import Request
from mooring.objects.intake import Intake
from mooring.objects.payload import Payload

BLOCK_BYTES = 512 << 10
MAX_PUT_BYTES = 5 << 30
MAX_DOCUMENT_BYTES = 8 << 20

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """The threads in which everything that may block runs. Bounded; work waits its turn."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="objects")

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        """Run in a thread; the future belongs to the running loop."""
        return asyncio.wrap_future(self._pool.submit(work, *args, **kwargs))

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `submit`, and wait."""
        return await self.submit(work, *args, **kwargs)

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown(wait=True)


async def receive(
    blocks: AsyncIterator[bytes],
    *,
    intake: Intake,
    guards: integrity.Guards,
    finish: Callable[[], T],
    workers: Workers,
) -> T:
    """Take a whole body in, then run `finish` in a thread; whatever goes wrong on the way leaves nothing behind."""
    pending: asyncio.Future[None] | None = None
    block = bytearray()

    def take(data: bytearray) -> None:
        guards.update(data)
        intake.write(data)

    def take_last(data: bytearray) -> T:
        take(data)
        return finish()

    last: asyncio.Future[T] | None = None
    try:
        async for chunk in blocks:
            block += chunk
            if len(block) >= BLOCK_BYTES:
                if pending is not None:
                    await pending
                pending, block = workers.submit(take, block), bytearray()
        if pending is not None:
            await pending
        last = workers.submit(take_last, block)
        return await asyncio.shield(last)
    except BaseException:
        running = [future for future in (pending, last) if future is not None]
        if running:
            await asyncio.wait(running)  # the intake has one user at a time
        await workers.run(intake.abort)
        raise


async def read_document(request: Request, payload: Payload, *, workers: Workers) -> bytes:
    """A small body whole, its digests compared. Raises MaxMessageLengthExceeded."""
    stated = integrity.stated_by(request.headers, sha256=payload.sha256)
    return await collect(payload, integrity.Guards(stated), workers=workers)


async def collect(payload: Payload, guards: integrity.Guards, *, workers: Workers) -> bytes:
    """A small body whole; the payload must know its length to be small."""
    data = bytearray()
    async for chunk in payload:
        data += chunk

    def settle() -> None:
        guards.update(data)
        guards.settle(payload.trailers)

    await workers.run(settle)
    return bytes(data)
