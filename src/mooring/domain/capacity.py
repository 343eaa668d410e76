"""What an instance type means on this machine: hard limits, oversize, and whether one more instance may start.

Called by reconcile with the machine's inventory as a value; the table's text is read by runtime.instance_types. Must not
know where either comes from.

    type ──fit──▶ Limits | Refused          per pool, once: does the machine have what the type has?
    Limits ──admit──▶ Admitted | Wait | Refused      per start: is there room now?
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from mooring.domain.instance import Limits

GIB = 1 << 30
# What an instance that was just started will take before the machine's available memory shows it.
START_ALLOWANCE_BYTES = 64 << 20
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
    """What exists already: `reserved_bytes` sums the memory limits of every instance, `starting` counts those that have
    not yet taken their memory, `leaving` those whose end is under way.
    """

    reserved_bytes: int = 0
    starting: int = 0
    leaving: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """There is room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """No room now, but instances are leaving; `missing` says what lacks."""

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


def admit(limits: Limits, inventory: Inventory, holding: Holding, rules: CapacityRules) -> Admitted | Wait | Refused:
    """Whether one more instance may start now.

    share: really available memory stays above the floor. reserve: the sum of all limits stays below memory − floor.
    """
    floor = rules.memory_floor_bytes
    if rules.memory == "reserve":
        free = inventory.memory_bytes - floor - holding.reserved_bytes
        # A type shrunk to the whole machine would never fit beside the floor: alone, it may have the machine.
        fits = limits.memory_bytes <= free or holding.reserved_bytes == 0
        missing = f"{_gib(limits.memory_bytes)} GiB of memory are asked for, {_gib(max(free, 0))} GiB are not reserved"
    else:
        free = inventory.memory_available_bytes - floor - (holding.starting + 1) * START_ALLOWANCE_BYTES
        fits = free >= 0
        missing = (
            f"{_gib(inventory.memory_available_bytes)} GiB of memory are available, "
            f"the floor is {_gib(floor)} GiB with {holding.starting} other instances starting"
        )
    if fits:
        return Admitted()
    return Wait(missing=missing) if holding.leaving else Refused(missing=missing)


def holding_of(members: Iterable[tuple[int, bool, bool]]) -> Holding:
    """Sum up members given as (memory limit, is starting, is leaving)."""
    reserved = starting = leaving = 0
    for memory_bytes, is_starting, is_leaving in members:
        reserved += memory_bytes
        starting += is_starting
        leaving += is_leaving
    return Holding(reserved_bytes=reserved, starting=starting, leaving=leaving)


def _gib(amount_bytes: int) -> str:
    return f"{amount_bytes / GIB:.1f}".removesuffix(".0")
