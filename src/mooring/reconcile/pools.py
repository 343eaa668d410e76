"""Makes pools true: as many healthy instances as wanted, each living its life (reconcile.lives), and nothing else.

    want(pool, template, count) ─┐
    adopt(rows at start) ────────┼─▶ plan (domain.pool) ─▶ lives started, lives asked to leave ─▶ members into the routes
    a life's event, a timer ─────┘                                                             └▶ owner told

Starts take turns (reconcile.turns): a pool that wants hundreds starts a few at a time, and others beside it. What is
starting counts with the memory that its siblings take.

A pool does not know what it is for: its owner (an endpoint; later a transform job or a trial) wants it, looks
at its state and drops it. Planning is synchronous, so it never meets itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from mooring.domain import capacity, pool
from mooring.domain.ids import InstanceId, PoolId
from mooring.domain.instance import Handle, InstanceRecord, Limits, Phase
from mooring.domain.pool import InstanceTemplate, MemberState
from mooring.domain.restart import Cause, Failure, Seat
from mooring.domain.rollout import PoolState
from mooring.kit import clock as clocks
from mooring.kit.tasks import Group
from mooring.reconcile import footprint
from mooring.reconcile.lives import Life, World
from mooring.reconcile.slots import SlotsExhausted
from mooring.reconcile.turns import Turns

logger = logging.getLogger(__name__)

LABEL_OWNER = "owner"
LABEL_SEAT = "seat"
WAIT_FOR_ROOM_S = 0.25
TURNS_AT_LEAST = 4
TURN_S = 10.0  # a start that takes longer waits for something, and lets others start beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the machine can hold: its inventory now, and the rules."""

    inventory: Callable[[], capacity.Inventory]
    rules: capacity.CapacityRules
    footprint: Callable[[Handle], Awaitable[int | None]] = footprint.measure  # memory that an instance holds


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """An instance as status pages and metrics see it."""

    instance_id: InstanceId
    pool_id: PoolId
    owner: str
    state: MemberState
    limits: Limits
    slot: int | None
    address: str | None
    in_flight: int


class _Pool:
    """One pool. `count` is None until its owner has spoken (after a restart)."""

    def __init__(self, pool_id: PoolId, owner: str, parent: "Pools") -> None:
        self.pool_id = pool_id
        self.owner = owner
        self.count: int | None = None
        self.template: InstanceTemplate | None = None
        self.seats: dict[int, Seat] = {}
        self.lives: dict[InstanceId, Life] = {}
        self.dropped = False
        self.pin: tuple[str, float] | None = None  # resolved image, when
        self.measured_bytes: int | None = None  # the most that an instance was seen to take
        self._no_room_until_s = 0.0  # one seat that found none speaks for all
        self._parent = parent
        self._timer: asyncio.TimerHandle | None = None

    def members(self) -> list[pool.Member]:
        return [
            pool.Member(instance_id=life.spec.instance_id, seat=life.seat, state=life.state)
            for life in self.lives.values()
        ]

    def state(self) -> PoolState:
        resolved_image, resolved_at_s = self.pin or (None, 0.0)
        return PoolState(
            healthy=sum(life.state is MemberState.HEALTHY for life in self.lives.values()),
            failure=pool.pool_failure(self.seats),
            resolved_image=resolved_image,
            resolved_at_s=resolved_at_s,
        )

    def want(self, template: InstanceTemplate, *, count: int, proven: int, pin: tuple[str, float] | None) -> None:
        if self.pin is None:
            self.pin = pin
        if self.count == count and self.template == template and not self._unproven(min(proven, count)):
            return
        old_count = count if self.count is None else self.count
        self.seats = pool.next_seats(self.seats, self.members(), old_count=old_count, count=count, proven=proven)
        self.template = template
        self.count = count
        self.dropped = False
        self._no_room_until_s = 0.0
        healthy = next((life for life in self.lives.values() if life.state is MemberState.HEALTHY), None)
        if healthy is not None:  # it may have grown since
            self.measure(healthy)
        self.plan()

    def _unproven(self, proven: int) -> bool:
        return any(not self.seats.get(seat, Seat()).proven for seat in range(proven))

    def drop(self) -> None:
        if not self.dropped:
            self.dropped = True
            self.count = 0
            self.seats = {}
            self.plan()

    def plan(self) -> None:
        """Bring members and seats nearer to what is wanted, publish, tell the owner."""
        if self.count is not None and not self._parent.closing:
            self._apply(self.count)
        self._publish()
        self._parent.changed(self)

    def _apply(self, count: int) -> None:
        now_s = self._parent.world.clock.monotonic_s()
        todo = pool.plan_pool(count, self.members(), self.seats, now_s=now_s)
        for instance_id in todo.leave:
            self.lives[instance_id].leave()
        again_s = [] if todo.look_again_at_s is None else [todo.look_again_at_s]
        if todo.start and now_s < self._no_room_until_s:
            again_s.append(self._no_room_until_s)
            self._parent.no_turn(self.pool_id)
        else:
            again_s += self._start_some(todo.start)
        self._look_again_in(min(again_s) - now_s if again_s else None)

    def _start_some(self, seats: Sequence[int]) -> list[float]:
        """Start as many as there are turns and is room for; returns when to look again, where a timer must tell."""
        for seat in seats:
            if not self._parent.turns.may(self.pool_id):
                return []  # the end of another start calls
            wait_s = self._start(seat)
            if wait_s is not None:
                self._parent.no_turn(self.pool_id)
                return [self._parent.world.clock.monotonic_s() + wait_s]
        self._parent.no_turn(self.pool_id)
        return []

    def _start(self, seat: int) -> float | None:
        """Start an instance; or note why not, and return how long to wait."""
        assert self.template is not None, "a pool with a count has a template"
        verdict = self._parent.admit(self.template.limits, self.measured_bytes)
        if isinstance(verdict, capacity.Wait):
            return WAIT_FOR_ROOM_S
        instance_id = self._parent.new_id()
        missing = verdict.missing if isinstance(verdict, capacity.Refused) else self._claim(instance_id)
        if missing is not None:
            now_s = self._parent.world.clock.monotonic_s()
            failure = Failure(cause=Cause.CAPACITY, detail=missing)
            self.seats = pool.seat_failed(self.seats, seat, failure, now_s=now_s)
            self._parent.log_for(self.template, f"No instance is started: {missing}.")
            self._no_room_until_s = self.seats[seat].not_before_s
            return max(self._no_room_until_s - now_s, 0.0)
        spec = self.template.spec(self.pool_id, instance_id, resolved_image=self.pin[0] if self.pin else None)
        labels = {LABEL_OWNER: self.owner, LABEL_SEAT: str(seat)}
        self.add(Life(spec, seat=seat, labels=labels, world=self._parent.world, pool=self))
        self._parent.take_turn(self, instance_id)
        return None

    def measure(self, life: Life) -> None:
        """Look at what an instance takes, and let its turn end after that."""
        name = f"measure-{life.spec.instance_id}"
        self._parent.world.tasks.start(name, self._measure(life))

    async def _measure(self, life: Life) -> None:
        try:
            taken = None if life.handle is None else await self._parent.footprint(life.handle)
            if taken is not None:
                self.measured_bytes = max(taken, self.measured_bytes or 0)
        finally:
            self._parent.turn_over(life.spec.instance_id)

    def _claim(self, instance_id: InstanceId) -> str | None:
        try:
            self._parent.world.routes.claim_instance(instance_id)
        except SlotsExhausted as error:
            return str(error)
        return None

    def add(self, life: Life) -> None:
        self.lives[life.spec.instance_id] = life
        self._parent.lives.start(life.spec.instance_id, life.run())

    def _publish(self) -> None:
        healthy: dict[str, str] = {
            instance_id: life.address for instance_id, life in self.lives.items() if life.state is MemberState.HEALTHY
        }
        self._parent.world.routes.set_members(self.pool_id, healthy)

    def _look_again_in(self, delay_s: float | None) -> None:
        self.cancel_timer()
        if delay_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(delay_s, 0.01), self.plan)

    def cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # what lives tell (lives.Pool) -----------------------------------------------------------------------------------
    def resolved(self, image: str, at_s: float) -> None:
        if self.pin is None:
            self.pin = (image, at_s)

    def became_healthy(self, life: Life) -> None:
        self.seats = pool.seat_healthy(self.seats, life.seat)
        self.measure(life)
        self.plan()

    def ended(self, life: Life, failure: Failure) -> None:
        self._parent.turn_over(life.spec.instance_id)
        now_s = self._parent.world.clock.monotonic_s()
        if self.dropped:
            pass  # nobody asks for its history any more
        elif life.healthy_since_s is None:
            self.seats = pool.seat_failed(self.seats, life.seat, failure, now_s=now_s)
        else:
            healthy_for_s = now_s - life.healthy_since_s
            self.seats = pool.seat_lost(self.seats, life.seat, failure, healthy_for_s=healthy_for_s, now_s=now_s)
        self.plan()

    def vanished(self, life: Life) -> None:
        self.plan()

    def gone(self, life: Life) -> None:
        self._parent.turn_over(life.spec.instance_id)
        del self.lives[life.spec.instance_id]
        self.plan()


class Pools:
    """See the module. `on_change(owner)` is called whenever something of an owner's pools changed."""

    def __init__(
        self,
        *,
        world: World,
        room: Room,
        on_change: Callable[[str], None],
        new_id: Callable[[], InstanceId] | None = None,
        on_fatal: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self.world = world
        self.lives = Group("lives", on_fatal)  # a bug there could leave an instance without an owner
        self.closing = False
        self._moved = asyncio.Event()
        self._room = room
        self._on_change = on_change
        self.new_id = new_instance_id if new_id is None else new_id
        self._pools: dict[PoolId, _Pool] = {}
        self.turns = Turns(max(TURNS_AT_LEAST, 2 * int(room.inventory().vcpu)))
        self._turn_ends: dict[InstanceId, asyncio.TimerHandle] = {}
        self._passing: asyncio.Handle | None = None

    # owners ---------------------------------------------------------------------------------------------------------
    def want(
        self,
        pool_id: PoolId,
        owner: str,
        template: InstanceTemplate,
        *,
        count: int,
        proven: int,
        pin: tuple[str, float] | None = None,
    ) -> None:
        """Have this pool with so many instances. Idempotent.

        `proven`: as in domain.pool.next_seats. `pin`: the resolved image, and when, where the owner remembers them.
        """
        if self.closing:
            return
        self._pool(pool_id, owner).want(template, count=count, proven=proven, pin=pin)

    def drop(self, pool_id: PoolId) -> None:
        """Have no such pool: its instances leave. Idempotent."""
        found = self._pools.get(pool_id)
        if found is not None:
            found.drop()

    def drop_others(self, owner: str, keep: Collection[PoolId]) -> None:
        """Drop every pool of an owner that is not among `keep`."""
        for found in [each for each in self._pools.values() if each.owner == owner and each.pool_id not in keep]:
            found.drop()

    def drop_orphans(self, owners: Collection[str]) -> None:
        """Drop every pool whose owner is not among `owners`."""
        for found in [each for each in self._pools.values() if each.owner not in owners]:
            found.drop()

    def states(self, owner: str) -> dict[PoolId, PoolState]:
        """The state of an owner's pools that are not on their way out."""
        return {each.pool_id: each.state() for each in self._pools.values() if each.owner == owner and not each.dropped}

    def leftover(self, owner: str) -> int:
        """How many instances of an owner's pools are still there in any state."""
        return sum(len(each.lives) for each in self._pools.values() if each.owner == owner)

    def instances(self) -> Sequence[InstanceView]:
        """Every instance, for status and metrics."""
        routes = self.world.routes
        return [
            InstanceView(
                instance_id=instance_id,
                pool_id=each.pool_id,
                owner=each.owner,
                state=life.state,
                limits=life.spec.limits,
                slot=routes.instance_slot(instance_id),
                address=None if life.handle is None else life.handle.address,
                in_flight=routes.in_flight(instance_id),
            )
            for each in self._pools.values()
            for instance_id, life in each.lives.items()
        ]

    # start and end of the server ------------------------------------------------------------------------------------
    def adopt(self, records: Iterable[InstanceRecord]) -> None:
        """Take over what an earlier life of the server left. Nothing new is started before the pool is wanted."""
        for record in records:
            spec = record.spec
            found = self._pool(spec.pool_id, record.labels.get(LABEL_OWNER, ""))
            try:
                self.world.routes.claim_instance(spec.instance_id)
            except SlotsExhausted as error:  # more instances than slots: a smaller layout than before
                logger.error("instance %s cannot be kept: %s", spec.instance_id, error)
                record = replace(record, phase=Phase.STOPPING)
            seat = record.labels.get(LABEL_SEAT, "0")
            found.add(
                Life(
                    spec,
                    seat=int(seat) if seat.isdigit() else 0,
                    labels=dict(record.labels),
                    world=self.world,
                    pool=found,
                    found=record,
                )
            )

    async def settled(self, *, timeout_s: float) -> None:
        """Every instance was probed once or has ended, or the time is over."""
        waits = [life.settled.wait() for each in self._pools.values() for life in each.lives.values()]
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*waits)
        except TimeoutError:
            logger.warning("some instances did not answer within %g s of the start", timeout_s)

    async def stop_all(self, *, timeout_s: float) -> bool:
        """Stop every instance at once, without draining; whether all were gone in time. Nothing is started any more."""
        self.closing = True
        lives = [life for each in self._pools.values() for life in each.lives.values()]
        for each in self._pools.values():
            each.cancel_timer()
        for life in lives:
            life.hurry(grace_s=max(timeout_s * 0.6, 0.0))
        for each in list(self._pools.values()):
            each.plan()
        try:
            async with asyncio.timeout(timeout_s):
                while any(each.lives for each in self._pools.values()):
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def aclose(self) -> None:
        """End every task; instances stay as they are."""
        self.closing = True
        for each in self._pools.values():
            each.cancel_timer()
        for timer in self._turn_ends.values():
            timer.cancel()
        if self._passing is not None:
            self._passing.cancel()
        await self.lives.aclose()
        await self.world.tasks.aclose()

    # for pools ------------------------------------------------------------------------------------------------------
    def admit(self, limits: Limits, measured_bytes: int | None) -> capacity.Admitted | capacity.Wait | capacity.Refused:
        """Whether one more instance of these limits may start now; `measured_bytes`: what one like it takes."""
        holding = capacity.holding_of(
            (
                life.spec.limits.memory_bytes,
                capacity.expected_bytes(life.spec.limits, each.measured_bytes)
                if life.state is MemberState.STARTING
                else None,
                life.state is MemberState.LEAVING,
            )
            for each in self._pools.values()
            for life in each.lives.values()
        )
        expected = capacity.expected_bytes(limits, measured_bytes)
        return capacity.admit(limits, self._room.inventory(), holding, self._room.rules, expected=expected)

    async def footprint(self, handle: Handle) -> int | None:
        """The memory that a running instance holds."""
        return await self._room.footprint(handle)

    def take_turn(self, of: _Pool, instance_id: InstanceId) -> None:
        """A start begins."""
        self.turns.hold(of.pool_id, instance_id)
        loop = asyncio.get_running_loop()
        # What it has taken by then is better than nothing to judge the others by.
        self._turn_ends[instance_id] = loop.call_later(TURN_S, of.measure, of.lives[instance_id])

    def turn_over(self, instance_id: InstanceId) -> None:
        """A start is through, or takes long. The next pools are asked soon: this may be said from within a plan."""
        timer = self._turn_ends.pop(instance_id, None)
        if timer is not None:
            timer.cancel()
        self.turns.over(instance_id)
        self._ask_next()

    def no_turn(self, pool_id: PoolId) -> None:
        """The pool starts nothing now: others may have been waiting behind it."""
        self.turns.withdraw(pool_id)
        self._ask_next()

    def _ask_next(self) -> None:
        if self.turns.next() and self._passing is None and not self.closing:
            self._passing = asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        self._passing = None
        for pool_id in self.turns.next():
            found = self._pools.get(PoolId(pool_id))
            if found is not None:
                found.plan()

    def changed(self, changed: _Pool) -> None:
        """Something of a pool is not as it was."""
        self._moved.set()
        self._moved = asyncio.Event()
        if changed.dropped and not changed.lives:
            self._pools.pop(changed.pool_id, None)
            self.no_turn(changed.pool_id)
            changed.cancel_timer()
        self._on_change(changed.owner)

    def log_for(self, template: InstanceTemplate, text: str) -> None:
        """A platform line that belongs to no instance."""
        self.world.log(template.log_group, f"{template.log_prefix}/platform", text)

    def _pool(self, pool_id: PoolId, owner: str) -> _Pool:
        if pool_id not in self._pools:
            self._pools[pool_id] = _Pool(pool_id, owner, self)
        return self._pools[pool_id]


def new_instance_id() -> InstanceId:
    """As AWS writes them: i- and 17 hex digits."""
    return InstanceId("i-" + clocks.token_hex(9)[:17])
