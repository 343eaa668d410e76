"""Statements of tags. They hang on the resource's ARN and go with it."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from mooring.domain.ids import Arn
from mooring.domain.tags import Tag
from mooring.store.base import Conflict, NotFound
from mooring.store.tables import resources
from mooring.store.tables import tags as table


def get(connection: sa.Connection, arn: Arn) -> Mapping[str, str] | None:
    """In key order; None without such a resource."""
    known = connection.execute(sa.select(resources.c.arn).where(resources.c.arn == arn)).scalar_one_or_none()
    if known is None:
        return None
    statement = sa.select(table.c.key, table.c.value).where(table.c.arn == arn).order_by(table.c.key)
    return {row.key: row.value for row in connection.execute(statement)}


def put(connection: sa.Connection, arn: Arn, tags: Sequence[Tag], *, limit: int) -> Mapping[str, str]:
    """Overwrite equal keys, return all."""
    old = get(connection, arn)
    if old is None:
        raise NotFound(arn)
    new = {tag.key: tag.value for tag in tags}
    if len(old.keys() | new.keys()) > limit:
        raise Conflict(arn)
    _delete(connection, arn, list(new))
    if new:
        connection.execute(sa.insert(table), [{"arn": arn, "key": key, "value": new[key]} for key in new])
    return dict(sorted({**old, **new}.items()))


def remove(connection: sa.Connection, arn: Arn, keys: Sequence[str]) -> None:
    """Absent keys are ignored."""
    if get(connection, arn) is None:
        raise NotFound(arn)
    _delete(connection, arn, keys)


def _delete(connection: sa.Connection, arn: Arn, keys: Sequence[str]) -> None:
    connection.execute(sa.delete(table).where(table.c.arn == arn, table.c.key.in_(keys)))
