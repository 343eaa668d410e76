"""Page tokens of the CloudWatch Logs operations: opaque to callers, self-contained, checked when they come back. Pure."""

import base64
import re
from typing import TypeVar

import msgspec

from mooring.telemetry.log_store import EventKey
from mooring.telemetry.segments import Position

_WRITER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAX_TOKEN_CHARS = 8 << 10


class TokenError(Exception):
    """The token is not one of ours."""


class _Key(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    ms: int
    stream: str
    writer: str
    number: int
    offset: int


def of_position(direction: str, position: Position) -> str:
    """`direction`: f or b, as CloudWatch's own tokens begin."""
    return f"{direction}/{_pack(sorted((writer, *place) for writer, place in position.items()))}"


def to_position(token: str) -> tuple[str, Position]:
    """(direction, position). Raises TokenError."""
    direction, slash, packed = token.partition("/")
    if direction not in ("f", "b") or not slash:
        raise TokenError
    rows = _unpack(packed, list[tuple[str, int, int]])
    for writer, number, offset in rows:
        if not _WRITER.fullmatch(writer) or number < 0 or offset < 0:
            raise TokenError
    return direction, {writer: (number, offset) for writer, number, offset in rows}


def of_key(direction: str, key: EventKey) -> str:
    """Resumes a search after `key`."""
    return f"{direction}/{_pack(_Key(key.ms, key.stream, key.writer, key.number, key.offset))}"


def to_key(token: str) -> tuple[str, EventKey]:
    """(direction, last event given out). Raises TokenError."""
    direction, slash, packed = token.partition("/")
    if direction not in ("f", "b") or not slash:
        raise TokenError
    key = _unpack(packed, _Key)
    return direction, EventKey(key.ms, key.stream, key.writer, key.number, key.offset)


def of_name(name: str) -> str:
    """Resumes a listing after `name`."""
    return _pack(name)


def to_name(token: str) -> str:
    """Raises TokenError."""
    return _unpack(token, str)


def of_stream(last_ms: int, name: str) -> str:
    """Resumes a listing by last event time after a stream."""
    return _pack((last_ms, name))


def to_stream(token: str) -> tuple[int, str]:
    """Raises TokenError."""
    return _unpack(token, tuple[int, str])


def _pack(value: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


T = TypeVar("T")


def _unpack(packed: str, kind: type[T]) -> T:
    if len(packed) > _MAX_TOKEN_CHARS:
        raise TokenError
    try:
        raw = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, msgspec.MsgspecError) as error:
        raise TokenError from error
