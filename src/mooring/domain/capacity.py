"""What an instance type means on this machine: hard limits, oversize, and whether one more instance may start.

Called by reconcile with the machine's inventory as a value; the table's text is read by runtime.instance_types. Must not
know where either comes from.

    type ──fit──▶ Limits | Refused          per pool, once: does the machine have what the type has?
    Limits × counts ──outgrown──▶ why       per change, once: could this machine, with nothing else on it, ever hold so many?
    Limits ──admit──▶ Admitted | Wait | Refused      per start: is there room now?
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mooring.domain.instance import Limits

GIB = 1 << 30
# What an instance that was just started will take, at least, before the machine's available memory shows it.
START_ALLOWANCE_BYTES = 64 << 20
# No instance is smaller: a shim, a sandbox and a server of HTTP. Set far below any real one, for it refuses for good.
SMALLEST_INSTANCE_BYTES = 8 << 20
# AWS names its ARM families by a `g` after the generation (m6g, c6gn, r7gd); the Grace-Blackwell type is ARM as well.
_ARM_FAMILY = re.compile(r"^ml\.([cmrtx]\d+g[a-z]*|p\w+-gb\d+)\.")

Oversize = Literal["shrink", "refuse"]
MemoryRule = Literal["share", "reserve"]


class TableError(Exception):
    """The instance type table cannot be read; the text names line and column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One row of the table. `usd_per_hour` is None where no price is known."""

    name: str
    vcpu: float
    memory_bytes: int
    gpus: int = 0
    gpu_memory_gib: float | None = None
    accelerator: str = ""
    local_storage: bool = False
    usd_per_hour: float | None = None

    @property
    def architecture(self) -> str:
        """`arm64` or `x86_64`, by the family's name."""
        return "arm64" if _ARM_FAMILY.match(self.name) else "x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What the machine has, and what is free of it now. `architecture`: x86_64 or arm64."""

    vcpu: float
    memory_bytes: int
    memory_available_bytes: int
    gpus: int = 0
    architecture: str = "x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityRules:
    """The operator's `capacity.*` settings."""

    oversize: Oversize = "shrink"
    memory: MemoryRule = "share"
    memory_floor_bytes: int = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What exists already: `reserved_bytes` sums the memory limits of every instance, `starting` counts those that may not
    yet have taken their memory and `starting_bytes` sums what they are expected to take, `leaving` counts those whose end
    is under way.
    """

    reserved_bytes: int = 0
    starting: int = 0
    starting_bytes: int = 0
    leaving: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """There is room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """No room now, but instances are leaving, or starting and may take less than expected; `missing` says what lacks."""

    missing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """No room; `missing` says what lacks, as a clause without a full stop."""

    missing: str


def parse_types(text: str, *, base: Mapping[str, InstanceType] | None = None) -> dict[str, InstanceType]:
    """The table of a CSV text with a header line; rows override those of `base`, an empty cell keeps the base's value.

    Raises TableError.
    """
    table = dict(base or {})
    reader = csv.DictReader(io.StringIO(text))
    if "instance_type" not in (reader.fieldnames or ()):
        raise TableError("the first line must name the columns, with instance_type, vcpu and memory_gib among them")
    for row in reader:
        name = (row.get("instance_type") or "").strip()
        if not re.fullmatch(r"ml\.[a-z0-9][a-z0-9.-]*", name):
            raise TableError(f"line {reader.line_num}: instance_type {name!r} is not of the form ml.<name>")
        try:
            table[name] = _parse_row(name, row, table.get(name))
        except ValueError as error:
            raise TableError(f"line {reader.line_num}: {name}: {error}") from error
    return table


def _parse_row(name: str, row: Mapping[str, str | None], base: InstanceType | None) -> InstanceType:
    """Raises ValueError."""

    def number(column: str) -> float | None:
        cell = (row.get(column) or "").strip()
        if not cell:
            return None
        value = float(cell)
        if not 0 <= value < 1e9:
            raise ValueError(f"{column} is {cell}")
        return value

    vcpu, memory_gib, gpus = number("vcpu"), number("memory_gib"), number("gpus")
    if base is None:
        if not vcpu or not memory_gib:
            raise ValueError("vcpu and memory_gib must be given and positive")
        base = InstanceType(name=name, vcpu=vcpu, memory_bytes=int(memory_gib * GIB))
    gpu_memory, price = number("gpu_memory_gib"), number("usd_per_hour")
    accelerator = (row.get("accelerator") or "").strip()
    storage = (row.get("local_storage") or "").strip().lower()
    if storage not in ("", "yes", "no"):
        raise ValueError(f"local_storage is {storage!r}, not yes or no")
    return replace(
        base,
        vcpu=vcpu or base.vcpu,
        memory_bytes=int(memory_gib * GIB) if memory_gib else base.memory_bytes,
        gpus=base.gpus if gpus is None else int(gpus),
        gpu_memory_gib=base.gpu_memory_gib if gpu_memory is None else gpu_memory,
        accelerator=accelerator or base.accelerator,
        local_storage=storage == "yes" if storage else base.local_storage,
        usd_per_hour=base.usd_per_hour if price is None else price,
    )


def fit(kind: InstanceType, inventory: Inventory, rules: CapacityRules) -> Limits | Refused:
    """Hard limits of an instance of this type here, never above what the machine has.

    GPUs and other accelerators are never shrunk away; an ARM type runs on what the machine is, with a note.
    """
    missing = _missing_devices(kind, inventory)
    notes: list[str] = []
    if kind.vcpu > inventory.vcpu:
        notes.append(f"limited to {inventory.vcpu:g} of {kind.vcpu:g} vCPU")
        if rules.oversize == "refuse":
            missing.append(f"{kind.name} has {kind.vcpu:g} vCPU, this machine has {inventory.vcpu:g}")
    if kind.memory_bytes > inventory.memory_bytes:
        have, want = _gib(inventory.memory_bytes), _gib(kind.memory_bytes)
        notes.append(f"limited to {have} of {want} GiB of memory")
        if rules.oversize == "refuse":
            missing.append(f"{kind.name} has {want} GiB of memory, this machine has {have} GiB")
    if kind.architecture != inventory.architecture:
        notes.append(f"{kind.name} is of architecture {kind.architecture}, this machine is {inventory.architecture}")
    if missing:
        return Refused(missing="; ".join(missing))
    return Limits(
        vcpu=min(kind.vcpu, inventory.vcpu),
        memory_bytes=min(kind.memory_bytes, inventory.memory_bytes),
        notes=tuple(notes),
    )


def _missing_devices(kind: InstanceType, inventory: Inventory) -> list[str]:
    if kind.gpus > inventory.gpus:
        return [f"{kind.name} has {kind.gpus} GPU, this machine has {inventory.gpus}"]
    if kind.accelerator and not kind.gpus:
        return [f"{kind.name} has {kind.accelerator}, this machine has none"]
    return []


def outgrown(
    wanted: Sequence[tuple[Limits, int]], inventory: Inventory, rules: CapacityRules, *, places: int
) -> str | None:
    """Why this machine can never hold so many instances, given as (limits of one, how many); None where it might.

    `places`: how many instances the server can tell apart. Asked before the first one is started: what cannot end well
    should not begin.
    """
    count = sum(each for _, each in wanted)
    room = max(inventory.memory_bytes - rules.memory_floor_bytes, 0)
    if count > places:
        return f"{count} instances are wanted, this server has places for {places}"
    if count <= 1:
        return None  # one alone may have the whole machine
    if rules.memory == "reserve":
        least = sum(limits.memory_bytes * each for limits, each in wanted)
        verb = "ask for"
    else:
        least = count * SMALLEST_INSTANCE_BYTES
        verb = "take at least"
    if least <= room:
        return None
    return f"{count} instances {verb} {_gib(least)} GiB of memory, this machine has {_gib(room)} GiB for instances"


def expected_bytes(limits: Limits, measured_bytes: int | None) -> int:
    """What one more instance will take: as much as one like it does, where that is known, and never more than its limit."""
    return min(max(measured_bytes or 0, START_ALLOWANCE_BYTES), limits.memory_bytes)


def admit(
    limits: Limits,
    inventory: Inventory,
    holding: Holding,
    rules: CapacityRules,
    *,
    expected: int = START_ALLOWANCE_BYTES,
) -> Admitted | Wait | Refused:
    """Whether one more instance may start now. `expected`: the memory that it will take (`expected_bytes`).

    share: really available memory, less what starts under way will take, stays above the floor. reserve: the sum of all
    limits stays below memory − floor.
    """
    floor = rules.memory_floor_bytes
    passing = holding.leaving > 0
    if rules.memory == "reserve":
        free = inventory.memory_bytes - floor - holding.reserved_bytes
        # A type shrunk to the whole machine would never fit beside the floor: alone, it may have the machine.
        fits = limits.memory_bytes <= free or holding.reserved_bytes == 0
        missing = f"{_gib(limits.memory_bytes)} GiB of memory are asked for, {_gib(max(free, 0))} GiB are not reserved"
    else:
        free = inventory.memory_available_bytes - floor
        fits = free >= holding.starting_bytes + expected
        passing = passing or free >= expected  # it is only what is starting that is in the way
        missing = (
            f"{_gib(inventory.memory_available_bytes)} GiB of memory are available, "
            f"the floor is {_gib(floor)} GiB with {holding.starting} other instances starting"
        )
        if expected > START_ALLOWANCE_BYTES:
            missing += f", one takes about {_gib(expected)} GiB"
    if fits:
        return Admitted()
    return Wait(missing=missing) if passing else Refused(missing=missing)


def holding_of(members: Iterable[tuple[int, int | None, bool]]) -> Holding:
    """Sum up members given as (memory limit, memory it is expected to take yet or None once it has, is leaving)."""
    reserved = starting = starting_bytes = leaving = 0
    for memory_bytes, expected, is_leaving in members:
        reserved += memory_bytes
        starting += expected is not None
        starting_bytes += expected or 0
        leaving += is_leaving
    return Holding(reserved_bytes=reserved, starting=starting, starting_bytes=starting_bytes, leaving=leaving)


def _gib(amount_bytes: int) -> str:
    return f"{amount_bytes / GIB:.1f}".removesuffix(".0")
