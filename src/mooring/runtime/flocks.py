"""flock(2) as an asynchronous context: mutual exclusion of processes that a crash cannot leave locked.

Called by `runtime.environments`. Waiting is polling, so that a cancelled waiter leaves no thread behind.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_POLL_S = 0.05


class Busy(Exception):
    """Someone else held the lock for all of the time given."""


@asynccontextmanager
async def hold(path: Path, *, shared: bool, timeout_s: float) -> AsyncIterator[None]:
    """Hold a lock on the file, which is made where it is not there. Raises Busy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = asyncio.get_running_loop().time() + timeout_s
    try:
        while True:
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise Busy(f"{path} is held by another") from error
            await asyncio.sleep(_POLL_S)
        yield
    finally:
        os.close(fd)
