"""Invokes an endpoint from several threads until told to stop, and counts what failed."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """What the callers saw. `answers` by the caller's key, `failures` by error text."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


@contextmanager
def calling(invoke: Callable[[int], str], *, threads: int) -> Iterator[Tally]:
    """Call `invoke(n)` in a closed loop from each thread while the block runs; the tally is whole after the block."""
    tallies = [Tally() for _ in range(threads)]
    stop = threading.Event()

    def loop(tally: Tally) -> None:
        n = 0
        while not stop.is_set():
            try:
                tally.answers[invoke(n)] += 1
            except Exception as error:
                tally.failures[f"{type(error).__name__}: {error}"] += 1
            n += 1

    workers = [threading.Thread(target=loop, args=(tally,)) for tally in tallies]
    for worker in workers:
        worker.start()
    total = Tally()
    try:
        yield total
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        for tally in tallies:
            total.answers += tally.answers
            total.failures += tally.failures
