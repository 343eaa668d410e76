"""Counters in shared memory: one writer per region, any number of readers. Knows nothing of what is counted.

The supervisor makes one memory file and hands its descriptor to every process:

    header │ worker 0 │ worker 1 │ …            a worker = beat │ gauges[G] │ groups[K]
    beat   = pid, heartbeat                     (each word a little-endian u64)
    gauges = one word each (in-flight counts)
    group  = counters[C] + histograms[H] of BUCKETS words each

A worker writes only its own region, so increments need no lock; a reader sums over workers. A word is 8-byte aligned and
written by one CPython store of 8 bytes, so a reader sees an old or a new value, never a mix.

Histogram: value v in microseconds → bucket index by power of two with 8 sub-buckets, relative error ≤ 12.5 %.
"""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass

WORD_BYTES = 8
BUCKETS = 8 * 34  # up to 2**36 µs ≈ 19 hours
_SUB = 8
_BEAT_WORDS = 8  # pid, heartbeat, spare: one cache line


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Sizes; the same in every process of one server."""

    workers: int
    gauges: int = 4096
    groups: int = 1024
    counters: int = 8
    histograms: int = 2

    @property
    def group_words(self) -> int:
        """Words of one group."""
        return self.counters + self.histograms * BUCKETS

    @property
    def worker_words(self) -> int:
        """Words of one worker's region."""
        return _BEAT_WORDS + self.gauges + self.groups * self.group_words

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return self.workers * self.worker_words * WORD_BYTES


def bucket_of(value_us: int) -> int:
    """Bucket of a value ≥ 0; values past the range fall into the last bucket."""
    if value_us < _SUB:
        return max(value_us, 0)
    exponent = value_us.bit_length() - 4  # value >> exponent is in [8, 16)
    return min((exponent + 1) * _SUB + (value_us >> exponent) - _SUB, BUCKETS - 1)


def bucket_bounds(bucket: int) -> tuple[int, int]:
    """Values of a bucket: (lowest, lowest of the next), microseconds."""
    if bucket < _SUB:
        return bucket, bucket + 1
    exponent, sub = bucket // _SUB - 1, bucket % _SUB
    return (_SUB + sub) << exponent, (_SUB + sub + 1) << exponent


def create(layout: Layout) -> int:
    """Make the memory file; returns its descriptor (inheritable by explicit passing)."""
    fd = os.memfd_create("mooring-counters", os.MFD_CLOEXEC)
    os.ftruncate(fd, layout.size_bytes)
    return fd


class Counters:
    """A mapping of the file. `word` is the raw view: hot code indexes it with offsets computed once."""

    def __init__(self, fd: int, layout: Layout) -> None:
        self.layout = layout
        self._map = mmap.mmap(fd, layout.size_bytes)
        self.word = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Unmap."""
        self.word.release()
        self._map.close()

    def base(self, worker: int) -> int:
        """First word of a worker's region."""
        return worker * self.layout.worker_words

    def gauge(self, worker: int, slot: int) -> int:
        """Word index of a gauge."""
        return self.base(worker) + _BEAT_WORDS + slot

    def group(self, worker: int, slot: int) -> int:
        """First word index of a group: its counters, then its histograms."""
        return self.base(worker) + _BEAT_WORDS + self.layout.gauges + slot * self.layout.group_words

    def gauge_total(self, slot: int) -> int:
        """Sum of a gauge over all workers."""
        return sum(self.word[self.gauge(worker, slot)] for worker in range(self.layout.workers))

    def counter_total(self, slot: int, counter: int) -> int:
        """Sum of a group's counter over all workers."""
        return sum(self.word[self.group(worker, slot) + counter] for worker in range(self.layout.workers))

    def histogram_total(self, slot: int, histogram: int) -> Sequence[int]:
        """A group's histogram summed over all workers, BUCKETS long."""
        total = [0] * BUCKETS
        for worker in range(self.layout.workers):
            start = self.group(worker, slot) + self.layout.counters + histogram * BUCKETS
            for index, count in enumerate(self.word[start : start + BUCKETS]):
                total[index] += count
        return total

    def clear_group(self, slot: int) -> None:
        """Zero a group of every worker; only when no worker can write it (its route is gone everywhere)."""
        for worker in range(self.layout.workers):
            start = self.group(worker, slot)
            for index in range(start, start + self.layout.group_words):
                self.word[index] = 0

    # beats: the worker's sign of life
    def begin(self, worker: int, pid: int) -> None:
        """A worker's start: its gauges are zeroed (its in-flight requests died with its predecessor), histograms kept."""
        start = self.gauge(worker, 0)
        for index in range(start, start + self.layout.gauges):
            self.word[index] = 0
        self.word[self.base(worker) + 1] = 0
        self.word[self.base(worker)] = pid

    def beat(self, worker: int) -> None:
        """Count one heartbeat."""
        self.word[self.base(worker) + 1] += 1

    def pid(self, worker: int) -> int:
        """Process id that called begin, 0 before."""
        return self.word[self.base(worker)]

    def beats(self, worker: int) -> int:
        """Heartbeats since begin."""
        return self.word[self.base(worker) + 1]
