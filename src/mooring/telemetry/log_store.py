"""The log store as its readers see it: groups, streams, events. Synchronous; callers run it in threads.

    <root>/<quote(group)>/<quote(stream)>/<writer>-<8 digits>.log       (kit.logfile is the format)

Writers are the shim of each instance and telemetry.platform_log; nobody else writes. A stream exists once it has a file.
"""

import heapq
import os
import urllib.parse
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mooring.telemetry import segments
from mooring.telemetry.segments import Event, Position

_MAX_NAME_BYTES = 255  # of a directory entry


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """What DescribeLogStreams tells of a stream. Times are None where a stream has no event yet."""

    name: str
    first_ms: int | None
    last_ms: int | None
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInfo:
    """What DescribeLogGroups tells of a group."""

    name: str
    first_ms: int
    stored_bytes: int


@dataclass(frozen=True, slots=True, order=True)
class EventKey:
    """Place of an event among all events of a group; orders a search and resumes it."""

    ms: int
    stream: str
    writer: str
    number: int
    offset: int


def directory_name(name: str) -> str | None:
    """The directory entry of a group or stream; None when a name cannot have one (and so does not exist)."""
    quoted = urllib.parse.quote(name, safe="")
    if quoted in ("", ".", "..") or len(quoted) > _MAX_NAME_BYTES:
        return None
    return quoted


class LogStore:
    """Reads and bounds the files under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    # names ------------------------------------------------------------------------------------------------------------
    def groups(self) -> list[str]:
        """Every group that has a stream, in name order."""
        return [group for group in _names(self._root) if self._streams(group)]

    def streams(self, group: str) -> list[str] | None:
        """Names of a group's streams, in order; None when there is no such group."""
        return self._streams(group) or None

    def has_stream(self, group: str, stream: str) -> bool:
        """Whether the stream has a file."""
        directory = self._directory(group, stream)
        return directory is not None and bool(segments.writers(directory))

    def _streams(self, group: str) -> list[str]:
        entry = directory_name(group)
        if entry is None:
            return []
        return [stream for stream in _names(os.path.join(self._root, entry)) if self.has_stream(group, stream)]

    def _directory(self, group: str, stream: str) -> str | None:
        group_entry, stream_entry = directory_name(group), directory_name(stream)
        if group_entry is None or stream_entry is None:
            return None
        return os.path.join(self._root, group_entry, stream_entry)

    # descriptions -----------------------------------------------------------------------------------------------------
    def describe_stream(self, group: str, stream: str) -> StreamInfo:
        """Times and size of a stream."""
        directory = self._directory(group, stream)
        if directory is None:
            return StreamInfo(name=stream, first_ms=None, last_ms=None, stored_bytes=0)
        firsts: list[int] = []
        lasts: list[int] = []
        stored = 0
        for writer, numbers in segments.writers(directory).items():
            stored += sum(_size_and_time(os.path.join(directory, segments.file_name(writer, n)))[0] for n in numbers)
            firsts += _first_known(segments.first_ms(directory, writer, number) for number in numbers)
            lasts += _first_known(segments.last_ms(directory, writer, number) for number in reversed(numbers))
        return StreamInfo(
            name=stream, first_ms=min(firsts, default=None), last_ms=max(lasts, default=None), stored_bytes=stored
        )

    def describe_group(self, group: str) -> GroupInfo:
        """Age and size of a group."""
        infos = [self.describe_stream(group, stream) for stream in self._streams(group)]
        return GroupInfo(
            name=group,
            first_ms=min((info.first_ms for info in infos if info.first_ms is not None), default=0),
            stored_bytes=sum(info.stored_bytes for info in infos),
        )

    # events -----------------------------------------------------------------------------------------------------------
    def start(self, group: str, stream: str) -> Position:
        """Before the first event of a stream."""
        directory = self._directory(group, stream)
        return segments.start_position(directory) if directory is not None else {}

    def end(self, group: str, stream: str) -> Position:
        """After the last event of a stream."""
        directory = self._directory(group, stream)
        return segments.end_position(directory) if directory is not None else {}

    def is_position(self, group: str, stream: str, position: Position) -> bool:
        """Whether a position that a caller hands in is one that we could have given out."""
        directory = self._directory(group, stream)
        return directory is not None and all(
            segments.is_line_start(directory, writer, place) for writer, place in position.items()
        )

    def forward(self, group: str, stream: str, position: Position) -> Iterator[Event]:
        """Events from a position on, by time."""
        directory = self._directory(group, stream)
        return segments.forward(directory, position) if directory is not None else iter(())

    def backward(self, group: str, stream: str, position: Position) -> Iterator[Event]:
        """Events before a position, latest first."""
        directory = self._directory(group, stream)
        return segments.backward(directory, position) if directory is not None else iter(())

    def search(self, group: str, streams: Sequence[str], *, since_ms: int) -> Iterator[tuple[EventKey, Event]]:
        """Events of several streams by time, from about `since_ms` on."""
        return heapq.merge(*(self._keyed(group, stream, since_ms=since_ms) for stream in streams), key=_key)

    def search_backward(self, group: str, streams: Sequence[str]) -> Iterator[tuple[EventKey, Event]]:
        """Events of several streams, latest first."""
        return heapq.merge(*(self._keyed_backward(group, stream) for stream in streams), key=_key, reverse=True)

    def _keyed(self, group: str, stream: str, *, since_ms: int) -> Iterator[tuple[EventKey, Event]]:
        directory = self._directory(group, stream)
        if directory is None:
            return
        for event in segments.forward(directory, {}, since_ms=since_ms):
            yield EventKey(event.ms, stream, event.writer, *event.start), event

    def _keyed_backward(self, group: str, stream: str) -> Iterator[tuple[EventKey, Event]]:
        directory = self._directory(group, stream)
        if directory is None:
            return
        for event in segments.backward(directory, segments.end_position(directory)):
            yield EventKey(event.ms, stream, event.writer, *event.start), event

    # retention --------------------------------------------------------------------------------------------------------
    def retain(self, *, max_bytes: int, live: Collection[tuple[str, str]]) -> int:
        """Delete the oldest segments until at most `max_bytes` are left; returns the bytes freed.

        The newest segment of each writer of a `live` (group, stream) stays: its writer has it open. Directories that
        hold nothing any more go too, unless live.
        """
        removable: list[tuple[float, int, str]] = []
        total = 0
        empty: list[str] = []
        for group in _names(self._root):
            for stream in _names(os.path.join(self._root, directory_name(group) or "")):
                directory = self._directory(group, stream)
                if directory is None:
                    continue
                found = segments.writers(directory)
                if not found and (group, stream) not in live:
                    empty.append(directory)
                for writer, numbers in found.items():
                    for number in numbers:
                        path = os.path.join(directory, segments.file_name(writer, number))
                        size, changed_s = _size_and_time(path)
                        total += size
                        if number != numbers[-1] or (group, stream) not in live:
                            removable.append((changed_s, size, path))
        freed = _remove_oldest(removable, excess=total - max_bytes)
        _remove_empty(empty, self._root)
        return freed


def _key(found: tuple[EventKey, Event]) -> EventKey:
    return found[0]


def _names(directory: str) -> list[str]:
    """Names whose directories are there, in order; entries that are not ours are passed over."""
    try:
        with os.scandir(directory) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = [urllib.parse.unquote(entry) for entry in found]
    return sorted(name for name, entry in zip(names, found, strict=True) if directory_name(name) == entry)


def _first_known(times: Iterator[int | None]) -> list[int]:
    return next(([ms] for ms in times if ms is not None), [])


def _size_and_time(path: str) -> tuple[int, float]:
    try:
        state = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return 0, 0.0
    return state.st_size, state.st_mtime


def _remove_oldest(removable: list[tuple[float, int, str]], *, excess: int) -> int:
    freed = 0
    for _, size, path in sorted(removable):
        if freed >= excess:
            break
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue  # its writer rotated it away
        freed += size
    return freed


def _remove_empty(directories: list[str], root: str) -> None:
    for directory in directories:
        parent = os.path.dirname(directory)
        try:
            os.rmdir(directory)
            if parent != root:
                os.rmdir(parent)
        except OSError:
            continue  # something came in meanwhile, or siblings are left
