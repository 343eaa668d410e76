"""A body on its way in: bytes are kept in memory while they are few, in a staged blob file from there on.

With an envelope they are sealed before they touch a file; what the disk ever sees is unreadable.

Used by one request at a time, from threads. Ends by `finish` (durable, to be committed) or `abort` (nothing left).
"""

from mooring.kit.sealing import Sealer
from mooring.objects.blobs import Blobs, BlobWriter
from mooring.objects.envelopes import Envelope
from mooring.objects.records import Body, Segment

INLINE_MAX_BYTES = 16 << 10


class Intake:
    """See the module. `always_blob` for parts of an upload: an object's segments are files."""

    def __init__(self, blobs: Blobs, *, envelope: Envelope | None = None, always_blob: bool = False) -> None:
        self._blobs = blobs
        self._sealer = None if envelope is None else Sealer(envelope.data_key)
        self._wrapped_key = b"" if envelope is None else envelope.wrapped
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
        writer = self._start_file()
        writer.write(data if self._sealer is None else self._sealer.update(data))

    def _start_file(self) -> BlobWriter:
        if self._writer is None:
            self._writer = self._blobs.create()
            self._writer.write(self._memory if self._sealer is None else self._sealer.update(self._memory))
            self._memory.clear()
        return self._writer

    def finish(self) -> Body:
        """Everything that was written; what went to a file is durable."""
        if self._writer is None and not self._always_blob:
            inline = bytes(self._memory) if self._sealer is None else self._sealer.update(self._memory)
            if self._sealer is not None:
                inline += self._sealer.finish()
            return Body(size=self.size, inline=inline, wrapped_key=self._wrapped_key)
        writer = self._start_file()
        if self._sealer is not None:
            writer.write(self._sealer.finish())
        segment = Segment(blob=writer.finish(), size=self.size, wrapped_key=self._wrapped_key)
        return Body(size=self.size, segments=(segment,))

    def abort(self) -> None:
        """Leave nothing; does nothing after `finish` has returned."""
        if self._writer is not None:
            self._writer.abort()
