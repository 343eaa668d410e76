"""Publishes the route table to the edge workers and knows what each of them has acknowledged.

    endpoints, pools ──set_*──▶ Table ──generation n──▶ one frame ──▶ every subscriber ──Ack n──▶ acknowledged(n)

Any number of changes made before the next publication travel in one table. A generation is acknowledged when every worker
index 0 … N−1 has a connection that has acknowledged it or a later one. Also here: the slots of the shared counters, and the
watch on silent workers. Used by reconcile.endpoints, reconcile.pools and reconcile.reconciler; knows no store and no driver.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from mooring.domain.channel import S3_WORKER, Ack, Hello
from mooring.domain.endpoint import EndpointKey
from mooring.domain.ids import PoolId
from mooring.domain.rollout import Traffic
from mooring.domain.routing import Credential, RouteTable
from mooring.kit import frames
from mooring.kit.clock import Clock
from mooring.kit.counters import Counters
from mooring.kit.tasks import Group
from mooring.reconcile import beats, slotfile
from mooring.reconcile.loop import Temporary
from mooring.reconcile.slots import Slots
from mooring.reconcile.table import Members, Table, VariantKey

logger = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 5.0
TICK_S = 1.0
# For so long the slots' file may keep a table waiting. Only the attribution of counts across a restart of this process
# hangs on it: routes go first.
SAVE_PATIENCE_S = 0.25


class NotAcknowledged(Temporary):
    """Some worker has not acknowledged a generation in time."""


class _Subscriber:
    """One connection of a worker."""

    def __init__(self, hello: Hello, writer: asyncio.StreamWriter) -> None:
        self.worker = hello.worker
        self.pid = hello.pid
        self.writer = writer
        self.sent = 0
        self.acknowledged = 0
        self.wake = asyncio.Event()


class Publisher:
    """See the module. Takes over `listener`; nothing is published before `release`."""

    def __init__(
        self,
        *,
        listener: socket.socket,
        counters: Counters,
        clock: Clock,
        slots_file: Path | None = None,
        supervisor_pid: int | None = None,
        on_fatal: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self._listener = listener
        self._counters = counters
        self._clock = clock
        self._keeper = None if slots_file is None else slotfile.Keeper(slots_file)
        self._supervisor_pid = os.getppid() if supervisor_pid is None else supervisor_pid
        layout = counters.layout
        self._workers = layout.workers
        self._instance_slots: Slots[str] = Slots(layout.gauges, of_what="instances")
        self._variant_slots: Slots[VariantKey] = Slots(layout.groups, of_what="variants")
        self._table = Table(instance_slots=self._instance_slots, variant_slots=self._variant_slots)
        # Instances that may still count requests of a variant; its slot is free after theirs are.
        self._users: dict[VariantKey, set[str]] = {}
        self.generation = 1  # of the newest change; published up to `_published`
        self._published = 0
        self._frame = b""
        self._released = False
        self._dirty = asyncio.Event()
        self._slots_changed = False
        self._subscribers: dict[int, _Subscriber] = {}
        self._writers: set[asyncio.StreamWriter] = set()  # every open connection
        self._closed = False
        self._moved = asyncio.Event()
        self._watch = beats.Watch()
        self._tasks = Group("routes", on_fatal)
        self._conversations = Group("routes")
        self._server: asyncio.AbstractServer | None = None

    # life -----------------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Remember the slots of an earlier life, listen, publish (once released), watch."""
        if self._keeper is not None:
            remembered = await self._keeper.load()
            self._instance_slots.seed(remembered.instances)
            self._variant_slots.seed(remembered.variants)
            self._tasks.start("slots", self._keeper.run())
        self._server = await asyncio.start_unix_server(self._connected, sock=self._listener)
        self._tasks.start("publish", self._publish_forever())
        self._tasks.start("tick", self._tick_forever())

    def release(self, instances: Collection[str], variants: Collection[VariantKey]) -> None:
        """The state is whole: publish from now on. Slots of anything but these are let go."""
        self.generation += 1
        self._instance_slots.retain(instances, generation=self.generation)
        self._variant_slots.retain(variants, generation=self.generation)
        self._released = True
        self._dirty.set()

    async def aclose(self) -> None:
        """Stop listening, drop every subscriber."""
        if self._server is not None:
            self._server.close()
        self._closed = True
        await self._conversations.aclose()
        for writer in self._writers:
            writer.close()  # also of a conversation that was cancelled before its first step
        await self._tasks.aclose()
        if self._keeper is not None:
            self._keeper.close()

    # changes: each returns the generation whose acknowledgement makes it true everywhere -----------------------------
    def set_traffic(self, key: EndpointKey, traffic: tuple[Traffic, ...] | None) -> int:
        """Give an endpoint this route; None takes it away. Its variants must have been claimed."""
        if self._table.set_traffic(key, traffic):
            self._note_users(key)
            self._changed()
        return self.generation

    def set_members(self, pool_id: PoolId, members: Members) -> int:
        """The instances of a pool that may take requests. They must have been claimed."""
        if self._table.set_members(pool_id, members):
            for key, traffic in self._table.traffic.items():
                if any(share.pool_id == pool_id for share in traffic):
                    self._note_users(key)
            self._changed()
        return self.generation

    def set_serving(self, serving: bool) -> int:
        """Whether /_mooring/health answers 200."""
        if self._table.serving != serving:
            self._table.serving = serving
            self._changed()
        return self.generation

    def set_credentials(self, credentials: Sequence[Credential]) -> int:
        """The long-lived keys, whole."""
        if self._table.credentials != tuple(credentials):
            self._table.credentials = tuple(credentials)
            self._changed()
        return self.generation

    def _changed(self) -> None:
        self.generation += 1
        self._dirty.set()

    def _note_users(self, key: EndpointKey) -> None:
        for share in self._table.traffic.get(key, ()):
            users = self._users.setdefault(VariantKey(key, share.variant), set())
            users.update(self._table.members.get(share.pool_id, {}))

    # slots ----------------------------------------------------------------------------------------------------------
    def claim_instance(self, instance_id: str) -> int:
        """A gauge slot for an instance; idempotent. Raises SlotsExhausted."""
        self._reclaim()
        slot, new = self._instance_slots.claim(instance_id)
        self._slots_changed |= new
        return slot

    def free_instance(self, instance_id: str) -> None:
        """The instance is gone and in no table from the present generation on."""
        self._instance_slots.release(instance_id, generation=self.generation)

    def claim_variants(self, key: EndpointKey, names: Collection[str]) -> None:
        """Counter slots for these variants of an endpoint; idempotent. Raises SlotsExhausted."""
        self._reclaim()
        for name in sorted(names):
            slot, new = self._variant_slots.claim(VariantKey(key, name))
            if new:
                self._counters.clear_group(slot)
                self._slots_changed = True

    def release_variants(self, key: EndpointKey, *, keep: Collection[str]) -> None:
        """Let the slots of an endpoint's other variants go, as far as they are not routed."""
        routed = {share.variant for share in self._table.traffic.get(key, ())}
        for held in list(self._variant_slots):
            if held.endpoint == key and held.variant not in keep and held.variant not in routed:
                self._variant_slots.release(held, generation=self.generation)

    @property
    def instance_places(self) -> int:
        """How many instances can have a gauge slot at all."""
        return self._counters.layout.gauges

    def instance_slot(self, instance_id: str) -> int | None:
        """The gauge slot of an instance."""
        return self._instance_slots.get(instance_id)

    def variant_slot(self, key: EndpointKey, variant: str) -> int | None:
        """The counter slot of a variant."""
        return self._variant_slots.get(VariantKey(key, variant))

    def in_flight(self, instance_id: str) -> int:
        """Requests in flight to an instance, over all workers."""
        slot = self._instance_slots.get(instance_id)
        return 0 if slot is None else self._counters.gauge_total(slot)

    def traffic(self) -> dict[EndpointKey, tuple[Traffic, ...]]:
        """A copy of every endpoint's traffic."""
        return dict(self._table.traffic)

    def _reclaim(self) -> None:
        acknowledged = self.acknowledged_generation()
        freed = self._instance_slots.reclaim(
            acknowledged=acknowledged, idle=lambda _, slot: self._counters.gauge_total(slot) == 0
        )
        for instance_id, _ in freed:
            for users in self._users.values():
                users.discard(instance_id)
        idle_variants = self._variant_slots.reclaim(
            acknowledged=acknowledged, idle=lambda variant, _: not self._users.get(variant)
        )
        for variant, _ in idle_variants:
            self._users.pop(variant, None)
        self._slots_changed |= bool(freed or idle_variants)

    # acknowledgements -----------------------------------------------------------------------------------------------
    def acknowledged_generation(self) -> int:
        """The newest generation that every worker has; 0 when one is not connected."""
        newest = [
            subscriber.acknowledged if (subscriber := self._subscribers.get(worker)) is not None else 0
            for worker in range(self._workers)
        ]
        return min(newest, default=self._published)

    async def acknowledged(self, generation: int, *, timeout_s: float) -> None:
        """Return when every worker has this generation. Raises NotAcknowledged."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.acknowledged_generation() < generation:
                    await self._moved.wait()
        except TimeoutError as error:
            missing = [
                worker
                for worker in range(self._workers)
                if worker not in self._subscribers or self._subscribers[worker].acknowledged < generation
            ]
            raise NotAcknowledged(f"edge workers {missing} have not acknowledged routes {generation}") from error

    def _moved_on(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    # publishing -----------------------------------------------------------------------------------------------------
    async def _publish_forever(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if not self._released:
                continue
            if self._keeper is not None and (self._slots_changed or self._keeper.failed):
                await self._save_slots(self._keeper)
            self._frame = frames.pack(msgspec.json.encode(self._compose()))
            self._published = self.generation
            self._moved_on()
            for subscriber in self._subscribers.values():
                subscriber.wake.set()

    def _compose(self) -> RouteTable:
        return RouteTable(
            generation=self.generation,
            endpoints=self._table.compose(),
            credentials=self._table.credentials,
            serving=self._table.serving,
        )

    async def _save_slots(self, keeper: slotfile.Keeper) -> None:
        self._slots_changed = False
        keeper.note(slotfile.Held(instances=self._instance_slots.all(), variants=self._variant_slots.all()))
        if not await keeper.kept(timeout_s=SAVE_PATIENCE_S):
            logger.warning("the slots' file takes longer than %g s to write; routes go out before it", SAVE_PATIENCE_S)

    # subscribers ----------------------------------------------------------------------------------------------------
    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # accepted while closing
            writer.close()
            return
        self._writers.add(writer)
        self._conversations.start("subscriber", self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        subscriber = None
        try:
            subscriber = await self._greet(reader, writer)
            sender = self._conversations.start(f"send-{subscriber.worker}", self._send_forever(subscriber))
            try:
                await self._read_acks(reader, subscriber)
            finally:
                sender.cancel()
        except (frames.FrameError, msgspec.DecodeError, PermissionError, TimeoutError, OSError) as error:
            logger.warning("a subscriber of the routes was dropped: %s", error)
        finally:
            if subscriber is not None and self._subscribers.get(subscriber.worker) is subscriber:
                del self._subscribers[subscriber.worker]
            self._writers.discard(writer)
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Subscriber:
        check_peer(writer.get_extra_info("socket"))
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            payload = await frames.read(reader)
        if payload is None:
            raise frames.FrameError("closed before Hello")
        hello = msgspec.json.decode(payload, type=Hello)
        if not S3_WORKER <= hello.worker < self._workers:
            raise frames.FrameError(f"there is no worker {hello.worker}")
        subscriber = _Subscriber(hello, writer)
        former = self._subscribers.get(hello.worker)
        self._subscribers[hello.worker] = subscriber
        if former is not None:
            former.writer.close()  # the process behind it is gone or has connected anew
        return subscriber

    async def _read_acks(self, reader: asyncio.StreamReader, subscriber: _Subscriber) -> None:
        while (payload := await frames.read(reader)) is not None:
            ack = msgspec.json.decode(payload, type=Ack)
            if ack.generation > subscriber.sent:
                raise frames.FrameError(f"acknowledged {ack.generation}, was sent {subscriber.sent}")
            subscriber.acknowledged = max(subscriber.acknowledged, ack.generation)
            self._moved_on()

    async def _send_forever(self, subscriber: _Subscriber) -> None:
        try:
            while True:
                if subscriber.sent < self._published:
                    subscriber.sent = self._published
                    subscriber.writer.write(self._frame)
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        await subscriber.writer.drain()
                    continue
                subscriber.wake.clear()
                await subscriber.wake.wait()
        except (TimeoutError, OSError) as error:
            logger.warning("worker %d takes no routes: %r", subscriber.worker, error)
            subscriber.writer.transport.abort()

    # silent workers -------------------------------------------------------------------------------------------------
    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._reclaim()
            for worker in range(self._workers):
                self._look_at(worker)

    def _look_at(self, worker: int) -> None:
        identity = beats.identify(self._counters.pid(worker))
        silent = self._watch.observe(worker, identity, self._counters.beats(worker), now_s=self._clock.monotonic_s())
        if silent and identity is not None and beats.kill(identity, supervisor_pid=self._supervisor_pid):
            logger.error(
                "edge worker %d (pid %d) was silent for %g s and was killed", worker, identity.pid, beats.SILENT_S
            )


def check_peer(connection: socket.socket) -> None:
    """Raises PermissionError when the process at the other end is of another user."""
    if not hasattr(socket, "SO_PEERCRED"):
        return  # no such check outside Linux; the socket file is 0600
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    if uid != os.getuid():
        raise PermissionError(f"user {uid} is not {os.getuid()}")
