"""When to start an instance again, and what to say when it is not worth it.

    before it was ever healthy:  model cannot load, start-up window over, bad artefact ─▶ give up at once
                                 early exit, passing trouble                            ─▶ two more attempts, backing off
    after it was healthy:        lost ─▶ started again for ever, backing off, forgiven after a stable minute

Called by reconcile.pools with the seat's history as a value; knows no clock.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from mooring.domain.instance import Exit

MAX_REASON_CHARS = 1024  # FailureReason
START_ATTEMPTS = 3
BACKOFF_FIRST_S = 0.5
BACKOFF_CAP_S = 30.0
STABLE_S = 60.0  # after this long in health, earlier losses are forgotten


class Cause(StrEnum):
    """Why an instance did not come to be, or ceased to be."""

    DRIVER_PASSING = "driver_passing"  # the driver failed, the same call may work later
    DRIVER_FINAL = "driver_final"  # the driver failed and will again
    LOAD_FAILED = "load_failed"  # our model server said that the model cannot be loaded
    EXITED = "exited"
    START_TIMEOUT = "start_timeout"  # never answered /ping with 200 in its window
    UNHEALTHY = "unhealthy"  # was healthy, then failed its pings
    CAPACITY = "capacity"
    INTERNAL = "internal"  # a bug or the store; looked at again later


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One end of an instance that nobody asked for. `detail`: the driver's text, or what lacks. `exit`: where it ended."""

    cause: Cause
    detail: str = ""
    exit: Exit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """History of one of the pool's places. `proven`: an instance here was healthy, so a failure is no reason to give up."""

    attempts: int = 0  # failed starts since last healthy
    losses: int = 0  # ends in a row without a stable time between
    not_before_s: float = 0.0  # monotonic
    proven: bool = False
    failure: Failure | None = None  # the last one; cleared by health
    given_up: bool = False


def _is_final(cause: Cause) -> bool:
    match cause:
        case Cause.DRIVER_FINAL | Cause.LOAD_FAILED | Cause.START_TIMEOUT | Cause.CAPACITY:
            return True
        case Cause.DRIVER_PASSING | Cause.EXITED | Cause.UNHEALTHY | Cause.INTERNAL:
            return False
        case _:
            assert_never(cause)


def backoff_s(failures: int) -> float:
    """Wait after so many failures in a row: 0.5, 1, 2, … capped."""
    return float(min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** min(max(failures - 1, 0), 30)))


def after_health(seat: Seat) -> Seat:
    """An instance on this seat answered its first ping with 200."""
    return replace(seat, attempts=0, proven=True, failure=None, given_up=False)


def after_failed_start(seat: Seat, failure: Failure, *, now_s: float) -> Seat:
    """An instance on this seat ended before it was healthy."""
    attempts = seat.attempts + 1
    given_up = not seat.proven and (_is_final(failure.cause) or attempts >= START_ATTEMPTS)
    return replace(
        seat, attempts=attempts, failure=failure, given_up=given_up, not_before_s=now_s + backoff_s(attempts)
    )


def after_loss(seat: Seat, failure: Failure, *, healthy_for_s: float, now_s: float) -> Seat:
    """A healthy instance ended or failed its pings: the first loss is made good at once, later ones back off."""
    losses = 1 if healthy_for_s >= STABLE_S else seat.losses + 1
    delay_s = 0.0 if losses == 1 else backoff_s(losses - 1)
    return replace(seat, losses=losses, failure=failure, not_before_s=now_s + delay_s)


def start_window_s(*, startup_timeout_s: float, age_s: float, floor_s: float = 15.0) -> float:
    """How long an instance found again after a server restart may take to answer /ping: the rest of its own window, and
    never less than `floor_s`.
    """
    return max(floor_s, startup_timeout_s - max(age_s, 0.0))


# Texts (hosting.md section 6.7) -------------------------------------------------------------------------------------
def failure_reason(variant: str, failure: Failure, *, container: str = "primary") -> str:
    """FailureReason of a change that failed through this failure of this variant, at most 1024 characters."""
    match failure.cause:
        case Cause.DRIVER_FINAL | Cause.DRIVER_PASSING:
            return clip(failure.detail, MAX_REASON_CHARS)
        case Cause.CAPACITY:
            return capacity_reason(failure.detail)
        case Cause.INTERNAL:
            return clip(f"Request to service failed. {failure.detail}", MAX_REASON_CHARS)
        case Cause.LOAD_FAILED | Cause.EXITED | Cause.START_TIMEOUT | Cause.UNHEALTHY:
            return _ping_reason(variant, failure, container)
        case _:
            assert_never(failure.cause)


def capacity_reason(missing: str) -> str:
    """FailureReason where the machine has no room; `missing` is a clause."""
    return clip(
        "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. "
        f"Please retry using a different ML instance type or after some time. ({missing})",
        MAX_REASON_CHARS,
    )


def _ping_reason(variant: str, failure: Failure, container: str) -> str:
    text = (
        f"The {container} container for production variant {variant} did not pass the ping health check. "
        "Please check CloudWatch logs for this endpoint."
    )
    said = describe(failure)
    text = f"{text} {said}" if said else text
    words = failure.exit.last_words.strip() if failure.exit is not None else ""
    lead = " Last output: "
    room = MAX_REASON_CHARS - len(text) - len(lead)
    # The end of the output tells most: a traceback's last line.
    return clip(text, MAX_REASON_CHARS) if not words or room < 16 else text + lead + clip_front(words, room)


def describe(failure: Failure) -> str:
    """What happened to the instance, as a sentence for logs and reasons; without its output."""
    end = failure.exit
    if end is not None and end.oom_killed:
        return "The container was killed because it ran out of memory."
    if failure.cause is Cause.LOAD_FAILED:
        return "The model could not be loaded."
    if failure.cause in (Cause.START_TIMEOUT, Cause.UNHEALTHY):
        return failure.detail
    if end is not None and end.code is not None:
        how = f"was ended by signal {-end.code}" if end.code < 0 else f"exited with code {end.code}"
        return f"The container {how}."
    return failure.detail


def clip(text: str, limit: int) -> str:
    """The beginning of a text, at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clip_front(text: str, limit: int) -> str:
    """The end of a text, at most `limit` characters."""
    return text if len(text) <= limit else "…" + text[len(text) - limit + 1 :]
