"""What this machine has, for domain.capacity: processors, memory, and how much memory is available now.

Counts what this process may use: its CPU affinity and the memory limit of its control group, not only the host's.
Called by app and reconcile before every start of an instance: a few small reads of /proc and /sys, no waiting.
"""

import os
import platform
import re
from pathlib import Path

from mooring.domain.capacity import Inventory

_PROC_MEMINFO = Path("/proc/meminfo")
# (limit, usage) at the root of this process's view: inside a container this is the container's own group.
_CGROUP_MEMORY = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
_CACHE_FIELD = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)


def read_inventory() -> Inventory:
    """The machine as it is now. GPUs are 0: no runtime of this version can give one to an instance."""
    total, available = _memory()
    return Inventory(
        vcpu=float(_cpus()),
        memory_bytes=total,
        memory_available_bytes=available,
        gpus=0,
        architecture=_architecture(platform.machine()),
    )


def _architecture(machine: str) -> str:
    lowered = machine.lower()
    return {"aarch64": "arm64", "amd64": "x86_64"}.get(lowered, lowered)


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> tuple[int, int]:
    """(total, available) in bytes."""
    try:
        fields = parse_meminfo(_PROC_MEMINFO.read_text(encoding="ascii"))
        total, available = fields["MemTotal"], fields["MemAvailable"]
    except FileNotFoundError:  # not Linux: nothing says how much is free, so all of it counts as available
        total = available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit_path, usage_path in _CGROUP_MEMORY:
        limit, usage = _number(limit_path), _number(usage_path)
        if limit is not None and usage is not None and limit < total:
            used = max(usage - _reclaimable(limit_path.parent / "memory.stat"), 0)
            total, available = limit, min(available, max(limit - used, 0))
    return total, available


def _reclaimable(stat_path: Path) -> int:
    """File cache in the group's usage that the kernel gives up on demand."""
    try:
        found = _CACHE_FIELD.findall(stat_path.read_text(encoding="ascii"))
    except OSError:
        return 0
    return max((int(amount) for amount in found), default=0)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None  # no such controller here
    return int(text) if text.isdigit() else None  # "max": no limit


def parse_meminfo(text: str) -> dict[str, int]:
    """Fields of /proc/meminfo in bytes."""
    fields = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        amount, *unit = rest.split()
        fields[name] = int(amount) * (1024 if unit else 1)
    return fields
