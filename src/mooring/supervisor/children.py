"""One child process: started, watched, started again when it dies, stopped in its turn.

    idle ──run()──▶ alive ──died──▶ waiting (backoff) ──▶ alive …
                      ├──ended with EXIT_HOPELESS──▶ gone, has_given_up
                      └──stop(): SIGTERM, SIGKILL after grace──▶ gone

The supervisor runs one `Child.run` as a task per child. Descriptors are passed by number and close when `Start` says so.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mooring.kit.clock import Clock
from mooring.supervisor import restarts
from mooring.supervisor.restarts import Restarts

logger = logging.getLogger(__name__)

EXIT_HOPELESS = 78  # a child's word that starting it again will not help (EX_CONFIG of sysexits.h); it has said why


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What one start of a child needs. `own_fds` are the child's alone and closed here once it has them."""

    environment: Mapping[str, str]
    pass_fds: tuple[int, ...]
    own_fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """A child as the supervisor knows it. `grace_s`: from SIGTERM to SIGKILL at shutdown."""

    name: str
    arguments: tuple[str, ...]  # after `python -P`
    prepare: Callable[[], Start]
    grace_s: float
    stage: int  # children of the lowest stage are stopped first
    restarts: Restarts = field(default_factory=Restarts)


class Child:
    """Keeps one child process alive until it is told to stop."""

    def __init__(self, spec: ChildSpec, clock: Clock) -> None:
        self.spec = spec
        self._clock = clock
        self._restarts = spec.restarts
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._gone = asyncio.Event()
        self.starts = 0
        self.has_given_up = False

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def run(self) -> None:
        """Start it and start it again, until `stop`."""
        try:
            while not self._stopping.is_set():
                born_s = self._clock.monotonic_s()
                try:
                    self._process = await self._spawn()
                    if self._stopping.is_set():  # told to stop while it was being born
                        self._signal(signal.SIGTERM)
                    code = await self._process.wait()
                except OSError as error:  # out of processes or memory: the machine's trouble, tried again
                    logger.error("%s cannot be started: %s", self.spec.name, error.strerror)
                    code = -1
                if self._stopping.is_set():
                    return
                if code == EXIT_HOPELESS:
                    self.has_given_up = True
                    return
                await self._pause_after_death(code, lived_s=self._clock.monotonic_s() - born_s)
        finally:
            self._gone.set()

    async def _pause_after_death(self, code: int, *, lived_s: float) -> None:
        self._restarts, delay_s = restarts.after_death(self._restarts, lived_s=lived_s)
        level = logging.CRITICAL if self._restarts.is_crash_loop else logging.WARNING
        loop = f" ({self._restarts.young_deaths} times in a row)" if self._restarts.is_crash_loop else ""
        logger.log(level, "%s ended %s after %.1f s%s; starting it again", self.spec.name, _ending(code), lived_s, loop)
        try:
            await asyncio.wait_for(self._stopping.wait(), delay_s)
        except TimeoutError:
            return

    async def _spawn(self) -> asyncio.subprocess.Process:
        start = self.spec.prepare()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing is imported from the directory we happen to be started in
                *self.spec.arguments,
                env=dict(start.environment),
                pass_fds=start.pass_fds,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
            )
        finally:
            for fd in start.own_fds:
                os.close(fd)
        self.starts += 1
        return process

    async def stop(self) -> None:
        """SIGTERM, wait, SIGKILL. Returns when the process is gone. `run` must be running or have run."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._gone.wait(), self.spec.grace_s)
        except TimeoutError:
            logger.error("%s did not end within %.0f s and is killed", self.spec.name, self.spec.grace_s)
            self.kill()
            await self._gone.wait()

    def kill(self) -> None:
        """SIGKILL, and no new start."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                return  # it ended by itself; run() is about to see it


def _ending(code: int) -> str:
    if code >= 0:
        return f"with status {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
