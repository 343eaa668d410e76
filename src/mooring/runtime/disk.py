"""Directory trees on disk: how much they hold, and making them durable.

Called by `runtime.environments`, from a worker thread. Knows nothing of what the trees are.
"""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_FEW_FILES = 64
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own


def used_bytes(root: Path) -> int:
    """What the tree takes on disk; a file with several names in it counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for entry in _walk(root):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # it went while we looked
        if status.st_nlink > 1:
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
        total += status.st_blocks * _BLOCK_BYTES
    return total


def sync_tree(root: Path) -> None:
    """Return when everything in the tree would survive a power loss."""
    entries = list(_walk(root))
    if len(entries) > _FEW_FILES and _sync_file_system(root):
        return
    for entry in entries:
        if entry.is_symlink():
            continue  # its directory holds it
        _sync(entry.path)
    _sync(str(root))


def sync_directory(path: Path) -> None:
    """Return when the directory's entries would survive a power loss."""
    _sync(str(path))


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_file_system(path: Path) -> bool:
    """One syncfs(2) for thousands of files; False where there is none."""
    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return False
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(syncfs(fd) == 0)
    finally:
        os.close(fd)


def _walk(root: Path) -> Iterator[os.DirEntry[str]]:
    pending = [str(root)]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            yield entry
