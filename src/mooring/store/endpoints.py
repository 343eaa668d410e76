"""Statements of endpoints: desired and observed halves, compare-and-set on the generation, the derived status in SQL."""

from collections.abc import Sequence

import sqlalchemy as sa

from mooring.domain.endpoint import Active, Change, Deployment, Endpoint, EndpointStatus
from mooring.domain.ids import Scope
from mooring.domain.listing import ListQuery, Page
from mooring.domain.tags import Tag
from mooring.store import keyset, resources, rows
from mooring.store.base import Conflict, NotFound
from mooring.store.tables import endpoints as table

# domain.endpoint.status_of in SQL, so that lists filter and sort by it; a property test keeps the two equal.
STATUS: sa.ColumnElement[str] = sa.case(
    (table.c.deleting, EndpointStatus.DELETING.value),
    (
        table.c.generation > table.c.observed_generation,
        sa.case(
            (table.c.change == Change.CREATE.value, EndpointStatus.CREATING.value),
            else_=EndpointStatus.UPDATING.value,
        ),
    ),
    (table.c.active.is_(None), EndpointStatus.FAILED.value),
    else_=EndpointStatus.IN_SERVICE.value,
)


def create(connection: sa.Connection, endpoint: Endpoint, tags: Sequence[Tag]) -> None:
    """A new endpoint."""
    resources.insert(connection, table, endpoint, rows.endpoint_values(endpoint), tags)


def get(connection: sa.Connection, scope: Scope, name: str) -> Endpoint | None:
    """By exact name."""
    row = connection.execute(sa.select(table).where(resources.is_row(table, scope, name))).mappings().one_or_none()
    return None if row is None else rows.endpoint_from(dict(row))


def list_page(connection: sa.Connection, scope: Scope, query: ListQuery) -> Page[Endpoint]:
    """A page of endpoints."""
    where = keyset.filters(table, scope, query)
    if query.status is not None:
        where.append(STATUS == query.status)  # noqa: SIM300 (a column on the left, for its type)
    return keyset.select_page(
        connection,
        table,
        query,
        where=where,
        sort_values={"Name": table.c.name, "CreationTime": table.c.created_s, "Status": STATUS},
        item_from=rows.endpoint_from,
    )


def every(connection: sa.Connection) -> Sequence[Endpoint]:
    """All endpoints of all scopes."""
    statement = sa.select(table).order_by(table.c.account, table.c.region, table.c.name)
    return [rows.endpoint_from(dict(row)) for row in connection.execute(statement).mappings()]


def set_desired(
    connection: sa.Connection,
    scope: Scope,
    name: str,
    *,
    expected_generation: int,
    change: Change,
    desired: Deployment,
    now_s: float,
) -> Endpoint:
    """A new wish."""
    values: dict[str, object] = {
        "generation": expected_generation + 1,
        "change": change.value,
        "desired": rows.encode(desired),
        "failure_reason": None,
        "modified_s": now_s,
    }
    condition = sa.and_(table.c.generation == expected_generation, sa.not_(table.c.deleting))
    return _update(connection, scope, name, condition, values)


def set_deleting(
    connection: sa.Connection, scope: Scope, name: str, *, expected_generation: int, now_s: float
) -> Endpoint:
    """The last wish."""
    values: dict[str, object] = {"generation": expected_generation + 1, "deleting": True, "modified_s": now_s}
    return _update(connection, scope, name, table.c.generation == expected_generation, values)


def set_observed(
    connection: sa.Connection,
    scope: Scope,
    name: str,
    *,
    generation: int,
    active: Active | None,
    failure_reason: str | None,
    now_s: float | None,
) -> None:
    """The outcome of a generation."""
    values: dict[str, object] = {
        "observed_generation": generation,
        "active": rows.encode_optional(active),
        "failure_reason": failure_reason,
    }
    if now_s is not None:
        values["modified_s"] = round(now_s, 3)  # what the wire shows: a time read back must filter as expected
    _update(connection, scope, name, table.c.generation == generation, values)


def set_active(connection: sa.Connection, scope: Scope, name: str, *, active: Active) -> None:
    """What serves now, while nothing is concluded."""
    _update(connection, scope, name, sa.true(), {"active": rows.encode(active)})


def remove(connection: sa.Connection, scope: Scope, name: str, *, generation: int) -> None:
    """The end of an endpoint. Raises NotFound when it is gone already."""
    endpoint = get(connection, scope, name)
    if endpoint is None:
        raise NotFound(name)
    if not endpoint.deleting or endpoint.generation != generation:
        raise Conflict(name)
    resources.delete(connection, table, resources.is_row(table, scope, name))


def _update(
    connection: sa.Connection,
    scope: Scope,
    name: str,
    condition: sa.ColumnElement[bool],
    values: dict[str, object],
) -> Endpoint:
    row = resources.is_row(table, scope, name)
    changed = connection.execute(sa.update(table).where(row, condition).values(**values)).rowcount
    endpoint = get(connection, scope, name)
    if endpoint is None:
        raise NotFound(name)
    if changed == 0:
        raise Conflict(name)
    return endpoint
