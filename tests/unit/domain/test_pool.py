from hypothesis import given
from hypothesis import strategies as st

from mooring.domain import pool
from mooring.domain.ids import InstanceId
from mooring.domain.pool import Member, MemberState
from mooring.domain.restart import Cause, Failure, Seat


def members_of(states: list[tuple[int, MemberState]]) -> list[Member]:
    return [
        Member(instance_id=InstanceId(f"i-{index}"), seat=seat, state=state)
        for index, (seat, state) in enumerate(states)
    ]


MEMBERS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(MemberState)), max_size=8).map(members_of)
SEATS = st.dictionaries(
    st.integers(0, 6),
    st.builds(
        Seat,
        attempts=st.integers(0, 3),
        not_before_s=st.floats(0, 100),
        proven=st.booleans(),
        given_up=st.booleans(),
        failure=st.just(Failure(cause=Cause.EXITED)),
    ),
    max_size=7,
)


def live(members: list[Member]) -> list[Member]:
    return [member for member in members if member.state is not MemberState.LEAVING]


def applied(members: list[Member], plan: pool.PoolPlan) -> list[Member]:
    kept = [
        Member(instance_id=each.instance_id, seat=each.seat, state=MemberState.LEAVING)
        if each.instance_id in plan.leave
        else each
        for each in members
    ]
    started = [
        Member(instance_id=InstanceId(f"new-{seat}"), seat=seat, state=MemberState.STARTING) for seat in plan.start
    ]
    return kept + started


@given(st.integers(0, 6), MEMBERS, SEATS, st.floats(0, 100))
def test_a_plan_applied_leaves_an_empty_plan(
    count: int, members: list[Member], seats: dict[int, Seat], now_s: float
) -> None:
    plan = pool.plan_pool(count, members, seats, now_s=now_s)
    again = pool.plan_pool(count, applied(members, plan), seats, now_s=now_s)
    assert again.start == ()
    assert again.leave == ()


@given(st.integers(0, 6), MEMBERS, SEATS, st.floats(0, 100))
def test_no_plan_brings_more_than_wanted_or_lets_a_healthy_instance_go_before_another(
    count: int, members: list[Member], seats: dict[int, Seat], now_s: float
) -> None:
    plan = pool.plan_pool(count, members, seats, now_s=now_s)
    after = live(applied(members, plan))
    assert len(after) <= count
    healthy = [each for each in members if each.state is MemberState.HEALTHY]
    still = [each for each in after if each.state is MemberState.HEALTHY]
    assert len(still) == min(count, len(healthy))
    assert not (plan.start and plan.leave)
    assert all(seats.get(seat, Seat()).not_before_s <= now_s for seat in plan.start)
    assert not any(seats.get(seat, Seat()).given_up for seat in plan.start)


@given(st.integers(0, 6), MEMBERS, SEATS)
def test_given_time_the_pool_comes_to_its_count_unless_a_seat_was_given_up(
    count: int, members: list[Member], seats: dict[int, Seat]
) -> None:
    plan = pool.plan_pool(count, members, seats, now_s=1000)
    after = live(applied(members, plan))
    assert plan.look_again_at_s is None
    assert len(after) == count or any(each.given_up for each in seats.values())


def test_a_seat_that_backs_off_says_when_to_look_again() -> None:
    plan = pool.plan_pool(2, [], {0: Seat(not_before_s=7), 1: Seat(not_before_s=9)}, now_s=5)
    assert plan == pool.PoolPlan(look_again_at_s=7)


@given(MEMBERS, SEATS, st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
def test_seats_of_the_count_that_was_in_force_are_never_given_up(
    members: list[Member], seats: dict[int, Seat], old: int, count: int, proven: int
) -> None:
    after = pool.next_seats(seats, members, old_count=old, count=count, proven=proven)
    assert not any(after[seat].given_up for seat in range(min(proven, count)))
    assert pool.next_seats(after, members, old_count=count, count=count, proven=proven) == after


@given(MEMBERS, SEATS, st.integers(0, 5))
def test_wanting_more_gives_free_seats_their_full_attempts(
    members: list[Member], seats: dict[int, Seat], old: int
) -> None:
    after = pool.next_seats(seats, members, old_count=old, count=old + 1, proven=0)
    taken = {member.seat for member in live(members)}
    assert set(after) <= taken


def test_the_pools_failure_is_that_of_the_first_seat_given_up() -> None:
    failure = Failure(cause=Cause.CAPACITY, detail="none")
    assert pool.pool_failure({0: Seat(failure=Failure(cause=Cause.EXITED))}) is None
    assert pool.pool_failure({3: Seat(given_up=True, failure=failure), 0: Seat()}) is failure
