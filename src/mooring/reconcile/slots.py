"""Who holds which slot of the shared counters. Pure: reconcile.routes passes in what was acknowledged and what is idle.

    claim ──▶ held ──release(generation)──▶ released ──reclaim──▶ free
                  ◀────────claim─────────────┘

A slot is used again only when every worker has acknowledged a table without it and nothing is counted on it any more: a
worker with an older table would count one thing's requests as another's.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")


class SlotsExhausted(Exception):
    """Every slot is taken; the text says of what."""


class Slots(Generic[K]):
    """Slots 0 … limit−1."""

    def __init__(self, limit: int, *, of_what: str) -> None:
        self._limit = limit
        self._of_what = of_what
        self._held: dict[K, int] = {}
        self._released: dict[K, int] = {}  # key → generation of the first table without it
        self._free: list[int] = []
        self._next = 0

    def __iter__(self) -> Iterator[K]:
        return iter(self._held)

    def get(self, key: K) -> int | None:
        """The key's slot, None when it has none."""
        return self._held.get(key)

    def claim(self, key: K) -> tuple[int, bool]:
        """The key's slot and whether it is newly given. Raises SlotsExhausted."""
        self._released.pop(key, None)
        if key in self._held:
            return self._held[key], False
        if self._free:
            slot = self._free.pop()
        elif self._next < self._limit:
            slot = self._next
            self._next += 1
        else:
            raise SlotsExhausted(f"all {self._limit} places for {self._of_what} are taken")
        self._held[key] = slot
        return slot, True

    def release(self, key: K, *, generation: int) -> None:
        """The key is in no table from `generation` on."""
        if key in self._held:
            self._released.setdefault(key, generation)

    def reclaim(self, *, acknowledged: int, idle: Callable[[K, int], bool]) -> list[tuple[K, int]]:
        """Free what was released and acknowledged and is idle; returns it."""
        freed = [
            (key, self._held[key])
            for key, generation in self._released.items()
            if generation <= acknowledged and idle(key, self._held[key])
        ]
        for key, slot in freed:
            del self._held[key]
            del self._released[key]
            self._free.append(slot)
        return freed

    def all(self) -> Mapping[K, int]:
        """Everything held, released ones included."""
        return dict(self._held)

    def seed(self, held: Mapping[K, int]) -> None:
        """Take over what an earlier life of this process gave out; ignores what does not fit."""
        used: set[int] = set()
        for key, slot in held.items():
            if 0 <= slot < self._limit and slot not in used:
                self._held[key] = slot
                used.add(slot)
        self._next = max(used, default=-1) + 1
        self._free = [slot for slot in range(self._next) if slot not in used]

    def retain(self, keys: Collection[K], *, generation: int) -> None:
        """Release every key that is not among `keys`."""
        for key in list(self._held):
            if key not in keys:
                self.release(key, generation=generation)
