"""Pools: a set of identical instances with an owner, and the plan that makes it what is wanted.

    wanted count + members + seats' histories + now ──plan_pool──▶ seats to start, members to let go, when to look again

    member:  STARTING ──200 on /ping──▶ HEALTHY ──▶ LEAVING (out of the routes, drained, stopped) ──▶ gone
                 └────────────────────────────────────▲

A seat is one of the pool's numbered places; it carries the history of the instances that sat there (domain.restart). A
member that is leaving does not hold its seat: its replacement starts beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from mooring.domain import restart
from mooring.domain.ids import InstanceId, PoolId, Scope
from mooring.domain.instance import InstanceSpec, Limits
from mooring.domain.restart import Failure, Seat


class MemberState(StrEnum):
    """Where a member stands in the pool."""

    STARTING = "starting"
    HEALTHY = "healthy"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One instance as the plan sees it."""

    instance_id: InstanceId
    seat: int
    state: MemberState


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceTemplate:
    """What all instances of a pool have in common; fields as in InstanceSpec."""

    scope: Scope
    owner: str
    image: str
    environment: Mapping[str, str]
    model_data_url: str | None
    limits: Limits
    log_group: str
    log_prefix: str  # the stream is <prefix>/<instance-id>
    startup_timeout_s: float = 480.0
    download_timeout_s: float = 1200.0
    execution_role_arn: str | None = None

    def spec(self, pool_id: PoolId, instance_id: InstanceId, *, resolved_image: str | None) -> InstanceSpec:
        """The spec of one instance. `resolved_image`: what the pool's first instance resolved its image to."""
        return InstanceSpec(
            instance_id=instance_id,
            pool_id=pool_id,
            scope=self.scope,
            owner=self.owner,
            image=self.image,
            environment=self.environment,
            model_data_url=self.model_data_url,
            limits=self.limits,
            log_group=self.log_group,
            log_stream=f"{self.log_prefix}/{instance_id}",
            startup_timeout_s=self.startup_timeout_s,
            download_timeout_s=self.download_timeout_s,
            execution_role_arn=self.execution_role_arn,
            resolved_image=resolved_image,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """What to do now. Times are those of the caller's monotonic clock."""

    start: tuple[int, ...] = ()  # seats
    leave: tuple[InstanceId, ...] = ()
    look_again_at_s: float | None = None


def plan_pool(count: int, members: Sequence[Member], seats: Mapping[int, Seat], *, now_s: float) -> PoolPlan:
    """Diff of what is wanted and what is there. Healthy members are the last to go."""
    live = [member for member in members if member.state is not MemberState.LEAVING]
    live.sort(key=lambda member: (member.state is not MemberState.HEALTHY, member.seat, member.instance_id))
    leave = tuple(member.instance_id for member in live[count:])
    kept = live[:count]
    taken = {member.seat for member in kept}
    free = [seat for seat in range(count) if seat not in taken][: count - len(kept)]
    open_seats = [(seat, seats.get(seat, Seat())) for seat in free]
    waiting = [past.not_before_s for _, past in open_seats if not past.given_up and past.not_before_s > now_s]
    return PoolPlan(
        start=tuple(seat for seat, past in open_seats if not past.given_up and past.not_before_s <= now_s),
        leave=leave,
        look_again_at_s=min(waiting, default=None),
    )


def next_seats(
    seats: Mapping[int, Seat], members: Sequence[Member], *, old_count: int, count: int, proven: int
) -> dict[int, Seat]:
    """Histories after the wanted count changed.

    More instances wanted: free seats begin anew, so that the change gets its full attempts and may fail. `proven`: the
    first so many seats belong to a count that was in force before; they are never given up.
    """
    taken = {member.seat for member in members if member.state is not MemberState.LEAVING}
    kept = {seat: past for seat, past in seats.items() if seat < count or seat in taken}
    if count > old_count:
        kept = {seat: past for seat, past in kept.items() if seat in taken}
    for seat in range(min(proven, count)):
        kept[seat] = replace(kept.get(seat, Seat()), proven=True, given_up=False)
    return kept


def pool_failure(seats: Mapping[int, Seat]) -> Failure | None:
    """Why the pool cannot come to its count: the failure of the first seat given up; None while there is hope."""
    for seat in sorted(seats):
        if seats[seat].given_up:
            return seats[seat].failure
    return None


# Events on one seat, see domain.restart for the policy -------------------------------------------------------------
def seat_healthy(seats: Mapping[int, Seat], seat: int) -> dict[int, Seat]:
    """An instance there became healthy."""
    return {**seats, seat: restart.after_health(seats.get(seat, Seat()))}


def seat_failed(seats: Mapping[int, Seat], seat: int, failure: Failure, *, now_s: float) -> dict[int, Seat]:
    """An instance there never became healthy."""
    return {**seats, seat: restart.after_failed_start(seats.get(seat, Seat()), failure, now_s=now_s)}


def seat_lost(
    seats: Mapping[int, Seat], seat: int, failure: Failure, *, healthy_for_s: float, now_s: float
) -> dict[int, Seat]:
    """A healthy instance there ended."""
    past = seats.get(seat, Seat())
    return {**seats, seat: restart.after_loss(past, failure, healthy_for_s=healthy_for_s, now_s=now_s)}
