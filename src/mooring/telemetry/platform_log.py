"""Lines of the server's own in a container's log stream: what was done to start it, and why it ended.

Control's reconcile loops call it. One short write per line; segments are opened for that write alone, so that retention and
many streams cost no open files.
"""

import threading
from pathlib import Path

from mooring.kit.clock import Clock
from mooring.kit.logfile import WRITER_PLATFORM, SegmentWriter
from mooring.telemetry.log_store import directory_name


class PlatformLog:
    """Appends to `<root>/<group>/<stream>/platform-….log`. Safe to call from several threads."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._lock = threading.Lock()

    def write(self, group: str, stream: str, text: str) -> None:
        """Add one event, stamped now. Raises OSError; ValueError for a name that no stream can have."""
        group_entry, stream_entry = directory_name(group), directory_name(stream)
        if group_entry is None or stream_entry is None:
            raise ValueError(f"a log stream cannot be called {stream!r} in {group!r}")
        with self._lock:
            writer = SegmentWriter(str(self._root / group_entry / stream_entry), WRITER_PLATFORM)
            try:
                writer.append(int(self._clock.now_s() * 1000), text)
            finally:
                writer.close()
