"""How much memory a running instance holds that nothing else could use: the sum over its shim and all below it.

Mapped files are left out: the machine's available memory counts them as free. What forked workers share counts once, where
the kernel tells (proportional shares); where it does not, the largest process stands for all that do. Asked by
reconcile.pools, so that what is starting counts at its siblings' real size; None where there is no telling.
"""

import asyncio
from pathlib import Path

from mooring.domain.instance import Handle
from mooring.reconcile import beats

MAX_PROCESSES = 64
_PROC = Path("/proc")
_SHARES = ("Pss_Anon:", "Pss_Shmem:")
_RESIDENT = ("RssAnon:", "RssShmem:")


async def measure(handle: Handle) -> int | None:
    """Bytes of an instance; None where its processes cannot be seen."""
    return await asyncio.to_thread(_measure, handle) if handle.shim_pid else None


def _measure(handle: Handle) -> int | None:
    """Blocking: for a share the kernel walks all the pages of a process."""
    try:
        shim = beats.identify(handle.shim_pid)
    except OSError:
        return None
    if shim is None or shim.start_ticks != handle.shim_start_ticks:
        return None
    waiting, seen, shares, largest = [handle.shim_pid], 0, 0, 0
    while waiting and seen < MAX_PROCESSES:
        pid = waiting.pop()
        seen += 1
        share = _read(pid, "smaps_rollup", _SHARES)
        shares += share or 0
        if share is None:
            largest = max(largest, _read(pid, "status", _RESIDENT) or 0)
        waiting += _children(pid)
    return shares + largest or None


def _read(pid: int, name: str, fields: tuple[str, ...]) -> int | None:
    try:
        return sum_fields((_PROC / str(pid) / name).read_text(encoding="utf-8", errors="replace"), fields)
    except OSError:
        return None  # it ended meanwhile, or may not be looked at


def sum_fields(text: str, fields: tuple[str, ...]) -> int | None:
    """The sum in bytes of lines like `RssAnon:  12 kB`; None where there is none of them."""
    rows = (line.split() for line in text.splitlines())
    amounts = [int(row[1]) * 1024 for row in rows if len(row) > 1 and row[0] in fields]
    return sum(amounts) if amounts else None


def _children(pid: int) -> list[int]:
    found = []
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        pass  # as above; what was found so far is counted
    return found
