"""`mooring logs`: a container's output as text, read straight from the log store, running server or not."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mooring.telemetry.log_store import LogStore
from mooring.telemetry.segments import Event, Position

_LOOK_EVERY_S = 0.25


class NoLogsError(Exception):
    """There is no log group of that name. `known`: those that there are."""

    def __init__(self, group: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no log group {group}")
        self.group = group
        self.known = known


def groups(data_dir: Path) -> list[str]:
    """Every log group of a data directory."""
    return LogStore(data_dir / "logs").groups()


def lines(data_dir: Path, group: str, *, last: int, follow: bool) -> Iterator[tuple[str, Event]]:
    """(stream, event) of a group, by time: the last so many of each stream, then what comes. Raises NoLogsError."""
    store = LogStore(data_dir / "logs")
    if store.streams(group) is None:
        raise NoLogsError(group, store.groups())
    at: dict[str, Position] = {}
    yield from _round(store, group, at, lambda stream: _latest(store, group, stream, last))
    while follow:
        time.sleep(_LOOK_EVERY_S)
        yield from _round(store, group, at, lambda stream: store.start(group, stream))


def _latest(store: LogStore, group: str, stream: str, count: int) -> Position:
    position = dict(store.end(group, stream))
    for _, event in zip(range(count), store.backward(group, stream, dict(position)), strict=False):
        position[event.writer] = event.start
    return position


def _round(
    store: LogStore, group: str, at: dict[str, Position], begin: Callable[[str], Position]
) -> Iterator[tuple[str, Event]]:
    """What came since the last round, over all streams; a stream seen for the first time starts where `begin` says."""
    found: list[tuple[str, Event]] = []
    for stream in store.streams(group) or ():
        position = dict(at[stream] if stream in at else begin(stream))
        for event in store.forward(group, stream, position):
            found.append((stream, event))
            position[event.writer] = event.end
        at[stream] = position
    yield from sorted(found, key=lambda each: each[1].ms)
