"""The supervisor's main loop: children up, wait for a signal, children down in their order.

    SIGTERM, SIGINT, SIGHUP ─▶ stop stage by stage (edges, then control, then s3)      a second one ─▶ SIGKILL to all

Called by `app` with everything built. Knows processes and signals, not what the children do.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from itertools import groupby

from mooring.kit.clock import Clock
from mooring.kit.tasks import Group
from mooring.supervisor.children import Child, ChildSpec

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
EXIT_FORCED = 130
EXIT_BROKEN = 1


class Supervisor:
    """Runs the children of one server."""

    def __init__(self, specs: Sequence[ChildSpec], clock: Clock) -> None:
        self.children = [Child(spec, clock) for spec in specs]
        self._asked = asyncio.Event()
        self._forced = asyncio.Event()
        self._broken = False

    async def run(self, *, on_stop: Callable[[], None]) -> int:
        """Until a signal; returns the exit status. `on_stop` is called once, before the first child is told to stop."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        tasks = Group("supervisor", on_failure=self._on_failure)
        try:
            for child in self.children:
                tasks.start(child.spec.name, self._keep(child))
            await self._asked.wait()
            on_stop()
            stopping = tasks.start("stop", self._stop_in_order())
            forced = tasks.start("forced", self._forced.wait())
            await asyncio.wait((stopping, forced), return_when=asyncio.FIRST_COMPLETED)
            if self._forced.is_set():
                return EXIT_FORCED
            return EXIT_BROKEN if self._broken else 0
        finally:
            for child in self.children:
                child.kill()
            await asyncio.gather(*(child.stop() for child in self.children if child.pid is not None))
            await tasks.aclose()
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._asked.is_set():
            logger.warning("asked again: killing what still runs; models stay and are taken over by the next start")
            self._forced.set()
        else:
            logger.info("stopping: no new connections, requests in flight are finished")
        self._asked.set()

    def _on_failure(self, name: str, error: BaseException) -> None:  # logged by the group already
        self._broken = True
        self._asked.set()

    async def _keep(self, child: Child) -> None:
        await child.run()
        if child.has_given_up:
            logger.critical("%s cannot work; the server ends", child.spec.name)
            self._broken = True
            self._asked.set()

    async def _stop_in_order(self) -> None:
        by_stage = sorted(self.children, key=lambda child: child.spec.stage)
        for _, stage in groupby(by_stage, key=lambda child: child.spec.stage):
            await asyncio.gather(*(child.stop() for child in stage))
