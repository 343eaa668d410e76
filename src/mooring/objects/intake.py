"""A body on its way in: bytes are kept in memory while they are few, in a staged blob file from there on.

Used by one request at a time, from threads. Ends by `finish` (durable, to be committed) or `abort` (nothing left).
"""

from mooring.objects.blobs import Blobs, BlobWriter
from mooring.objects.records import Body, Segment

INLINE_MAX_BYTES = 16 << 10


class Intake:
    """See the module. `always_blob` for parts of an upload: an object's segments are files."""

    def __init__(self, blobs: Blobs, *, always_blob: bool = False) -> None:
        self._blobs = blobs
        self._always_blob = always_blob
        self._memory = bytearray()
        self._writer: BlobWriter | None = None
        self.size = 0

    def write(self, data: bytes | bytearray) -> None:
        """Append."""
        self.size += len(data)
        if self._writer is None and not self._always_blob and self.size <= INLINE_MAX_BYTES:
            self._memory += data
            return
        if self._writer is None:
            self._writer = self._blobs.create()
            self._writer.write(self._memory)
            self._memory.clear()
        self._writer.write(data)

    def finish(self) -> Body:
        """Everything that was written; what went to a file is durable."""
        if self._writer is None and self._always_blob:
            self._writer = self._blobs.create()
        if self._writer is None:
            return Body(size=self.size, inline=bytes(self._memory))
        return Body(size=self.size, segments=(Segment(blob=self._writer.finish(), size=self.size),))

    def abort(self) -> None:
        """Leave nothing; does nothing after `finish` has returned."""
        if self._writer is not None:
            self._writer.abort()
