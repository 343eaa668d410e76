"""Answers into bytes, by the model: JSON 1.1 and query (XML), and errors in either form.

Called by the API. Members that are None are left out, empty lists and maps are kept as given; a member that the model has
not, or a value of another type, is a bug here and raises TypeError.
"""

import base64
import datetime
from collections.abc import Mapping
from typing import Any

from mooring.domain import errors
from mooring.protocol import forms
from mooring.protocol.forms import Reply
from mooring.protocol.model import Member, Operation, Shape

_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "structure": (Mapping,),
    "map": (Mapping,),
    "list": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (int, float, datetime.datetime),
    "blob": (bytes,),
}


def _check(shape: Shape, value: object) -> None:
    wanted = _PYTHON_TYPES[shape.kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and shape.kind != "boolean"):
        raise TypeError(f"{shape.name} is a {shape.kind}, not {type(value).__name__}")


def _known(shape: Shape, output: Mapping[str, Any]) -> None:
    unknown = output.keys() - shape.members.keys()
    if unknown:
        raise TypeError(f"{shape.name} has no member {', '.join(sorted(unknown))}")


def _epoch_s(value: float | datetime.datetime) -> float:
    return value.timestamp() if isinstance(value, datetime.datetime) else float(value)


# JSON ---------------------------------------------------------------------------------------------------------------
def serialize_json(operation: Operation, output: Mapping[str, Any]) -> bytes:
    """Body of a successful JSON 1.1 answer; empty for an operation that answers nothing."""
    if operation.output is None:
        if output:
            raise TypeError(f"{operation.name} answers nothing")
        return b""
    _check(operation.output, output)
    return forms.json_bytes(_json_structure(operation.output, output))


def _json_structure(shape: Shape, output: Mapping[str, Any]) -> dict[str, object]:
    _known(shape, output)
    return {
        name: _json(member.shape, output[name])
        for name, member in shape.members.items()
        if output.get(name) is not None
    }


def _json(shape: Shape, value: Any) -> object:
    _check(shape, value)
    match shape.kind:
        case "structure":
            return _json_structure(shape, value)
        case "list":
            return [_json(shape.inner().shape, item) for item in value]
        case "map":
            return {key: _json(shape.inner().shape, item) for key, item in value.items() if item is not None}
        case "timestamp":
            return round(_epoch_s(value), 3)
        case "blob":
            return base64.b64encode(value).decode()
        case _:
            return value


# Query --------------------------------------------------------------------------------------------------------------
def serialize_query(operation: Operation, output: Mapping[str, Any], request_id: str) -> bytes:
    """Body of a successful query answer."""
    inside = ""
    if operation.output is not None:
        _check(operation.output, output)
        inside = _xml_structure(operation.output, output)
        if operation.result_wrapper:
            inside = f"<{operation.result_wrapper}>{inside}</{operation.result_wrapper}>"
    return (
        f'<{operation.name}Response xmlns="{operation.namespace}">{inside}'
        f"<ResponseMetadata><RequestId>{forms.xml_text(request_id)}</RequestId></ResponseMetadata>"
        f"</{operation.name}Response>"
    ).encode()


def _xml_structure(shape: Shape, output: Mapping[str, Any]) -> str:
    _known(shape, output)
    return "".join(_xml(member, output[name]) for name, member in shape.members.items() if output.get(name) is not None)


def _xml(member: Member, value: Any) -> str:
    shape, name = member.shape, member.wire
    _check(shape, value)
    if shape.kind == "list":
        inner = shape.inner()
        if shape.flattened:
            return "".join(_xml(Member(shape=inner.shape, wire=name), item) for item in value)
        return f"<{name}>{''.join(_xml(inner, item) for item in value)}</{name}>"
    if shape.kind == "map":
        entry = name if shape.flattened else "entry"
        entries = "".join(
            f"<{entry}>{_xml(shape.map_key(), key)}{_xml(shape.inner(), item)}</{entry}>"
            for key, item in value.items()
            if item is not None
        )
        return entries if shape.flattened else f"<{name}>{entries}</{name}>"
    return f"<{name}>{_xml_text(shape, value)}</{name}>"


def _xml_text(shape: Shape, value: Any) -> str:
    match shape.kind:
        case "structure":
            return _xml_structure(shape, value)
        case "boolean":
            return "true" if value else "false"
        case "timestamp":
            moment = datetime.datetime.fromtimestamp(_epoch_s(value), datetime.UTC)
            return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        case "blob":
            return base64.b64encode(value).decode()
        case _:
            return forms.xml_text(str(value))


# Errors -------------------------------------------------------------------------------------------------------------
def error_reply(service_protocol: str, error: errors.ServiceError, request_id: str, *, namespace: str = "") -> Reply:
    """A failed call in the form of `service_protocol`: `json`, `rest-json` or `query` (which wants its namespace)."""
    match service_protocol:
        case "json":
            return forms.json_reply(error, request_id)
        case "rest-json":
            return forms.rest_json_reply(error, request_id)
        case "query":
            return forms.query_reply(error, request_id, namespace=namespace)
        case _:
            raise ValueError(f"no error form for {service_protocol}")
