"""Finds edge workers that are alive but silent, and kills them; the supervisor starts new ones.

`Watch` is pure. A worker is silent when its heartbeat did not move over `SILENT_S` *and* several looks: a control process
that was itself held up for long must not blame the workers. A process is killed only if it is still the one that was
watched (start time in /proc) and a child of our supervisor: a process id may have been given to someone else.
"""

import logging
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

logger = logging.getLogger(__name__)

SILENT_S = 5.0
LOOKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A process, told apart from a later one of the same id."""

    pid: int
    parent_pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    identity: Identity
    beats: int
    since_s: float
    looks: int


class Watch:
    """Remembers the last movement of every worker."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def observe(self, worker: int, identity: Identity | None, beats: int, *, now_s: float) -> bool:
        """Take in one look at a worker (`identity` None: no such process); True when it should be killed."""
        if identity is None:
            self._seen.pop(worker, None)
            return False
        seen = self._seen.get(worker)
        if seen is None or seen.identity != identity or seen.beats != beats:
            self._seen[worker] = _Seen(identity=identity, beats=beats, since_s=now_s, looks=0)
            return False
        seen = self._seen[worker] = replace(seen, looks=seen.looks + 1)
        return now_s - seen.since_s >= SILENT_S and seen.looks >= LOOKS


def parse_stat(text: str) -> Identity:
    """The fields of /proc/<pid>/stat that identify a process. The command's name may hold anything: count from its end."""
    pid = int(text.split(" ", 1)[0])
    fields = text[text.rindex(")") + 2 :].split()
    return Identity(pid=pid, parent_pid=int(fields[1]), start_ticks=int(fields[19]))


def identify(pid: int) -> Identity | None:
    """The process of this id now; None when there is none (or no /proc: then nothing is ever killed)."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")) if pid > 0 else None
    except (FileNotFoundError, ProcessLookupError):
        return None


def kill(identity: Identity, *, supervisor_pid: int) -> bool:
    """SIGKILL the process if it is still the identified one and the supervisor's child; whether it was sent."""
    if identity.parent_pid != supervisor_pid:
        return False
    try:
        pidfd = os.pidfd_open(identity.pid)  # from here on the id cannot change hands under us
    except ProcessLookupError:
        return False
    try:
        if identify(identity.pid) != identity:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
