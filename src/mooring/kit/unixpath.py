"""Unix socket paths of any length: sun_path holds 107 bytes, data directories may be longer.

On Linux a long path is reached through its directory's descriptor: /proc/self/fd/<n>/<name>.
"""

import os

_MAX = 100


class SocketPath:
    """A usable address for a socket file; keeps the directory open as long as it lives."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        if len(os.fsencode(path)) <= _MAX:
            self.address = path
        else:
            directory, name = os.path.split(path)
            self._fd = os.open(directory, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
            self.address = f"/proc/self/fd/{self._fd}/{name}"

    def close(self) -> None:
        """Let the directory go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
