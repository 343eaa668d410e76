"""When a child that died is started again. Pure.

died after a long life      at once
died young, n-th in a row   0, 0.1, 0.2, 0.4 … 5 s; from LOUD_AFTER on it is a crash loop, and said so
"""

from dataclasses import dataclass

YOUNG_S = 10.0
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 5.0
LOUD_AFTER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """What is remembered of one child."""

    young_deaths: int = 0

    @property
    def is_crash_loop(self) -> bool:
        """Whether the operator should look."""
        return self.young_deaths >= LOUD_AFTER


def after_death(restarts: Restarts, *, lived_s: float) -> tuple[Restarts, float]:
    """What is remembered now, and how many seconds to wait before the next start."""
    if lived_s >= YOUNG_S:
        return Restarts(), 0.0
    deaths = restarts.young_deaths + 1
    delay_s = 0.0 if deaths == 1 else min(FIRST_DELAY_S * 2 ** min(deaths - 2, 32), MAX_DELAY_S)
    return Restarts(young_deaths=deaths), delay_s
