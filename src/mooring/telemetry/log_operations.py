"""CloudWatch Logs' reading operations over the log store. `api` calls the handlers; files are read in threads.

Sources: API_DescribeLogGroups, API_DescribeLogStreams, API_GetLogEvents, API_FilterLogEvents.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from mooring.domain.call import Caller, Handler, Params
from mooring.domain.errors import ServiceError
from mooring.domain.ids import Scope, log_group_arn
from mooring.telemetry import log_tokens, pattern
from mooring.telemetry.log_store import EventKey, GroupInfo, LogStore, StreamInfo
from mooring.telemetry.log_tokens import TokenError
from mooring.telemetry.segments import Event

MAX_EVENTS = 10_000
MAX_PAGE_BYTES = 1 << 20
_EVENT_OVERHEAD_BYTES = 26  # what CloudWatch counts for each event beside its text
_DEFAULT_NAMES = 50
_FAR_FUTURE_MS = 1 << 62
T = TypeVar("T")
DOCS = "docs/operations.md"


class InvalidParameter(ServiceError):
    """A member is wrong or not offered."""

    code = "InvalidParameterException"


class ResourceNotFound(ServiceError):
    """No such group or stream."""

    code = "ResourceNotFoundException"


def handlers(store: LogStore) -> dict[str, Handler]:
    """Operation name → handler."""

    def in_thread(operation: Callable[[LogStore, Scope, Params], Params]) -> Handler:
        async def handle(caller: Caller, params: Params) -> Params:
            return await asyncio.to_thread(operation, store, caller.scope, params)

        return handle

    return {
        "DescribeLogGroups": in_thread(describe_log_groups),
        "DescribeLogStreams": in_thread(describe_log_streams),
        "GetLogEvents": in_thread(get_log_events),
        "FilterLogEvents": in_thread(filter_log_events),
    }


# groups and streams ---------------------------------------------------------------------------------------------------
def describe_log_groups(store: LogStore, scope: Scope, params: Params) -> Params:
    """DescribeLogGroups: by name; prefix or substring (regardless of case, as CloudWatch's logGroupNamePattern)."""
    _refuse(params, "accountIdentifiers", "includeLinkedAccounts", "logGroupClass", "logGroupIdentifiers")
    prefix, part = params.get("logGroupNamePrefix"), params.get("logGroupNamePattern")
    if prefix and part:
        raise InvalidParameter("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
    names = [name for name in store.groups() if name.startswith(prefix or "") and (part or "").lower() in name.lower()]
    page, token = _page_of_names(names, params)
    answer: Params = {"logGroups": [_group(scope, store.describe_group(name)) for name in page]}
    return answer | ({"nextToken": token} if token else {})


def describe_log_streams(store: LogStore, scope: Scope, params: Params) -> Params:
    """DescribeLogStreams: by name or by last event time."""
    group = _group_name(scope, params)
    names = store.streams(group)
    if names is None:
        raise ResourceNotFound("The specified log group does not exist.")
    by_time = params.get("orderBy") == "LastEventTime"
    prefix = params.get("logStreamNamePrefix")
    if by_time and prefix is not None:
        raise InvalidParameter("Cannot order by LastEventTime with a logStreamNamePrefix.")
    names = [name for name in names if name.startswith(prefix or "")]
    if by_time:
        infos, token = _page_by_time([store.describe_stream(group, name) for name in names], params)
    else:
        page, token = _page_of_names(names, params)
        infos = [store.describe_stream(group, name) for name in page]
    answer: Params = {"logStreams": [_stream(scope, group, info) for info in infos]}
    return answer | ({"nextToken": token} if token else {})


def _page_of_names(names: list[str], params: Params) -> tuple[list[str], str | None]:
    descending = bool(params.get("descending"))
    ordered = sorted(names, reverse=descending)
    if "nextToken" in params:
        last = _checked(log_tokens.to_name, params["nextToken"])
        ordered = [name for name in ordered if (name < last if descending else name > last)]
    limit = params.get("limit", _DEFAULT_NAMES)
    page = ordered[:limit]
    return page, log_tokens.of_name(page[-1]) if len(ordered) > limit else None


def _page_by_time(infos: list[StreamInfo], params: Params) -> tuple[list[StreamInfo], str | None]:
    def key(info: StreamInfo) -> tuple[int, str]:
        return info.last_ms or 0, info.name

    descending = bool(params.get("descending"))
    ordered = sorted(infos, key=key, reverse=descending)
    if "nextToken" in params:
        last = _checked(log_tokens.to_stream, params["nextToken"])
        ordered = [info for info in ordered if (key(info) < last if descending else key(info) > last)]
    limit = params.get("limit", _DEFAULT_NAMES)
    page = ordered[:limit]
    return page, log_tokens.of_stream(*key(page[-1])) if len(ordered) > limit else None


def _group(scope: Scope, info: GroupInfo) -> Params:
    arn = log_group_arn(scope, info.name)
    return {
        "logGroupName": info.name,
        "creationTime": info.first_ms,
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "logGroupArn": arn,
        "storedBytes": info.stored_bytes,
        "logGroupClass": "STANDARD",
    }


def _stream(scope: Scope, group: str, info: StreamInfo) -> Params:
    known: Params = {
        "logStreamName": info.name,
        "creationTime": info.first_ms,
        "firstEventTimestamp": info.first_ms,
        "lastEventTimestamp": info.last_ms,
        "lastIngestionTime": info.last_ms,  # written when it happened
        "arn": f"{log_group_arn(scope, group)}:log-stream:{info.name}",
        "storedBytes": info.stored_bytes,
    }
    return {name: value for name, value in known.items() if value is not None}


# events ---------------------------------------------------------------------------------------------------------------
def get_log_events(store: LogStore, scope: Scope, params: Params) -> Params:
    """GetLogEvents: a page of one stream, with a token for either direction; the same token comes back at an end."""
    _refuse(params, "unmask")
    group, stream = _group_name(scope, params), params["logStreamName"]
    _must_exist(store, group, stream)
    since_ms, until_ms = params.get("startTime", 0), params.get("endTime", _FAR_FUTURE_MS)
    given = params.get("nextToken")
    if given is not None:
        direction, origin = _checked(log_tokens.to_position, given)
        if not store.is_position(group, stream, origin):
            raise InvalidParameter("The specified nextToken is invalid.")
    elif params.get("startFromHead"):
        direction, origin = "f", store.start(group, stream)
    else:
        direction, origin = "b", store.end(group, stream)
    source = store.forward(group, stream, origin) if direction == "f" else store.backward(group, stream, origin)
    page = list(_bounded((event for event in source if since_ms <= event.ms < until_ms), params))
    reached = dict(origin)
    for event in page:
        reached[event.writer] = event.end if direction == "f" else event.start
    before, after = (origin, reached) if direction == "f" else (reached, origin)
    if direction == "b":
        page.reverse()
    answer: Params = {
        "events": [_event(event) for event in page],
        "nextForwardToken": log_tokens.of_position("f", after),
        "nextBackwardToken": log_tokens.of_position("b", before),
    }
    if given is not None and not page:
        answer["nextForwardToken" if direction == "f" else "nextBackwardToken"] = given
    return answer


def filter_log_events(store: LogStore, scope: Scope, params: Params) -> Params:
    """FilterLogEvents: events of many streams by time. `interleaved` has had no effect at CloudWatch since 2019."""
    _refuse(params, "unmask")
    group = _group_name(scope, params)
    streams = _searched(store, group, params)
    wanted = _pattern(params.get("filterPattern", ""))
    since_ms, until_ms = params.get("startTime", 0), params.get("endTime", _FAR_FUTURE_MS)
    direction = "f" if params.get("startFromHead", True) else "b"
    last: EventKey | None = None
    if "nextToken" in params:
        direction, last = _checked(log_tokens.to_key, params["nextToken"])
    if direction == "f":
        source = store.search(group, streams, since_ms=max(since_ms, last.ms if last else 0))
    else:
        source = store.search_backward(group, streams)
    matching = (
        (key, event)
        for key, event in source
        if since_ms <= event.ms <= until_ms and _is_past(key, last, direction) and wanted.matches(event.text)
    )
    page, more = _page_of_events(matching, params)
    answer: Params = {
        "events": [{**_event(event), "logStreamName": key.stream, "eventId": _event_id(key)} for key, event in page],
        "searchedLogStreams": [],  # always empty at CloudWatch since 2020
    }
    return answer | ({"nextToken": log_tokens.of_key(direction, page[-1][0])} if more else {})


def _searched(store: LogStore, group: str, params: Params) -> list[str]:
    names, prefix = params.get("logStreamNames"), params.get("logStreamNamePrefix")
    if names is not None and prefix is not None:
        raise InvalidParameter("logStreamNames and logStreamNamePrefix are mutually exclusive parameters.")
    there = store.streams(group)
    if there is None:
        raise ResourceNotFound("The specified log group does not exist.")
    if names is not None:
        if not set(names) <= set(there):
            raise ResourceNotFound("The specified log stream does not exist.")
        return sorted(set(names))
    return [name for name in there if name.startswith(prefix or "")]


def _pattern(text: str) -> pattern.Pattern:
    try:
        return pattern.parse(text)
    except pattern.PatternError as error:
        raise InvalidParameter(str(error)) from error


def _is_past(key: EventKey, last: EventKey | None, direction: str) -> bool:
    if last is None:
        return True
    return key > last if direction == "f" else key < last


def _page_of_events(
    matching: Iterator[tuple[EventKey, Event]], params: Params
) -> tuple[list[tuple[EventKey, Event]], bool]:
    page: list[tuple[EventKey, Event]] = []
    size = 0
    limit = params.get("limit", MAX_EVENTS)
    for found in matching:
        size += _size(found[1])
        if len(page) == limit or (page and size > MAX_PAGE_BYTES):
            return page, True
        page.append(found)
    return page, False


def _bounded(events: Iterator[Event], params: Params) -> Iterator[Event]:
    size = 0
    for count, event in enumerate(islice(events, params.get("limit", MAX_EVENTS))):
        size += _size(event)
        if count and size > MAX_PAGE_BYTES:
            return
        yield event


def _size(event: Event) -> int:
    return event.end[1] - event.start[1] + _EVENT_OVERHEAD_BYTES


def _event(event: Event) -> Params:
    return {"timestamp": event.ms, "message": event.text, "ingestionTime": event.ms}


def _event_id(key: EventKey) -> str:
    """56 digits, as CloudWatch's: unique within a group and the same each time; times come first, so they sort."""
    digest = hashlib.sha256(f"{key.stream}\0{key.writer}\0{key.number}\0{key.offset}".encode()).digest()
    return f"{key.ms:016d}{int.from_bytes(digest[:16], 'big') % 10**40:040d}"


# members --------------------------------------------------------------------------------------------------------------
def _group_name(scope: Scope, params: Params) -> str:
    """The group by logGroupName, or by logGroupIdentifier (a name or an ARN)."""
    name, identifier = params.get("logGroupName"), params.get("logGroupIdentifier")
    if (name is None) == (identifier is None):
        raise InvalidParameter("Exactly one of logGroupName and logGroupIdentifier must be specified.")
    if name is not None:
        return str(name)
    text = str(identifier)
    if not text.startswith("arn:"):
        return text
    own = log_group_arn(scope, "")
    if not text.startswith(own):
        raise ResourceNotFound("The specified log group does not exist.")
    return text.removeprefix(own).removesuffix(":*")


def _must_exist(store: LogStore, group: str, stream: str) -> None:
    if store.has_stream(group, stream):
        return
    if store.streams(group) is None:
        raise ResourceNotFound("The specified log group does not exist.")
    raise ResourceNotFound("The specified log stream does not exist.")


def _refuse(params: Params, *members: str) -> None:
    for member in members:
        if params.get(member) not in (None, False):
            raise InvalidParameter(f"{member} is not supported by this server; see {DOCS}.")


def _checked(read: Callable[[str], T], token: str) -> T:
    try:
        return read(token)
    except TokenError as error:
        raise InvalidParameter("The specified nextToken is invalid.") from error
