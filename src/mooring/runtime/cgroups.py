"""Hard limits of instances by control groups, v1 (one directory per controller) and v2 (one directory).

    <where this process may make groups>/mooring-<node id>/<instance id>

Groups are made beneath this process's own group where that is allowed, so that limits set on the whole server hold for its
instances too; on v2 beneath the nearest ancestor that hands its controllers on. The directories of an instance are kept in
its spec.json: a later server life may sit in another group. Called by runtime.process; blocking, but never for long.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mooring.domain.instance import Limits
from mooring.kit import control_groups

_CONTROLLERS = ("memory", "cpu", "pids")
_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounts:
    """Where the hierarchies are mounted: controller → (mount point, root within the hierarchy); v2 under its own name."""

    v1: Mapping[str, tuple[str, str]]
    v2: tuple[str, str] | None


def parse_mounts(mountinfo: str) -> Mounts:
    """Read /proc/self/mountinfo's text."""
    v1: dict[str, tuple[str, str]] = {}
    v2: tuple[str, str] | None = None
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        columns, kinds = fields.split(), rest.split()
        if len(columns) < 5 or len(kinds) < 3:
            continue
        root, point = _unescape(columns[3]), _unescape(columns[4])
        if kinds[0] == "cgroup2":
            v2 = (point, root)
        elif kinds[0] == "cgroup":
            v1.update({name: (point, root) for name in kinds[2].split(",") if name in _CONTROLLERS})
    return Mounts(v1=v1, v2=v2)


def _unescape(field: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, character)
    return field


def parse_membership(cgroup: str) -> tuple[dict[str, str], str | None]:
    """Read /proc/self/cgroup's text: (controller → path for v1, path for v2)."""
    v1: dict[str, str] = {}
    v2: str | None = None
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            v2 = path
        else:
            v1.update({name: path for name in names.split(",") if name in _CONTROLLERS})
    return v1, v2


def _directory(mount: tuple[str, str], path: str) -> str | None:
    """The directory of a group path; None when it lies outside what is mounted (another cgroup namespace)."""
    point, root = mount
    if ".." in path.split("/"):
        return None
    if root != "/":
        if path != root and not path.startswith(root + "/"):
            return None
        path = path[len(root) :]
    return point + path.rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A directory under which groups may be made, and the controllers that work there."""

    directory: str
    controllers: tuple[str, ...]


def find_bases(mountinfo: str, cgroup: str) -> tuple[list[Base], list[str]]:
    """Where to make groups, tried out by making one; and what does not work, in words."""
    mounts, (v1, v2) = parse_mounts(mountinfo), parse_membership(cgroup)
    bases: list[Base] = []
    for controller in _CONTROLLERS:
        if controller in mounts.v1 and controller in v1:
            directory = _directory(mounts.v1[controller], v1[controller])
            if directory is not None and _can_make(directory):
                bases.append(Base(directory=directory, controllers=(controller,)))
    if mounts.v2 is not None and v2 is not None:
        directory = _directory(mounts.v2, v2)
        base = None if directory is None else _find_v2(mounts.v2[0], directory)
        if base is not None:
            bases.append(base)
    works = {controller for base in bases for controller in base.controllers}
    missing = [controller for controller in _CONTROLLERS if controller not in works]
    return bases, missing


def _find_v2(mount_point: str, own: str) -> Base | None:
    directory = own
    while directory.startswith(mount_point):
        controllers = _hand_on(directory)
        if controllers and _can_make(directory) and os.access(os.path.join(directory, "cgroup.procs"), os.W_OK):
            return Base(directory=directory, controllers=controllers)
        directory = os.path.dirname(directory)
    return None


def _hand_on(directory: str) -> tuple[str, ...]:
    """Controllers that children of a v2 group have; those missing are asked for where the kernel lets us."""
    available = _words(directory, "cgroup.controllers")
    for controller in _CONTROLLERS:
        if controller in available and controller not in _words(directory, "cgroup.subtree_control"):
            try:
                _put(directory, "cgroup.subtree_control", f"+{controller}")
            except OSError:  # EBUSY: it has processes of its own; an ancestor may do
                continue
    handed_on = _words(directory, "cgroup.subtree_control")
    return tuple(controller for controller in _CONTROLLERS if controller in handed_on)


def _words(directory: str, name: str) -> list[str]:
    try:
        return Path(directory, name).read_text("ascii").split()
    except OSError:
        return []


def _put(directory: str, name: str, value: str) -> None:
    fd = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _can_make(directory: str) -> bool:
    probe = os.path.join(directory, f"mooring-probe-{os.getpid()}")
    try:
        os.mkdir(probe)
        os.rmdir(probe)
    except OSError:
        return False
    return True


def plan_limits(limits: Limits, *, swap: bool) -> tuple[tuple[str, str, str], ...]:
    """(controller, file, value) in the order of writing, for both versions; a file that is not there belongs to the other.

    CPU: quota = vCPUs, weight in proportion. Memory: swap included. Weight follows systemd's scale (1 vCPU = the default).
    """
    quota = max(int(limits.vcpu * _PERIOD_US), 1000)
    rows = [
        ("memory", "memory.limit_in_bytes", str(limits.memory_bytes)),
        ("memory", "memory.memsw.limit_in_bytes", str(limits.memory_bytes)),
        ("memory", "memory.max", str(limits.memory_bytes)),
        ("memory", "memory.swap.max", "0"),
        ("memory", "memory.oom.group", "0"),
        ("cpu", "cpu.cfs_period_us", str(_PERIOD_US)),
        ("cpu", "cpu.cfs_quota_us", str(quota)),
        ("cpu", "cpu.shares", str(min(max(int(1024 * limits.vcpu), 2), 262_144))),
        ("cpu", "cpu.max", f"{quota} {_PERIOD_US}"),
        ("cpu", "cpu.weight", str(min(max(int(100 * limits.vcpu), 1), 10_000))),
        ("pids", "pids.max", str(limits.pids)),
    ]
    if not swap:
        rows = [row for row in rows if "memsw" not in row[1] and "swap" not in row[1]]
    return tuple(rows)


class ControlGroups:
    """Makes, limits, empties and removes the groups of one node's instances."""

    def __init__(self, node_id: str, bases: Sequence[Base], missing: Sequence[str]) -> None:
        self._name = f"mooring-{node_id}"
        self._bases = tuple(bases)
        self.missing = tuple(missing)

    @classmethod
    def probe(cls, node_id: str) -> "ControlGroups":
        """Find out what this machine allows."""
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", errors="replace")
            cgroup = Path("/proc/self/cgroup").read_text("utf-8", errors="replace")
        except OSError:
            return cls(node_id, (), _CONTROLLERS)
        return cls(node_id, *find_bases(mountinfo, cgroup))

    def directories(self, instance_id: str) -> list[str]:
        """Where an instance's group lies; put into spec.json before `make`."""
        return [os.path.join(base.directory, self._name, instance_id) for base in self._bases]

    def make(self, instance_id: str, limits: Limits) -> list[str]:
        """Make the group and set its limits. Returns what could not be set, in words; a start goes on without."""
        failures = [f"no {controller} controller" for controller in self.missing]
        for base in self._bases:
            parent = os.path.join(base.directory, self._name)
            directory = os.path.join(parent, instance_id)
            try:
                _make_pair(parent, directory)
            except OSError as error:
                failures.append(f"{directory}: {error.strerror}")
                continue
            for controller, name, value in plan_limits(limits, swap=True):
                if controller in base.controllers and os.path.exists(os.path.join(directory, name)):
                    try:
                        _put(directory, name, value)
                    except OSError as error:
                        failures.append(f"{name}: {error.strerror}")
        return failures

    def strays(self) -> set[str]:
        """Instance ids of the groups that exist beneath the present bases."""
        found: set[str] = set()
        for base in self._bases:
            parent = os.path.join(base.directory, self._name)
            try:
                with os.scandir(parent) as entries:
                    found.update(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            except OSError:
                continue
        return found


def _make_pair(parent: str, directory: str) -> None:
    for attempt in range(5):
        try:
            os.makedirs(parent, exist_ok=True)
            _hand_on(parent)
            os.makedirs(directory, exist_ok=True)
        except FileNotFoundError:  # the removal of the last other instance took the parent away in between
            if attempt == 4:
                raise
            continue
        return


def empty(directories: Sequence[str], *, deadline_s: float) -> str:
    """Kill what is in a group. Returns what would not die, in words."""
    if not directories or control_groups.kill(directories, deadline_s=deadline_s):
        return ""
    return f"processes {sorted(control_groups.members(directories))} would not die"


def remove(directories: Sequence[str], *, deadline_s: float = 5.0) -> list[str]:
    """Remove an empty group, and its parent when that is empty too. Returns what is left, in words."""
    left = []
    end_s = time.monotonic() + deadline_s
    for directory in directories:
        pause_s = 0.001
        while not _rmdir(directory):
            if time.monotonic() > end_s:
                left.append(directory)
                break
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
        _rmdir(os.path.dirname(directory))
    return left


def _rmdir(directory: str) -> bool:
    """False while the kernel still counts something in it (EBUSY)."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
