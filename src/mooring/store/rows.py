"""Domain values ↔ column values. Called by the statement modules; knows no SQL.

Documents are msgspec JSON of the domain's dataclasses: a field added later with a default reads old documents, a field
removed is ignored when read. A field that changes meaning needs a migration.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from mooring.domain import ids
from mooring.domain.endpoint import Active, Change, Deployment, Endpoint
from mooring.domain.instance import Handle, InstanceRecord, InstanceSpec, Phase

T = TypeVar("T")

Row = Mapping[str, Any]  # what a driver gives: column name → str | int | float | bool | None


def encode(value: object) -> str:
    """A value as a document."""
    return msgspec.json.encode(value).decode()


def decode(document: str, kind: type[T]) -> T:
    """A document as a value."""
    return msgspec.json.decode(document, type=kind)


def encode_optional(value: object | None) -> str | None:
    """None stays NULL."""
    return None if value is None else encode(value)


def decode_optional(document: str | None, kind: type[T]) -> T | None:
    """NULL stays None."""
    return None if document is None else decode(document, kind)


def endpoint_values(endpoint: Endpoint) -> dict[str, object]:
    """Columns of an endpoint beyond those of every resource."""
    return {
        "modified_s": endpoint.modified_at_s,
        "generation": endpoint.generation,
        "change": endpoint.change.value,
        "desired": encode(endpoint.desired),
        "deleting": endpoint.deleting,
        "observed_generation": endpoint.observed_generation,
        "active": encode_optional(endpoint.active),
        "failure_reason": endpoint.failure_reason,
    }


def endpoint_from(row: Row) -> Endpoint:
    """An endpoint of its row."""
    return Endpoint(
        scope=ids.Scope(account=row["account"], region=row["region"]),
        name=ids.EndpointName(row["name"]),
        created_at_s=row["created_s"],
        modified_at_s=row["modified_s"],
        generation=row["generation"],
        change=Change(row["change"]),
        desired=decode(row["desired"], Deployment),
        deleting=row["deleting"],
        observed_generation=row["observed_generation"],
        active=decode_optional(row["active"], Active),
        failure_reason=row["failure_reason"],
    )


def instance_values(record: InstanceRecord) -> dict[str, object]:
    """Columns of an instance."""
    return {
        "instance_id": record.spec.instance_id,
        "pool_id": record.spec.pool_id,
        "created_s": record.created_at_s,
        "phase": record.phase.value,
        "spec": encode(record.spec),
        "handle": encode_optional(record.handle),
        "labels": encode(record.labels),
    }


def instance_from(row: Row) -> InstanceRecord:
    """An instance of its row."""
    return InstanceRecord(
        spec=decode(row["spec"], InstanceSpec),
        phase=Phase(row["phase"]),
        handle=decode_optional(row["handle"], Handle),
        created_at_s=row["created_s"],
        labels=decode(row["labels"], dict[str, str]),
    )
