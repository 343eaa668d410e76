"""Runs a level-triggered handler over keys: wake-ups are hints, a periodic resync of every key is the guarantee.

The handler gets a key, reads all state afresh, and returns when to look again (seconds, or None). It raises `Temporary` for
what may pass; anything else is a bug: logged with its traceback. Either way the key backs off and is tried again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

from mooring.kit.clock import Clock
from mooring.kit.tasks import Group
from mooring.reconcile.queue import Queue

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Temporary(Exception):
    """Not now; the text says why."""


class Loop(Generic[K]):
    """See the module. At most `limit` keys are handled at once, each by one task."""

    def __init__(
        self,
        *,
        handle: Callable[[K], Awaitable[float | None]],
        resync: Callable[[], Awaitable[Iterable[K]]],
        clock: Clock,
        resync_s: float = 10.0,
        limit: int = 64,
        on_fatal: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self._handle = handle
        self._resync = resync
        self._clock = clock
        self._resync_s = resync_s
        self._limit = limit
        self._queue: Queue[K] = Queue()
        self._running = 0
        self._woken = asyncio.Event()
        self._tasks = Group("reconcile", on_fatal)

    def start(self) -> None:
        """Begin handling."""
        self._tasks.start("dispatch", self._dispatch())
        self._tasks.start("resync", self._resync_forever())

    def wake(self, key: K) -> None:
        """Look at this key soon."""
        self._queue.add(key, now_s=self._clock.monotonic_s())
        self._woken.set()

    async def aclose(self) -> None:
        """Cancel what runs."""
        await self._tasks.aclose()

    async def _dispatch(self) -> None:
        while True:
            self._woken.clear()
            while self._running < self._limit:
                key = self._queue.take(now_s=self._clock.monotonic_s())
                if key is None:
                    break
                self._running += 1
                self._tasks.start(str(key), self._run(key))
            due_s = self._queue.next_due_s() if self._running < self._limit else None
            delay_s = None if due_s is None else max(due_s - self._clock.monotonic_s(), 0.0)
            try:
                async with asyncio.timeout(delay_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _run(self, key: K) -> None:
        try:
            again_in_s = await self._handle(key)
        except Temporary as error:
            delay_s = self._queue.failed(key, now_s=self._clock.monotonic_s())
            logger.info("%s: %s; again in %.1f s", key, error, delay_s)
        except Exception:
            delay_s = self._queue.failed(key, now_s=self._clock.monotonic_s())
            logger.exception("%s: failed; again in %.1f s", key, delay_s)
        else:
            self._queue.done(key, now_s=self._clock.monotonic_s(), again_in_s=again_in_s)
        finally:
            self._running -= 1
            self._woken.set()

    async def _resync_forever(self) -> None:
        while True:
            await asyncio.sleep(self._resync_s)
            try:
                keys = await self._resync()
            except Temporary as error:
                logger.warning("resync: %s", error)
                continue
            except Exception:
                logger.exception("resync failed")
                continue
            for key in keys:
                self.wake(key)
