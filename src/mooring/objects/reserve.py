"""Disk space kept back so that objects can still be deleted when nothing else fits: one preallocated file.

    held ──(a delete finds no room)──▶ release: the delete's log records go where the file was
      ▲                                   │
      └────── hold: room for it again ◀───┘   until then nothing that grows is let in

Deleting needs room before it gives any back: the index writes ahead. Called by `Index` and `Blobs`; knows neither.
"""

import contextlib
import errno
import logging
import os
import threading
from pathlib import Path

from mooring.objects.errors import NoSpaceError

logger = logging.getLogger(__name__)

RESERVE_BYTES = 8 << 20
_SMALLEST_SHARE = 8  # of a small file system, no more than one part in so many
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


class Reserve:
    """See the module. Thread-safe; blocks on the disk. `size` is fixed when made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._held = False
        self.size = RESERVE_BYTES

    def start(self) -> None:
        """Let go of what the last process kept, so that there is room to recover in; `hold` takes it back."""
        disk = os.statvfs(self._path.parent)
        self.size = min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _SMALLEST_SHARE)
        self.release()

    def require(self) -> None:
        """Before anything that grows. Raises NoSpaceError while there is no room for the reserve."""
        if not self.hold():
            raise NoSpaceError

    def hold(self) -> bool:
        """Have the reserve on disk; False when there is no room for it."""
        if self._held:
            return True
        with self._lock:
            self._held = self._held or self._take()
            return self._held

    @property
    def held(self) -> bool:
        """Whether it is on disk."""
        return self._held

    def release(self) -> None:
        """Give the space to whoever writes next."""
        with self._lock:
            self._held = False
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    def _take(self) -> bool:
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < self.size:  # asked first: a try that fails would hold all space for a moment
            return False
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, max(self.size, 1))
            finally:
                os.close(fd)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if error.errno in FULL_ERRNOS:
                return False
            logger.warning("no space can be kept back in %s: %s", self._path, error.strerror)
        return True
