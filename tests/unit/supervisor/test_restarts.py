"""When a dead child is started again."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.supervisor import restarts
from mooring.supervisor.restarts import Restarts


def test_the_first_death_is_answered_at_once() -> None:
    assert restarts.after_death(Restarts(), lived_s=0.1) == (Restarts(young_deaths=1), 0.0)


def test_young_deaths_in_a_row_wait_longer_up_to_a_limit() -> None:
    state, delays = Restarts(), []
    for _ in range(10):
        state, delay_s = restarts.after_death(state, lived_s=0.1)
        delays.append(delay_s)
    assert delays == sorted(delays)
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays[-1] == restarts.MAX_DELAY_S
    assert state.is_crash_loop


def test_a_long_life_is_forgiven() -> None:
    state = Restarts(young_deaths=9)
    assert restarts.after_death(state, lived_s=restarts.YOUNG_S) == (Restarts(), 0.0)


@given(st.integers(0, 10_000), st.floats(0, 1e9))
def test_a_wait_is_never_longer_than_the_limit(deaths: int, lived_s: float) -> None:
    _, delay_s = restarts.after_death(Restarts(young_deaths=deaths), lived_s=lived_s)
    assert 0 <= delay_s <= restarts.MAX_DELAY_S
