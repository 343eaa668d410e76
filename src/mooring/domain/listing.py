"""Lists: filters, sort orders and pages, the same for every resource.

A page's cursor is the (sort value, name) of its last row, so that it stays right while items are added or removed:
items after the cursor in sort order are what comes next, whatever happened before it.
"""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where the next page begins: after this row. `value` is a name, a status or an epoch time."""

    value: str | float
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What a List* call asks for. Times are epoch seconds; *_after is ≥, *_before is <."""

    sort_by: Literal["Name", "CreationTime", "Status"] = "CreationTime"
    descending: bool = True
    limit: int = 10
    after: Cursor | None = None
    name_contains: str | None = None
    created_after_s: float | None = None
    created_before_s: float | None = None
    modified_after_s: float | None = None
    modified_before_s: float | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some rows; `next` is None on the last page."""

    items: tuple[T, ...]
    next: Cursor | None = None
