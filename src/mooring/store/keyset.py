"""Pages by keyset: filters, sort orders and cursors of `domain.listing` as SQL. Used by the statement modules.

Rows are ordered by (sort value, name), both in the query's direction, and a page begins strictly after its cursor. So
whatever was added or removed meanwhile, no row that stays is shown twice or left out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from mooring.domain.ids import Scope
from mooring.domain.listing import Cursor, ListQuery, Page
from mooring.store.rows import Row

T = TypeVar("T")

# What the sort values of ListQuery.sort_by are in SQL, for one table.
SortValues = Mapping[str, sa.ColumnElement[Any]]


def contains(column: sa.ColumnElement[str], part: str) -> sa.ColumnElement[bool]:
    """Plain, case-sensitive substring: LIKE has wildcards, and ignores case in SQLite; replace() does neither anywhere."""
    return sa.func.replace(column, part, "") != column


def filters(table: sa.Table, scope: Scope, query: ListQuery) -> list[sa.ColumnElement[bool]]:
    """Conditions on the columns that every resource has, and on the time of change where there is one."""
    found = [table.c.account == scope.account, table.c.region == scope.region]
    if query.name_contains:
        found.append(contains(table.c.name, query.name_contains))
    if query.created_after_s is not None:
        found.append(table.c.created_s >= query.created_after_s)
    if query.created_before_s is not None:
        found.append(table.c.created_s < query.created_before_s)
    if query.modified_after_s is not None:
        found.append(table.c.modified_s >= query.modified_after_s)
    if query.modified_before_s is not None:
        found.append(table.c.modified_s < query.modified_before_s)
    return found


def select_page(
    connection: sa.Connection,
    table: sa.Table,
    query: ListQuery,
    *,
    where: Sequence[sa.ColumnElement[bool]],
    sort_values: SortValues,
    item_from: Callable[[Row], T],
) -> Page[T]:
    """One page of `table`."""
    value, name = sort_values[query.sort_by], table.c.name
    statement = sa.select(table, value.label("sort_value")).where(*where)
    if query.after is not None:
        statement = statement.where(_is_after(value, name, query.after, descending=query.descending))
    order = (value.desc(), name.desc()) if query.descending else (value.asc(), name.asc())
    statement = statement.order_by(*order).limit(query.limit + 1)  # one more tells whether there is a next page
    rows = connection.execute(statement).mappings().all()
    shown = rows[: query.limit]
    more = len(rows) > query.limit
    return Page(
        items=tuple(item_from(dict(row)) for row in shown),
        next=Cursor(value=shown[-1]["sort_value"], name=shown[-1]["name"]) if more else None,
    )


def _is_after(
    value: sa.ColumnElement[Any], name: sa.ColumnElement[str], cursor: Cursor, *, descending: bool
) -> sa.ColumnElement[bool]:
    if descending:
        return sa.or_(value < cursor.value, sa.and_(value == cursor.value, name < cursor.name))
    return sa.or_(value > cursor.value, sa.and_(value == cursor.value, name > cursor.name))
