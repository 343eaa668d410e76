"""The life of one instance, from its intent row to the last trace of it. Owned by reconcile.pools, one task each.

    intent row ─▶ prepare ─▶ start ─▶ handle persisted ─▶ /ping until 200 ─▶ healthy ─▶ /ping every 5 s ─┐
        ▲ found again after a restart: recover ────────────────▶┘                                         │ ended, unhealthy,
                                                                                                          ▼ or asked to leave
                row removed ◀─ driver.remove ◀─ stop ◀─ nothing in flight ◀─ routes without it acknowledged

Every step may be the last one this process makes: rows are written before and after what they describe, and every step of
the end may be done twice. What a life means for its pool (start another? give up?) is decided there, not here.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from mooring import contract
from mooring.domain import restart
from mooring.domain.instance import Exit, Handle, InstanceRecord, InstanceSpec, Phase
from mooring.domain.pool import MemberState
from mooring.domain.restart import Cause, Failure
from mooring.kit.clock import Clock
from mooring.kit.tasks import Group
from mooring.reconcile.loop import Temporary
from mooring.reconcile.routes import Publisher
from mooring.runtime.driver import Driver, DriverError
from mooring.store.base import AlreadyExists, Store, StoreError

logger = logging.getLogger(__name__)

T = TypeVar("T")
Probe = Callable[[str], Awaitable[bool]]  # address → it answered /ping with 200
LogLine = Callable[[str, str, str], None]  # log group, stream, text

LAST_WORDS_BYTES = 2048
# The ends of hundreds of instances must leave the threads of this process something for pings and starts.
REMOVALS_AT_ONCE = 4
PERSIST_ATTEMPTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Waits and bounds, seconds. hosting.md section 1.2: an attempt fails after 2 s, one about every 5 s."""

    probe_timeout_s: float = 2.0
    probe_first_s: float = 0.005
    probe_slowest_s: float = 0.25  # between two probes of a starting instance
    probe_every_s: float = 5.0
    probe_failures: int = 3  # in a row, of an instance that was healthy
    drain_timeout_s: float = 70.0
    drain_look_s: float = 0.05
    grace_s: float = 30.0
    insist_first_s: float = 0.5
    insist_cap_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything outside that an instance's life touches."""

    store: Store
    driver: Driver
    probe: Probe
    routes: Publisher
    clock: Clock
    log: LogLine
    timings: Timings
    tasks: Group
    removals: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(REMOVALS_AT_ONCE))


class Pool(Protocol):
    """What a life tells its pool."""

    def resolved(self, image: str, at_s: float) -> None:
        """The image that the spec's one was resolved to."""

    def became_healthy(self, life: "Life") -> None:
        """It may take requests."""

    def ended(self, life: "Life", failure: Failure) -> None:
        """It is over without having been asked to leave; `life.state` is LEAVING already."""

    def vanished(self, life: "Life") -> None:
        """Nothing of it was found after a restart; `life.state` is LEAVING already."""

    def gone(self, life: "Life") -> None:
        """No trace is left."""


class Life:
    """See the module. `found`: its row, where it is of an earlier life of the server."""

    def __init__(
        self,
        spec: InstanceSpec,
        *,
        seat: int,
        labels: dict[str, str],
        world: World,
        pool: Pool,
        found: InstanceRecord | None = None,
    ) -> None:
        self.spec = spec
        self.seat = seat
        self.state = MemberState.STARTING
        self.handle = None if found is None else found.handle
        self.healthy_since_s: float | None = None  # monotonic
        self.settled = asyncio.Event()  # its first probe, or its end, has been seen
        self._labels = labels
        self._world = world
        self._pool = pool
        self._found = found
        self._leave = asyncio.Event()
        self._hurry = asyncio.Event()
        self._grace_s = world.timings.grace_s

    @property
    def address(self) -> str:
        """Where it is invoked; only once started."""
        assert self.handle is not None, "not started"
        return self.handle.address

    def leave(self) -> None:
        """Drain, stop and remove it. The pool takes it out of the routes."""
        self.state = MemberState.LEAVING
        self._leave.set()

    def hurry(self, *, grace_s: float) -> None:
        """Leave without draining; at most `grace_s` between SIGTERM and SIGKILL."""
        self._grace_s = min(self._grace_s, grace_s)
        self._hurry.set()
        self.leave()

    # the task -------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """The whole life."""
        if self._found is not None and self._found.phase is Phase.STOPPING:
            self.leave()
            drain = True
        else:
            serving = self._world.tasks.start(f"serve-{self.spec.instance_id}", self._serve())
            drain = await self._until_over(serving)
        self.settled.set()
        await self._finish(drain=drain)
        self._pool.gone(self)

    async def _until_over(self, serving: "asyncio.Task[Failure | None]") -> bool:
        """Wait for the end or the wish to leave; whether requests may be in flight."""
        leaving = self._world.tasks.start(f"leave-{self.spec.instance_id}", _wait(self._leave))
        try:
            await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            serving.cancel()
        if self._leave.is_set():
            await asyncio.wait({serving})
            return self.healthy_since_s is not None
        self.state = MemberState.LEAVING
        self.settled.set()
        failure = serving.result()
        if failure is None:
            self._pool.vanished(self)
            return False
        self._say(f"Instance {self.spec.instance_id}: {restart.describe(failure) or 'ended'}")
        self._pool.ended(self, failure)
        return failure.cause is Cause.UNHEALTHY

    async def _serve(self) -> Failure | None:
        """From nothing to its end; returns how it ended, None where it was never found again."""
        window_s = self.spec.startup_timeout_s
        try:
            if self._found is None:
                handle = await self._bring_up()
            else:
                recovered = await self._find_again(self._found)
                if recovered is None:
                    return None
                handle = recovered
                age_s = self._world.clock.now_s() - self._found.created_at_s
                window_s = restart.start_window_s(startup_timeout_s=window_s, age_s=age_s)
            return await self._watch(handle, self._world.clock.monotonic_s() + window_s)
        except (DriverError, StoreError) as error:
            return _failure_of(error)
        except Exception as error:
            logger.exception("instance %s", self.spec.instance_id)
            return _failure_of(error)

    async def _bring_up(self) -> Handle:
        world, spec = self._world, self.spec
        for note in spec.limits.notes:
            self._say(f"Instance {spec.instance_id}: {note}")
        intent = InstanceRecord(spec=spec, phase=Phase.INTENT, created_at_s=world.clock.now_s(), labels=self._labels)
        await self._persist(lambda: world.store.put_instance_intent(intent))
        prepared = await world.driver.prepare(spec, self._say)
        self._pool.resolved(prepared.resolved_image, prepared.resolved_at_s)
        handle = await world.driver.start(spec, prepared)
        self.handle = handle
        await self._persist(lambda: world.store.set_instance(spec.instance_id, phase=Phase.STARTED, handle=handle))
        return handle

    async def _find_again(self, found: InstanceRecord) -> Handle | None:
        world = self._world
        handle = await world.driver.recover(found.spec, found.handle)
        if handle is None:
            return None
        self.handle = handle
        self._pool.resolved(handle.resolved_image, found.created_at_s)
        if found.phase is not Phase.STARTED or handle != found.handle:
            await self._persist(
                lambda: world.store.set_instance(found.spec.instance_id, phase=Phase.STARTED, handle=handle)
            )
        return handle

    async def _persist(self, write: Callable[[], Awaitable[None]]) -> None:
        """A write on the way up, repeated a few times: passing trouble of the store is no fault of the instance."""
        for attempt in itertools.count(1):
            try:
                return await write()
            except AlreadyExists:
                return None  # an attempt that seemed to fail did not: the id is ours alone
            except StoreError as error:
                if not error.retryable or attempt == PERSIST_ATTEMPTS:
                    raise
                logger.warning("instance %s: %s; again", self.spec.instance_id, error)
            await asyncio.sleep(restart.backoff_s(attempt))
        return None

    # health ---------------------------------------------------------------------------------------------------------
    async def _watch(self, handle: Handle, deadline_s: float) -> Failure:
        ended = self._world.tasks.start(f"wait-{self.spec.instance_id}", _quietly(self._world.driver.wait(handle)))
        try:
            failure = await self._until_healthy(handle, ended, deadline_s)
            if failure is not None:
                return failure
            self.state = MemberState.HEALTHY
            self.healthy_since_s = self._world.clock.monotonic_s()
            self._pool.became_healthy(self)
            self.settled.set()
            return await self._while_healthy(handle, ended)
        finally:
            ended.cancel()

    async def _until_healthy(
        self, handle: Handle, ended: "asyncio.Task[Exit | DriverError]", deadline_s: float
    ) -> Failure | None:
        timings, clock = self._world.timings, self._world.clock
        began_s = clock.monotonic_s()
        while True:
            answered = await self._probe(handle, ended)
            if ended.done():
                return _failure_of_end(ended.result(), starting=True)
            if answered:
                return None
            self.settled.set()
            left_s = deadline_s - clock.monotonic_s()
            if left_s <= 0:
                words = await self._world.driver.last_words(handle, max_bytes=LAST_WORDS_BYTES)
                return Failure(
                    cause=Cause.START_TIMEOUT,
                    detail=f"It did not answer /ping with 200 within {self.spec.startup_timeout_s:g} s.",
                    exit=Exit(code=None, last_words=words),
                )
            # A tenth of the time it has taken already: quick models are found ready quickly, slow ones not pestered.
            pause_s = min(max((clock.monotonic_s() - began_s) / 10, timings.probe_first_s), timings.probe_slowest_s)
            await asyncio.wait({ended}, timeout=min(pause_s, left_s))

    async def _while_healthy(self, handle: Handle, ended: "asyncio.Task[Exit | DriverError]") -> Failure:
        timings = self._world.timings
        failures = 0
        while True:
            await asyncio.wait({ended}, timeout=timings.probe_every_s)
            answered = not ended.done() and await self._probe(handle, ended)
            if ended.done():
                return _failure_of_end(ended.result(), starting=False)
            failures = 0 if answered else failures + 1
            if failures >= timings.probe_failures:
                words = await self._world.driver.last_words(handle, max_bytes=LAST_WORDS_BYTES)
                return Failure(
                    cause=Cause.UNHEALTHY,
                    detail=f"It failed {failures} pings in a row.",
                    exit=Exit(code=None, last_words=words),
                )

    async def _probe(self, handle: Handle, ended: "asyncio.Task[Exit | DriverError]") -> bool:
        """One ping, cut short by the instance's end."""
        probing = self._world.tasks.start(f"probe-{self.spec.instance_id}", self._probe_once(handle.address))
        try:
            await asyncio.wait({probing, ended}, return_when=asyncio.FIRST_COMPLETED)
            return probing.done() and probing.result()
        finally:
            probing.cancel()

    async def _probe_once(self, address: str) -> bool:
        try:
            async with asyncio.timeout(self._world.timings.probe_timeout_s):
                return await self._world.probe(address)
        except (TimeoutError, OSError):
            return False

    # the end --------------------------------------------------------------------------------------------------------
    async def _finish(self, *, drain: bool) -> None:
        """Each step is repeated until it works: what is left over would hold memory that nobody counts."""
        world, instance_id, handle = self._world, self.spec.instance_id, self.handle
        withdrawn = world.routes.generation  # the pool took it out before; this table is without it
        if handle is not None:
            # Written before draining: a server that starts now must not give it traffic again.
            await self._insist(lambda: world.store.set_instance(instance_id, phase=Phase.STOPPING, handle=handle))
            if drain:
                await self._drain(withdrawn)
            await self._insist(lambda: self._stop(handle))
        await self._insist(self._remove)
        await self._insist(lambda: world.store.remove_instance(instance_id))
        world.routes.free_instance(instance_id)

    async def _remove(self) -> None:
        async with self._world.removals:
            await self._world.driver.remove(self.spec.instance_id)

    async def _stop(self, handle: Handle) -> None:
        """SIGTERM, and SIGKILL after the grace, which shrinks when the server itself is asked to stop meanwhile."""
        driver = self._world.driver
        if not self._hurry.is_set():
            hurried = self._world.tasks.start(f"hurry-{self.spec.instance_id}", _wait(self._hurry))
            stop = _quietly(driver.stop(handle, grace_s=self._grace_s))
            stopping = self._world.tasks.start(f"stop-{self.spec.instance_id}", stop)
            try:
                await asyncio.wait({hurried, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    end = stopping.result()
                    if isinstance(end, DriverError):
                        raise end
                    return
            finally:
                hurried.cancel()
                stopping.cancel()
        await driver.stop(handle, grace_s=self._grace_s)

    async def _drain(self, generation: int) -> None:
        """Until every worker has routes without it and nothing is in flight; bounded."""
        hurried = self._world.tasks.start(f"hurry-{self.spec.instance_id}", _wait(self._hurry))
        idle = self._world.tasks.start(f"drain-{self.spec.instance_id}", self._until_idle(generation))
        timeout_s = self._world.timings.drain_timeout_s
        try:
            await asyncio.wait({hurried, idle}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not idle.done() and not self._hurry.is_set():
                in_flight = self._world.routes.in_flight(self.spec.instance_id)
                logger.warning(
                    "instance %s is stopped undrained after %g s, with %d requests in flight",
                    self.spec.instance_id,
                    timeout_s,
                    in_flight,
                )
        finally:
            hurried.cancel()
            idle.cancel()

    async def _until_idle(self, generation: int) -> None:
        routes, timings = self._world.routes, self._world.timings
        while True:
            try:
                await routes.acknowledged(generation, timeout_s=timings.drain_timeout_s)
                break
            except Temporary as error:
                logger.info("draining %s: %s", self.spec.instance_id, error)
        # The gauges lie in memory that other processes write: there is nothing to wait on.
        while routes.in_flight(self.spec.instance_id) > 0:  # noqa: ASYNC110
            await asyncio.sleep(timings.drain_look_s)

    async def _insist(self, step: Callable[[], Awaitable[object]]) -> None:
        delay_s = self._world.timings.insist_first_s
        while True:
            try:
                await step()
                return
            except (DriverError, StoreError) as error:
                logger.warning("ending instance %s: %s; again in %g s", self.spec.instance_id, error, delay_s)
            except Exception:
                logger.exception("ending instance %s; again in %g s", self.spec.instance_id, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, self._world.timings.insist_cap_s)

    def _say(self, text: str) -> None:
        self._world.log(self.spec.log_group, self.spec.log_stream, text)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _quietly(waiting: Coroutine[object, object, Exit]) -> Exit | DriverError:
    """The driver's trouble as a value: the task's owner looks at it, not the log."""
    try:
        return await waiting
    except DriverError as error:
        return error


def _failure_of_end(end: Exit | DriverError, *, starting: bool) -> Failure:
    if isinstance(end, DriverError):
        return _failure_of(end)
    if starting and end.code == contract.EXIT_MODEL_LOAD_FAILED:
        return Failure(cause=Cause.LOAD_FAILED, exit=end)
    return Failure(cause=Cause.EXITED, exit=end)


def _failure_of(error: BaseException) -> Failure:
    if isinstance(error, DriverError):
        return Failure(cause=Cause.DRIVER_PASSING if error.retryable else Cause.DRIVER_FINAL, detail=error.reason)
    if isinstance(error, StoreError):
        return Failure(cause=Cause.INTERNAL, detail="The state could not be written.")
    return Failure(cause=Cause.INTERNAL, detail="An internal error occurred; the server's log has it.")
