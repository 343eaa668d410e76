"""List* requests ↔ `domain.listing`: the same members, defaults and tokens for every resource. Pure but for the tokens' key.

Defaults (hosting.md 10.4): CreationTime, Descending, 10 rows.
"""

import datetime
from typing import TypeVar

from mooring.control.tokens import Tokens
from mooring.domain.call import Caller, Params
from mooring.domain.listing import ListQuery, Page

T = TypeVar("T")

_PAGE_MEMBERS = ("NextToken", "MaxResults")  # may differ between the pages of one list


def epoch_s(value: object) -> float:
    """A timestamp as protocol.parse gives it, in epoch seconds."""
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    if isinstance(value, (int, float)):
        return float(value)
    raise TypeError(f"not a timestamp: {type(value).__name__}")


def _time(params: Params, member: str) -> float | None:
    return epoch_s(params[member]) if member in params else None


def _asked(caller: Caller, operation: str, params: Params) -> dict[str, object]:
    """What a token is bound to: who lists what, with which filters and order."""
    asked = {name: value for name, value in params.items() if name not in _PAGE_MEMBERS}
    return {"": operation, " account": caller.scope.account, " region": caller.scope.region, **asked}


def query_from(tokens: Tokens, caller: Caller, operation: str, params: Params) -> ListQuery:
    """The query of a List* request. Raises ValidationException for a NextToken that does not continue it."""
    token = params.get("NextToken")
    return ListQuery(
        sort_by=params.get("SortBy", "CreationTime"),
        descending=params.get("SortOrder", "Descending") == "Descending",
        limit=params.get("MaxResults", 10),
        after=tokens.read(_asked(caller, operation, params), token) if token else None,
        name_contains=params.get("NameContains"),
        created_after_s=_time(params, "CreationTimeAfter"),
        created_before_s=_time(params, "CreationTimeBefore"),
        modified_after_s=_time(params, "LastModifiedTimeAfter"),
        modified_before_s=_time(params, "LastModifiedTimeBefore"),
        status=params.get("StatusEquals"),
    )


def next_token(tokens: Tokens, caller: Caller, operation: str, params: Params, page: Page[T]) -> Params:
    """{"NextToken": …}, or {} on the last page."""
    if page.next is None:
        return {}
    return {"NextToken": tokens.write(_asked(caller, operation, params), page.next)}
