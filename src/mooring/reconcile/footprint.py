"""How much memory a running instance holds that nothing else could use: the sum over its shim and all below it.

Mapped files are left out: the machine's available memory counts them as free. Asked by reconcile.pools before a start, so
that what is under way is counted at its real size. A few small reads of /proc, no waiting; None where there is no telling.
"""

from pathlib import Path

from mooring.domain.instance import Handle
from mooring.reconcile import beats

MAX_PROCESSES = 64
_PROC = Path("/proc")
_OWN = ("RssAnon:", "RssShmem:")
_WHOLE = "VmRSS:"


def measure(handle: Handle) -> int | None:
    """Bytes of an instance; None where its processes cannot be seen."""
    try:
        shim = beats.identify(handle.shim_pid)
    except OSError:
        return None
    if shim is None or shim.start_ticks != handle.shim_start_ticks:
        return None
    waiting, seen, total = [handle.shim_pid], 0, 0
    while waiting and seen < MAX_PROCESSES:
        pid = waiting.pop()
        seen += 1
        try:
            total += own_bytes((_PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace"))
            waiting += _children(pid)
        except OSError:
            continue  # it ended meanwhile, or may not be looked at
    return total or None


def own_bytes(status: str) -> int:
    """From /proc/<pid>/status: anonymous and shared memory; all that is resident where these are not told apart."""
    amounts = {}
    for line in status.splitlines():
        name, *rest = line.split()
        if name in (*_OWN, _WHOLE) and rest:
            amounts[name] = int(rest[0]) * 1024
    own = [amounts[name] for name in _OWN if name in amounts]
    return sum(own) if own else amounts.get(_WHOLE, 0)


def _children(pid: int) -> list[int]:
    found = []
    for task in (_PROC / str(pid) / "task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # as above
    return found
