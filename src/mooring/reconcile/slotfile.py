"""Keeps the slots' holders across restarts of the control process, so that counts stay with what they were counted for.

Lies in the run directory; worthless after a restart of the whole server (the counters begin anew), and then harmless.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mooring.domain.endpoint import EndpointKey
from mooring.domain.ids import EndpointName, Scope
from mooring.reconcile.table import VariantKey

MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Slots by their holders."""

    instances: Mapping[str, int] = field(default_factory=dict)
    variants: Mapping[VariantKey, int] = field(default_factory=dict)


class _Variant(msgspec.Struct, frozen=True):
    account: str
    region: str
    endpoint: str
    variant: str
    slot: int


class _File(msgspec.Struct, frozen=True):
    instances: dict[str, int]
    variants: list[_Variant]


def load(path: Path) -> Held:
    """What was saved last; nothing where there is no such file or it cannot be understood."""
    try:
        with path.open("rb") as file:
            saved = msgspec.json.decode(file.read(MAX_BYTES), type=_File)
    except (FileNotFoundError, msgspec.DecodeError):
        return Held()
    return Held(
        instances=saved.instances,
        variants={_key(variant): variant.slot for variant in saved.variants},
    )


def _key(saved: _Variant) -> VariantKey:
    scope = Scope(account=saved.account, region=saved.region)
    return VariantKey(EndpointKey(scope=scope, name=EndpointName(saved.endpoint)), saved.variant)


def save(path: Path, held: Held) -> None:
    """Replace the file in one step. Not synced: it need only outlive this process, not the machine."""
    variants = [
        _Variant(key.endpoint.scope.account, key.endpoint.scope.region, key.endpoint.name, key.variant, slot)
        for key, slot in held.variants.items()
    ]
    content = msgspec.json.encode(_File(instances=dict(held.instances), variants=variants))
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(content)
    os.replace(temporary, path)
