"""The child's side of supervision: die when the supervisor dies. Called first thing, before anything slow is imported."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(supervisor_pid: int) -> None:
    """Have the kernel kill this process when its parent ends; end at once when that has happened already.

    SIGKILL, not SIGTERM: a server that crashed must leave its models running, and no process may linger to clean up.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != supervisor_pid:
        os._exit(1)
