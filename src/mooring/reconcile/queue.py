"""Pure keyed work queue: a key waits once however often it is added, and is never in two hands at a time.

    add ──▶ waiting(due) ──take──▶ running ──done──▶ (gone) | waiting (added meanwhile, wanted again, or failed: backing off)

Used by reconcile.loop, which passes the time in. Wake-ups do not cut a back-off short: a key that fails while it is woken
often would spin.
"""

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BACKOFF_FIRST_S = 0.1
BACKOFF_CAP_S = 10.0


class Queue(Generic[K]):
    """See the module. Times are monotonic seconds, never running backward."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []  # entries whose time is not the key's due are stale
        self._order = 0
        self._running: set[K] = set()
        self._again: dict[K, float] = {}  # added while running
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._due) + len(self._running)

    def add(self, key: K, *, now_s: float, after_s: float = 0.0) -> None:
        """Have the key looked at in `after_s`, or earlier if it is due earlier."""
        due_s = now_s + after_s
        if key in self._running:
            self._again[key] = min(due_s, self._again.get(key, due_s))
        elif key not in self._due or (due_s < self._due[key] and key not in self._failures):
            self._wait(key, due_s)

    def take(self, *, now_s: float) -> K | None:
        """The key that is due longest, now running; None when none is due."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now_s:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._running.add(key)
        return key

    def done(self, key: K, *, now_s: float, again_in_s: float | None = None) -> None:
        """The running key was looked at; again in `again_in_s`, when given, or because it was added meanwhile."""
        self._failures.pop(key, None)
        self._finish(key, None if again_in_s is None else now_s + again_in_s)

    def failed(self, key: K, *, now_s: float) -> float:
        """The running key could not be handled: back off. Returns the wait."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = float(min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** min(count - 1, 30)))
        self._again.pop(key, None)
        self._finish(key, now_s + delay_s)
        return delay_s

    def next_due_s(self) -> float | None:
        """When the next key is due; None when none waits."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def _finish(self, key: K, due_s: float | None) -> None:
        if key not in self._running:
            raise ValueError(f"{key!r} is not running")
        self._running.discard(key)
        again_s = self._again.pop(key, None)
        times = [time for time in (due_s, again_s) if time is not None]
        if times:
            self._wait(key, min(times))

    def _wait(self, key: K, due_s: float) -> None:
        self._due[key] = due_s
        self._order += 1
        heapq.heappush(self._heap, (due_s, self._order, key))

    def _drop_stale(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
