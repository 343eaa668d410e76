"""Request bodies into members, by the model: JSON 1.1 and query strings.

Called by the API after authentication. Checks form and types only; `validate` checks constraints. Nulls and absent members
are the same. Texts for wrong types are those of AWS's own parser.

Types of members: str, int, float, bool, bytes (blob), float epoch seconds (timestamp), list, dict.
"""

import base64
import binascii
import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from mooring.domain import errors
from mooring.protocol.model import Member, Operation, Shape

MAX_BODY_BYTES = 4 << 20  # SageMaker's own bound is smaller; API requests are descriptions, not data
MAX_DEPTH = 64
MAX_FIELDS = 10_000  # of a query string
_MAX_EPOCH_S = 253_402_300_800  # year 10000
_INT64 = 1 << 63

_LIST_MISPLACED = "Start of list found where not expected"
_MAP_MISPLACED = "Start of structure or map found where not expected."
_WANTED = {
    "string": "a String",
    "integer": "an Integer",
    "long": "a Long",
    "float": "a Float",
    "double": "a Double",
    "boolean": "a Boolean",
    "timestamp": "milliseconds since epoch",
    "blob": "a ByteBuffer",
}


def _wrong(text: str) -> errors.SerializationException:
    return errors.SerializationException(text)


# JSON ---------------------------------------------------------------------------------------------------------------
def parse_json(operation: Operation, body: bytes) -> dict[str, Any]:
    """Members of a JSON 1.1 request. Raises SerializationException, or ValidationException for members AWS has not."""
    _check_size(body)
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise _wrong(f"The body is not valid JSON: {exc}") from exc
    except RecursionError as exc:
        raise _wrong("The body is nested too deeply.") from exc
    if isinstance(document, list):
        raise _wrong(_LIST_MISPLACED)
    if not isinstance(document, dict):
        raise _wrong("The body must be a JSON object.")
    unknown: list[str] = []
    params = _structure(operation.input, document, "", MAX_DEPTH, unknown)
    _refuse_unknown(operation, unknown)
    return params


def _check_size(body: bytes) -> None:
    if len(body) > MAX_BODY_BYTES:
        raise _wrong(f"The body is longer than {MAX_BODY_BYTES} bytes.")


def _refuse_unknown(operation: Operation, unknown: Iterable[str]) -> None:
    names = list(dict.fromkeys(unknown))
    if names:
        shown = ", ".join(f"'{name[:128]}'" for name in names[:10])
        noun = "Unknown member" if len(names) == 1 else "Unknown members"
        raise errors.ValidationException(f"{noun} of {operation.name}: {shown}.")


def _structure(shape: Shape, found: Mapping[str, Any], path: str, depth: int, unknown: list[str]) -> dict[str, Any]:
    members = shape.members
    unknown.extend(path + name for name, value in found.items() if name not in members and value is not None)
    return {
        name: _value(member.shape, found[name], f"{path}{name}.", depth, unknown)
        for name, member in members.items()
        if found.get(name) is not None
    }


def _value(shape: Shape, value: object, path: str, depth: int, unknown: list[str]) -> object:
    if depth <= 0:
        raise _wrong("The body is nested too deeply.")
    match shape.kind:
        case "structure" | "map":
            if isinstance(value, list):
                raise _wrong(_LIST_MISPLACED)
            if not isinstance(value, dict):
                raise _wrong("Expected null" if shape.kind == "structure" else "Expected map or null")
            if shape.kind == "structure":
                return _structure(shape, value, path, depth - 1, unknown)
            inner = shape.inner().shape
            return {
                key: None if item is None else _value(inner, item, path, depth - 1, unknown)
                for key, item in value.items()
            }
        case "list":
            if isinstance(value, dict):
                raise _wrong(_MAP_MISPLACED)
            if not isinstance(value, list):
                raise _wrong("Expected list or null")
            inner = shape.inner().shape
            return [None if item is None else _value(inner, item, path, depth - 1, unknown) for item in value]
        case _:
            return _scalar(shape, value)


def _scalar(shape: Shape, value: object) -> object:
    if isinstance(value, list):
        raise _wrong(_LIST_MISPLACED)
    if isinstance(value, dict):
        raise _wrong(_MAP_MISPLACED)
    kind = shape.kind
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "blob" and isinstance(value, str):
        return _base64(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if kind in ("integer", "long"):
            if value == int(value) and -_INT64 <= value < _INT64:
                return int(value)
        elif kind in ("float", "double"):
            return _finite(value, kind)
        elif kind == "timestamp" and -_MAX_EPOCH_S < value < _MAX_EPOCH_S:
            return float(value)
    raise _wrong(f"{_found(value)} can not be converted to {_WANTED[kind]}")


def _found(value: object) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    return "DECIMAL_VALUE" if isinstance(value, float) else "NUMBER_VALUE"


def _finite(value: float, kind: str) -> float:
    try:
        number = float(value)
    except OverflowError as exc:
        raise _wrong(f"NUMBER_VALUE can not be converted to {_WANTED[kind]}") from exc
    if not math.isfinite(number):
        raise _wrong(f"NUMBER_VALUE can not be converted to {_WANTED[kind]}")
    return number


def _base64(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _wrong(f"STRING_VALUE can not be converted to {_WANTED['blob']}") from exc


# Query --------------------------------------------------------------------------------------------------------------
def _fields(body: bytes) -> dict[str, str]:
    _check_size(body)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError as exc:
        raise _wrong(f"The body is not a valid form: {exc}") from exc
    return dict(pairs)


def action_of(body: bytes) -> str | None:
    """The operation that a query request names, if it names one. Raises SerializationException."""
    return _fields(body).get("Action")


def parse_query(operation: Operation, body: bytes) -> dict[str, Any]:
    """Members of a query request. Raises SerializationException, or ValidationException for members AWS has not."""
    fields = _fields(body)
    used = {"Action", "Version"}
    params = _query_structure(operation.input, fields, "", used, MAX_DEPTH)
    _refuse_unknown(operation, [name for name in fields if name not in used])
    return params


def _query_structure(
    shape: Shape, fields: Mapping[str, str], prefix: str, used: set[str], depth: int
) -> dict[str, Any]:
    found = {}
    for name, member in shape.members.items():
        value = _query_value(member, fields, prefix + member.wire, used, depth - 1)
        if value is not None:
            found[name] = value
    return found


def _query_value(member: Member, fields: Mapping[str, str], path: str, used: set[str], depth: int) -> object:
    """The member at `path`, None where no field names it."""
    shape = member.shape
    if shape.kind not in ("structure", "list", "map"):
        if path not in fields:
            return None
        used.add(path)
        return _query_scalar(shape, fields[path])
    if depth <= 0 or not any(name.startswith(path + ".") for name in fields):
        return None
    if shape.kind == "structure":
        return _query_structure(shape, fields, path + ".", used, depth)
    if shape.kind == "list":
        stem = path if shape.flattened else f"{path}.{shape.inner().wire}"
        return [
            _query_value(shape.inner(), fields, f"{stem}.{index}", used, depth - 1) for index in _indexes(fields, stem)
        ]
    stem = path if shape.flattened else f"{path}.entry"
    entries = {}
    for index in _indexes(fields, stem):
        key = _query_value(shape.map_key(), fields, f"{stem}.{index}.{shape.map_key().wire}", used, depth - 1)
        value = _query_value(shape.inner(), fields, f"{stem}.{index}.{shape.inner().wire}", used, depth - 1)
        entries[str(key)] = value
    return entries


def _indexes(fields: Mapping[str, str], stem: str) -> list[str]:
    """The numbers that follow `stem.` in any field, in order."""
    start = len(stem) + 1
    found = {name[start:].partition(".")[0] for name in fields if name.startswith(stem + ".")}
    return sorted((text for text in found if text.isascii() and text.isdigit() and len(text) < 10), key=int)


def _query_scalar(shape: Shape, text: str) -> object:
    try:
        match shape.kind:
            case "integer" | "long":
                return _scalar(shape, int(text) if text.lstrip("+-").isdigit() and text.isascii() else text)
            case "float" | "double":
                return _scalar(shape, float(text))
            case "boolean":
                return _scalar(shape, {"true": True, "false": False}.get(text.lower(), text))
            case "timestamp":
                return _iso_epoch_s(text)
            case _:
                return _scalar(shape, text)
    except ValueError as exc:
        raise _wrong(f"STRING_VALUE can not be converted to {_WANTED[shape.kind]}") from exc


def _iso_epoch_s(text: str) -> float:
    moment = datetime.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
