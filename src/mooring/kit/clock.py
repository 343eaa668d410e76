"""Time, randomness and ids, taken by argument everywhere else."""

import random
import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """What code that needs the time takes."""

    def now_s(self) -> float:
        """Epoch seconds."""

    def monotonic_s(self) -> float:
        """Seconds that never run backward."""


class SystemClock:
    """The machine's clocks."""

    def now_s(self) -> float:
        """Epoch seconds."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds that never run backward."""
        return time.monotonic()


def new_id() -> str:
    """A random UUID in its usual form, for request ids."""
    return str(uuid.uuid4())


def token_hex(nbytes: int) -> str:
    """`nbytes` of the system's randomness, as hex digits."""
    return random.SystemRandom().randbytes(nbytes).hex()
