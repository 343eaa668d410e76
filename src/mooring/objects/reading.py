"""An open object: its head, and its bytes at any offset, which stay what they were until it is closed.

Used by one request at a time, from threads.
"""

import os

from mooring.kit import sealing
from mooring.objects import envelopes
from mooring.objects.blobs import Blobs
from mooring.objects.errors import StorageError
from mooring.objects.keys import KeyRing
from mooring.objects.rows import StoredObject


class ObjectReader:
    """See the module. Holds pins on its blobs (removal waits) and at most one descriptor.

    Making one opens a sealed body that lies in the index. Raises StorageError when it does not open.
    """

    def __init__(self, stored: StoredObject, blobs: Blobs, pinned: tuple[str, ...], keys: KeyRing) -> None:
        self.head = stored.head
        self.stored = stored
        self.segments = stored.segments
        self.inline = _opened(stored, keys)
        self._keys = keys
        self._opener: sealing.Opener | None = None  # of the segment that `_fd` is open on, if it is sealed
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
        segment = self.segments[self._open_at]
        start = offset - self._open_start
        length = min(size, segment.size - start)
        if self._opener is None:
            data = self._pread(start, length)
            if not data:
                raise StorageError(f"blob {segment.blob} is shorter than its object says")
            return data
        extent = sealing.extent(segment.size, start, length)
        sealed = self._pread(extent.start, extent.length)
        if len(sealed) != extent.length:
            raise StorageError(f"blob {segment.blob} is shorter than its object says")
        try:
            return self._opener.open(extent.number, sealed)[extent.skip : extent.skip + length]
        except sealing.SealingError as error:
            raise StorageError(f"blob {segment.blob} is damaged: {error}") from error

    def _pread(self, start: int, length: int) -> bytes:
        try:
            return os.pread(self._fd, length, start)
        except OSError as error:
            raise StorageError(f"cannot read a blob: {error.strerror}") from error

    def _seek(self, offset: int) -> None:
        at, start = (self._open_at, self._open_start) if 0 <= self._open_start <= offset else (0, 0)
        at = max(at, 0)
        while offset >= start + self.segments[at].size:
            start += self.segments[at].size
            at += 1
        if at != self._open_at:
            self._close_file()
            segment = self.segments[at]
            data_key = envelopes.data_key_of(self._keys, self.head.attributes.encryption, segment.wrapped_key)
            self._fd = self._blobs.open(segment.blob)
            self._opener = None if data_key is None else sealing.Opener(data_key, segment.size)
            self._open_at, self._open_start = at, start

    def _close_file(self) -> None:
        fd, self._fd = self._fd, -1
        self._open_at, self._open_start = -1, 0
        self._opener = None
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Let go of everything."""
        self._close_file()
        pinned, self._pinned = self._pinned, ()
        self._blobs.unpin(pinned)


def _opened(stored: StoredObject, keys: KeyRing) -> bytes | None:
    if stored.inline is None:
        return None
    data_key = envelopes.data_key_of(keys, stored.head.attributes.encryption, stored.wrapped_key)
    if data_key is None:
        return stored.inline
    try:
        return sealing.open_whole(data_key, stored.inline, stored.head.size)
    except sealing.SealingError as error:
        raise StorageError(f"a body in the index is damaged: {error}") from error
