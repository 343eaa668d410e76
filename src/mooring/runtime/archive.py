"""Unpack a model.tar.gz that nobody vouches for. Blocking; called by runtime.artifacts in a thread.

Nothing is written through a link: regular files and directories first, links last, and each link's whole way is checked in
the tree as the instance will see it. Refused: members outside, absolute or with `..`; links that leave; devices, pipes; too
many members, too many bytes, bombs. Set-user-id bits, owners and times are dropped.
"""

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO

_CHUNK = 1 << 20
_META_BYTES = 1 << 20  # of a long name or extended header: tarfile holds it in memory
_MAX_LINK_STEPS = 40  # as Linux
_FREE_CHECK_BYTES = 64 << 20


class ArchiveError(Exception):
    """The archive is not acceptable; the text is for its owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What an archive may be. `ratio` counts once more than `ratio_from_bytes` came out of it."""

    packed_bytes: int = 32 << 30
    unpacked_bytes: int = 64 << 30
    members: int = 200_000
    ratio: int = 500
    ratio_from_bytes: int = 256 << 20
    depth: int = 100
    keep_free_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What came out."""

    files: int
    size_bytes: int


def member_path(name: str) -> tuple[str, ...]:
    """The components of a member's name below the root; () for the root itself. Raises ArchiveError for one outside."""
    if name.startswith("/"):
        raise ArchiveError(f"the archive holds the absolute path {name!r}")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ArchiveError(f"the archive holds a path with '..': {name!r}")
    for part in parts:
        if len(part.encode("utf-8", "surrogateescape")) > 255 or "\0" in part:
            raise ArchiveError(f"the archive holds a file name that is too long or invalid: {part[:80]!r}")
    return parts


def resolve_inside(links: Mapping[tuple[str, ...], str], path: tuple[str, ...]) -> tuple[str, ...]:
    """Where a path leads when links are followed as the kernel does. Raises ArchiveError when any step leaves the root."""
    done: list[str] = []
    todo = list(reversed(path))
    steps = 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not done:
                raise ArchiveError(f"a link leads out of the model directory: {'/'.join(path)!r}")
            done.pop()
            continue
        target = links.get((*done, part))
        if target is None:
            done.append(part)
            continue
        steps += 1
        if steps > _MAX_LINK_STEPS:
            raise ArchiveError(f"links go in circles at {'/'.join(path)!r}")
        if target.startswith("/"):
            raise ArchiveError(f"a link leads out of the model directory: {'/'.join(path)!r} -> {target!r}")
        todo.extend(reversed(target.split("/")))
    return tuple(done)


class _Member(tarfile.TarInfo):
    """TarInfo that does not read long headers of any size into memory (tarfile: _proc_member is there to be overridden)."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _HEADERS and self.size > _META_BYTES):
            raise ArchiveError("the archive has a header that is too large")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]  # typeshed leaves it out


_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Meter:
    """The decompressed stream, counted: a bomb is noticed while it is read, not when the disk is full."""

    def __init__(self, packed: IO[bytes], bounds: Bounds) -> None:
        self._packed = packed
        self._stream = gzip.GzipFile(fileobj=packed, mode="rb")
        self._bounds = bounds
        self._count = 0

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        chunk = self._stream.read(min(size, _CHUNK) if size >= 0 else _CHUNK)
        self._count += len(chunk)
        bounds = self._bounds
        # headers and padding count too: 1 KiB a member at the least, so the bound on members is kept by bytes as well
        if self._count > bounds.unpacked_bytes + 2048 * bounds.members:
            raise ArchiveError(f"the archive unpacks to more than {bounds.unpacked_bytes} bytes")
        if self._count > bounds.ratio_from_bytes and self._count > bounds.ratio * max(self._packed.tell(), 1):
            raise ArchiveError(f"the archive unpacks to more than {bounds.ratio} times its size")
        return chunk


@dataclass
class _State:
    root: str
    bounds: Bounds
    members: int = 0
    files: int = 0
    size_bytes: int = 0
    unchecked_bytes: int = 0
    links: dict[tuple[str, ...], str] = field(default_factory=dict)


def unpack(packed: IO[bytes], root: str, bounds: Bounds) -> Unpacked:
    """Unpack a gzip'ed tar into the empty directory `root`. Raises ArchiveError, OSError; what is there is then garbage."""
    state = _State(root=root, bounds=bounds)
    try:
        with tarfile.open(fileobj=_Meter(packed, bounds), mode="r|", tarinfo=_Member) as tar:  # type: ignore[call-overload]  # any read() will do
            for member in tar:
                _take(state, tar, member)
    except gzip.BadGzipFile as error:
        raise ArchiveError("the object is not a gzip-compressed tar archive (model.tar.gz)") from error
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise ArchiveError(f"the object is not a whole gzip-compressed tar archive (model.tar.gz): {error}") from error
    except (ValueError, OverflowError) as error:  # tarfile on headers that lie
        raise ArchiveError(f"the archive is damaged: {error}") from error
    _make_links(state)
    return Unpacked(files=state.files, size_bytes=state.size_bytes)


def _take(state: _State, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    tar.members = []  # type: ignore[attr-defined]  # in stream mode tarfile would remember every member
    state.members += 1
    if state.members > state.bounds.members:
        raise ArchiveError(f"the archive has more than {state.bounds.members} members")
    path = member_path(member.name)
    if len(path) > state.bounds.depth:
        raise ArchiveError(f"the archive nests deeper than {state.bounds.depth} directories")
    if member.isdir():
        _make_directory(state, path)
    elif not path:
        raise ArchiveError("the archive holds a member without a name")
    elif member.isreg():
        _write_file(state, tar, member, path)
    elif member.issym():
        _forget(state, path)
        state.links[path] = member.linkname
    elif member.islnk():
        _hard_link(state, path, member_path(member.linkname))
    else:
        raise ArchiveError(f"the archive holds a device, pipe or other special file: {member.name!r}")


def _host(state: _State, path: tuple[str, ...]) -> str:
    return os.path.join(state.root, *path)


def _make_directory(state: _State, path: tuple[str, ...]) -> None:
    for depth in range(1, len(path) + 1):
        part = path[:depth]
        if part in state.links:
            raise ArchiveError(f"the archive puts files through the link {'/'.join(part)!r}")
        try:
            os.mkdir(_host(state, part), 0o755)
        except FileExistsError as error:
            if not os.path.isdir(_host(state, part)):  # no link is on disk yet: this is what it seems
                raise ArchiveError(f"{'/'.join(part)!r} is both a file and a directory") from error


def _forget(state: _State, path: tuple[str, ...]) -> None:
    """Make way for a member of the same name as an earlier one: the last wins, as with tar."""
    _make_directory(state, path[:-1])
    state.links.pop(path, None)
    try:
        os.unlink(_host(state, path))
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError) as error:
        raise ArchiveError(f"{'/'.join(path)!r} is both a file and a directory") from error


def _write_file(state: _State, tar: tarfile.TarFile, member: tarfile.TarInfo, path: tuple[str, ...]) -> None:
    if state.size_bytes + member.size > state.bounds.unpacked_bytes:
        raise ArchiveError(f"the archive unpacks to more than {state.bounds.unpacked_bytes} bytes")
    _forget(state, path)
    content = tar.extractfile(member)
    if content is None:
        raise ArchiveError(f"{member.name!r} has no content")
    mode = 0o555 if member.mode & 0o100 else 0o444
    fd = os.open(_host(state, path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while chunk := content.read(_CHUNK):
            _account(state, len(chunk))
            _write_all(fd, chunk)
        os.fchmod(fd, mode)  # whatever the umask: the instance has a user id of its own
        os.fsync(fd)
    finally:
        os.close(fd)
    state.files += 1


def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]


def _account(state: _State, count: int) -> None:
    state.size_bytes += count
    if state.size_bytes > state.bounds.unpacked_bytes:
        raise ArchiveError(f"the archive unpacks to more than {state.bounds.unpacked_bytes} bytes")
    state.unchecked_bytes += count
    if state.unchecked_bytes >= _FREE_CHECK_BYTES:
        state.unchecked_bytes = 0
        if shutil.disk_usage(state.root).free < state.bounds.keep_free_bytes:
            raise OSError(28, "No space left on device")


def _hard_link(state: _State, path: tuple[str, ...], target: tuple[str, ...]) -> None:
    source = _host(state, target)
    if not target or not os.path.isfile(source):
        raise ArchiveError(f"the archive has a hard link to what it does not hold: {'/'.join(target)!r}")
    if path == target:
        return
    for depth in range(1, len(target) + 1):
        if target[:depth] in state.links:
            raise ArchiveError(f"the archive has a hard link through a link: {'/'.join(target)!r}")
    _forget(state, path)
    os.link(source, _host(state, path))
    state.files += 1


def _make_links(state: _State) -> None:
    for path in state.links:
        resolve_inside(state.links, path)
    for path, target in state.links.items():
        os.symlink(target, _host(state, path))
