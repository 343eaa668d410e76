"""poll(2) with one handler per descriptor. Called by the shim's network process."""

import select
from collections.abc import Callable

READ = select.POLLIN
WRITE = select.POLLOUT


class Poller:
    """A descriptor that waits for nothing must not be in here: poll reports a hang-up whether it is asked for or not."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._let_go: set[int] = (
            set()
        )  # in this turn: what poll said of these numbers was said of what is closed by now

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """From now on, or instead of what was watched for before; no events: no more. The handler gets what happened."""
        known = self._handlers.get(fd)
        if not events:
            self.unwatch(fd)
            return
        if known is None:
            self._poll.register(fd, events)
        elif known[0] != events:
            self._poll.modify(fd, events)
        self._handlers[fd] = (events, handler)

    def unwatch(self, fd: int) -> None:
        """No more. Idempotent; before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)
            self._let_go.add(fd)

    def turn(self, timeout_s: float) -> None:
        """Wait once and call who is ready."""
        self._let_go.clear()
        for fd, happened in self._poll.poll(max(0, int(timeout_s * 1000) + 1)):
            watched = self._handlers.get(fd)
            if watched is not None and fd not in self._let_go:
                watched[1](happened)
