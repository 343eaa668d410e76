"""Statements of instances: written by reconcile alone, one row from the intent to start until nothing of it is left."""

from collections.abc import Sequence

import sqlalchemy as sa

from mooring.domain.ids import InstanceId
from mooring.domain.instance import Handle, InstanceRecord, Phase
from mooring.store import rows
from mooring.store.base import AlreadyExists, NotFound
from mooring.store.tables import instances as table


def put_intent(connection: sa.Connection, record: InstanceRecord) -> None:
    """A new row. Raises AlreadyExists."""
    try:
        connection.execute(sa.insert(table).values(**rows.instance_values(record)))
    except sa.exc.IntegrityError as error:
        raise AlreadyExists(record.spec.instance_id) from error


def set_phase(connection: sa.Connection, instance_id: InstanceId, *, phase: Phase, handle: Handle | None) -> None:
    """Where the instance stands. Raises NotFound."""
    values = {"phase": phase.value, "handle": rows.encode_optional(handle)}
    found = connection.execute(sa.update(table).where(table.c.instance_id == instance_id).values(**values)).rowcount
    if found == 0:
        raise NotFound(instance_id)


def remove(connection: sa.Connection, instance_id: InstanceId) -> None:
    """Gone; again is fine."""
    connection.execute(sa.delete(table).where(table.c.instance_id == instance_id))


def every(connection: sa.Connection) -> Sequence[InstanceRecord]:
    """All instances, oldest first."""
    statement = sa.select(table).order_by(table.c.created_s, table.c.instance_id)
    return [rows.instance_from(dict(row)) for row in connection.execute(statement).mappings()]
