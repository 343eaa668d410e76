"""Statements that every resource shares, and those of the immutable ones (models, endpoint configs).

Functions of an open connection: `sql` runs them, each in one transaction or savepoint.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import sqlalchemy as sa

from mooring.domain.ids import Arn, Scope
from mooring.domain.listing import ListQuery, Page
from mooring.domain.tags import Tag
from mooring.store import keyset, rows, tables
from mooring.store.base import AlreadyExists, NotFound

T = TypeVar("T")


class Resource(Protocol):
    """What models, endpoint configs and endpoints have in common."""

    @property
    def scope(self) -> Scope:
        """Account and region."""

    @property
    def name(self) -> str:
        """The name as its creator wrote it."""

    @property
    def arn(self) -> Arn:
        """The ARN, its name part in lower case."""

    @property
    def created_at_s(self) -> float:
        """Epoch seconds."""


def is_row(table: sa.Table, scope: Scope, name: str) -> sa.ColumnElement[bool]:
    """The condition that picks one resource."""
    return sa.and_(table.c.account == scope.account, table.c.region == scope.region, table.c.name == name)


def insert(
    connection: sa.Connection, table: sa.Table, resource: Resource, values: dict[str, object], tags: Sequence[Tag]
) -> None:
    """A new resource with its tags. Raises AlreadyExists, also when only the letter case of the name differs: the ARN is
    the same then.
    """
    try:
        connection.execute(sa.insert(tables.resources).values(arn=resource.arn, kind=table.name))
    except sa.exc.IntegrityError as error:
        raise AlreadyExists(resource.arn) from error
    connection.execute(
        sa.insert(table).values(
            account=resource.scope.account,
            region=resource.scope.region,
            name=resource.name,
            arn=resource.arn,
            created_s=resource.created_at_s,
            **values,
        )
    )
    if tags:
        connection.execute(
            sa.insert(tables.tags), [{"arn": resource.arn, "key": tag.key, "value": tag.value} for tag in tags]
        )


def delete(connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> None:
    """Remove one resource and its tags. Raises NotFound when the condition picks none."""
    arn = connection.execute(sa.select(table.c.arn).where(condition)).scalar_one_or_none()
    if arn is None:
        raise NotFound
    connection.execute(sa.delete(table).where(table.c.arn == arn))
    connection.execute(sa.delete(tables.resources).where(tables.resources.c.arn == arn))


def get_document(connection: sa.Connection, table: sa.Table, scope: Scope, name: str, kind: type[T]) -> T | None:
    """An immutable resource by its exact name."""
    document = connection.execute(sa.select(table.c.document).where(is_row(table, scope, name))).scalar_one_or_none()
    return rows.decode_optional(document, kind)


def list_documents(
    connection: sa.Connection, table: sa.Table, scope: Scope, query: ListQuery, kind: type[T]
) -> Page[T]:
    """A page of immutable resources."""
    return keyset.select_page(
        connection,
        table,
        query,
        where=keyset.filters(table, scope, query),
        sort_values={"Name": table.c.name, "CreationTime": table.c.created_s},
        item_from=lambda row: rows.decode(row["document"], kind),
    )
