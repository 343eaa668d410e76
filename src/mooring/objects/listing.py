"""One page of a listing, from keys that can be sought in order. Pure but for the `fetch` it is given.

    rows  a/1  a/2  a/b/3  b  c/4          prefix "a/", delimiter "/"
    page  a/1  a/2  [a/b/]                 keys and common prefixes share one order and one limit

Keys are bytes in binary order. On meeting a common prefix, the walk jumps behind everything below it, so a page costs its
own length and not the number of keys under its prefixes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_FIRST_BATCH = 4  # behind a common prefix; grows while keys stand alone


class Row(Protocol):
    """What is listed; only its key matters here."""

    @property
    def key(self) -> bytes:
        """The key."""


R = TypeVar("R", bound=Row)

# (lowest key, one past the highest or None, how many) → rows in order, at most that many
Fetch = Callable[[bytes, bytes | None, int], Sequence[R]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[R]):
    """A page: `rows` and `prefixes` each in order; `last` is the greatest key or prefix given, to go on behind."""

    rows: tuple[R, ...] = ()
    prefixes: tuple[bytes, ...] = ()
    truncated: bool = False
    last: bytes = b""


def after_prefix(prefix: bytes) -> bytes | None:
    """The lowest key above everything that begins with `prefix`; None when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def common_prefix(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """What a key is rolled up into: up to and with the first delimiter behind the prefix; None when it stands alone."""
    if not delimiter or not key.startswith(prefix):
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]


def first_key(*, prefix: bytes, delimiter: bytes, after: bytes) -> bytes | None:
    """Where the walk starts; None: nothing can follow. An `after` that is a common prefix was given with all below it."""
    if not after:
        return prefix
    if common_prefix(after, prefix, delimiter) == after:
        return after_prefix(after)
    return max(prefix, after + b"\0")


def page_of(fetch: Fetch[R], *, prefix: bytes, delimiter: bytes, after: bytes, limit: int) -> Page[R]:
    """The first `limit` entries (≥ 0) behind `after`."""
    rows: list[R] = []
    prefixes: list[bytes] = []
    last = after
    start = first_key(prefix=prefix, delimiter=delimiter, after=after)
    end = after_prefix(prefix)
    size = _FIRST_BATCH if delimiter else limit + 1
    while limit > 0 and start is not None and (end is None or start < end):
        wanted = limit - len(rows) - len(prefixes) + 1  # one more tells whether there is more
        batch = fetch(start, end, min(wanted, size))
        start, size = None, size * 4
        for row in batch:
            if len(rows) + len(prefixes) == limit:
                return Page(rows=tuple(rows), prefixes=tuple(prefixes), truncated=True, last=last)
            rolled = common_prefix(row.key, prefix, delimiter)
            if rolled is not None:
                prefixes.append(rolled)
                last, start, size = rolled, after_prefix(rolled), _FIRST_BATCH
                break
            rows.append(row)
            last, start = row.key, row.key + b"\0"
    return Page(rows=tuple(rows), prefixes=tuple(prefixes), last=last)
