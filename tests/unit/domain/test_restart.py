import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain import restart
from mooring.domain.instance import Exit
from mooring.domain.restart import Cause, Failure, Seat

EXITED = Failure(cause=Cause.EXITED, exit=Exit(code=1))


@pytest.mark.parametrize("cause", [Cause.LOAD_FAILED, Cause.DRIVER_FINAL, Cause.START_TIMEOUT, Cause.CAPACITY])
def test_what_will_fail_again_is_given_up_at_once(cause: Cause) -> None:
    assert restart.after_failed_start(Seat(), Failure(cause=cause), now_s=0).given_up


@pytest.mark.parametrize("cause", [Cause.EXITED, Cause.DRIVER_PASSING, Cause.INTERNAL])
def test_what_may_pass_is_tried_three_times_in_all(cause: Cause) -> None:
    seat, starts = Seat(), 0
    while not seat.given_up:
        seat = restart.after_failed_start(seat, Failure(cause=cause), now_s=0)
        starts += 1
    assert starts == 3


@given(st.lists(st.sampled_from(Cause), max_size=40))
def test_a_seat_that_was_healthy_once_is_never_given_up_and_backs_off_within_the_cap(causes: list[Cause]) -> None:
    seat = restart.after_health(Seat())
    for cause in causes:
        seat = restart.after_failed_start(seat, Failure(cause=cause), now_s=100)
        assert not seat.given_up
        assert 100 < seat.not_before_s <= 100 + restart.BACKOFF_CAP_S


def test_the_first_loss_is_made_good_at_once_and_later_ones_back_off() -> None:
    seat = restart.after_health(Seat())
    waits = []
    for _ in range(10):
        seat = restart.after_loss(seat, EXITED, healthy_for_s=1, now_s=0)
        waits.append(seat.not_before_s)
    assert waits[:4] == [0, 0.5, 1, 2]
    assert waits == sorted(waits)
    assert waits[-1] == restart.BACKOFF_CAP_S


def test_a_stable_time_forgives_earlier_losses() -> None:
    seat = restart.after_health(Seat(losses=7, proven=True))
    assert restart.after_loss(seat, EXITED, healthy_for_s=restart.STABLE_S, now_s=5).not_before_s == 5


def test_an_adopted_instance_gets_the_rest_of_its_window_and_no_less_than_the_floor() -> None:
    assert restart.start_window_s(startup_timeout_s=480, age_s=100) == 380
    assert restart.start_window_s(startup_timeout_s=480, age_s=10_000) == 15
    assert restart.start_window_s(startup_timeout_s=480, age_s=-5) == 480


PING = (
    "The primary container for production variant AllTraffic did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (Failure(cause=Cause.EXITED, exit=Exit(code=3)), f"{PING} The container exited with code 3."),
        (Failure(cause=Cause.EXITED, exit=Exit(code=-11)), f"{PING} The container was ended by signal 11."),
        (
            Failure(cause=Cause.EXITED, exit=Exit(code=-9, oom_killed=True, last_words="loading\n")),
            f"{PING} The container was killed because it ran out of memory. Last output: loading",
        ),
        (
            Failure(cause=Cause.LOAD_FAILED, exit=Exit(code=78, last_words="KeyError: 'x'")),
            f"{PING} The model could not be loaded. Last output: KeyError: 'x'",
        ),
        (Failure(cause=Cause.START_TIMEOUT, detail="Too slow."), f"{PING} Too slow."),
        (Failure(cause=Cause.EXITED, exit=Exit(code=None)), PING),
        (Failure(cause=Cause.DRIVER_FINAL, detail="Failed to download."), "Failed to download."),
    ],
)
def test_reasons_are_awss_words_and_then_what_is_known(failure: Failure, text: str) -> None:
    assert restart.failure_reason("AllTraffic", failure) == text


def test_capacity_reasons_name_what_lacks() -> None:
    text = restart.failure_reason("v", Failure(cause=Cause.CAPACITY, detail="no GPU"))
    assert "InsufficientInstanceCapacity error." in text
    assert text.endswith("(no GPU)")


@given(
    st.text(min_size=1, max_size=63),
    st.sampled_from(Cause),
    st.text(max_size=3000),
    st.text(max_size=3000),
    st.none() | st.integers(-64, 255),
)
def test_no_reason_is_longer_than_the_api_allows(
    variant: str, cause: Cause, detail: str, words: str, code: int | None
) -> None:
    failure = Failure(cause=cause, detail=detail, exit=Exit(code=code, last_words=words))
    assert len(restart.failure_reason(variant, failure)) <= 1024


def test_long_output_keeps_its_end() -> None:
    words = "x" * 5000 + "\nValueError: the last line"
    reason = restart.failure_reason("v", Failure(cause=Cause.EXITED, exit=Exit(code=1, last_words=words)))
    assert reason.endswith("ValueError: the last line")
    assert len(reason) == 1024
