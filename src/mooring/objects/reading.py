"""An open object: its head, and its bytes at any offset, which stay what they were until it is closed.

Used by one request at a time, from threads.
"""

import os

from mooring.objects.blobs import Blobs
from mooring.objects.errors import StorageError
from mooring.objects.rows import StoredObject


class ObjectReader:
    """See the module. Holds pins on its blobs (removal waits) and at most one descriptor."""

    def __init__(self, stored: StoredObject, blobs: Blobs, pinned: tuple[str, ...]) -> None:
        self.head = stored.head
        self.inline = stored.inline
        self.segments = stored.segments
        self._blobs = blobs
        self._pinned = pinned
        self._open_at = -1  # index of the segment that `_fd` is open on
        self._open_start = 0  # where in the object that segment begins
        self._fd = -1

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer only at the end of a segment. Raises StorageError."""
        if self.inline is not None:
            return self.inline[offset : offset + size]
        self._seek(offset)
        left = self._open_start + self.segments[self._open_at].size - offset
        try:
            data = os.pread(self._fd, min(size, left), offset - self._open_start)
        except OSError as error:
            raise StorageError(f"cannot read a blob: {error.strerror}") from error
        if not data:
            raise StorageError(f"blob {self.segments[self._open_at].blob} is shorter than its object says")
        return data

    def _seek(self, offset: int) -> None:
        at, start = (self._open_at, self._open_start) if 0 <= self._open_start <= offset else (0, 0)
        at = max(at, 0)
        while offset >= start + self.segments[at].size:
            start += self.segments[at].size
            at += 1
        if at != self._open_at:
            self._close_file()
            self._fd = self._blobs.open(self.segments[at].blob)
            self._open_at, self._open_start = at, start

    def _close_file(self) -> None:
        fd, self._fd = self._fd, -1
        self._open_at, self._open_start = -1, 0
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Let go of everything."""
        self._close_file()
        pinned, self._pinned = self._pinned, ()
        self._blobs.unpin(pinned)
