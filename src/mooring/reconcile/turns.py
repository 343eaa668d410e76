"""Who may start an instance next, where only so many starts may be under way at once. Pure; used by reconcile.pools.

    may(pool) ── a turn is free, and nobody is before it ──▶ hold(instance) ──▶ over(instance) ──▶ next(): who is asked
        └─▶ waits its turn (until `withdraw`)

A turn is about the work of a start, not about its success: the caller ends it when the instance is healthy or over, and
also when it takes long, so that models that load for minutes do not hold up the others. No pool may have every turn: the
replacement of a small pool's instance starts beside a flood.
"""

from collections import Counter
from collections.abc import Sequence


class Turns:
    """See the module. `limit` ≥ 1 starts at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = max(limit - 1, 1)  # of one pool
        self._held: dict[str, str] = {}  # instance → pool
        self._by_pool: Counter[str] = Counter()
        self._waiting: dict[str, None] = {}  # pools, the longest wait first

    def may(self, pool: str) -> bool:
        """Whether the pool may start one instance now. If not, it waits its turn."""
        self._waiting.setdefault(pool)
        return pool in self.next()

    def hold(self, pool: str, instance: str) -> None:
        """The pool starts this instance. It no longer waits; it may at once ask for another turn."""
        self._waiting.pop(pool, None)
        self._held[instance] = pool
        self._by_pool[pool] += 1

    def over(self, instance: str) -> None:
        """The instance needs its turn no longer, if it had one."""
        pool = self._held.pop(instance, None)
        if pool is None:
            return
        self._by_pool[pool] -= 1
        if not self._by_pool[pool]:
            del self._by_pool[pool]

    def withdraw(self, pool: str) -> None:
        """The pool has nothing to start."""
        self._waiting.pop(pool, None)

    def next(self) -> Sequence[str]:
        """The waiting pools that may start one instance each now, those with the fewest turns first."""
        free = self._limit - len(self._held)
        able = [pool for pool in self._waiting if self._by_pool[pool] < self._share]
        return sorted(able, key=lambda pool: self._by_pool[pool])[: max(free, 0)]
