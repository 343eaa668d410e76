"""Every constraint of the model, checked: required, lengths, ranges, patterns, enumerations.

Called by the API with the members that `parse` gave. Says all violations at once, in the words of `constraints`. Scalars
inside lists and maps are reported at the list or map, with all constraints of the element, as the real service does:
`Value '{a=b}' at 'environment' failed to satisfy constraint: Map value must satisfy constraint: [...]`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mooring.domain import errors
from mooring.protocol import constraints, patterns
from mooring.protocol.constraints import missing, violation
from mooring.protocol.model import Operation, Shape

_INT32_MAX = 2**31 - 1
_MATCHED_CHARS = 2048  # a value longer than this and than its maximum is refused by length alone, not matched as well
_MAX_SHOWN_ITEMS = 32


def validate(operation: Operation, params: Mapping[str, Any]) -> None:
    """Raise ValidationException that lists every violated constraint."""
    found = list(_structure(operation.input, params, ""))
    if found:
        raise errors.ValidationException(constraints.summary(found))


def _structure(shape: Shape, params: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, member in shape.members.items():
        value = params.get(name)
        path = prefix + name[:1].lower() + name[1:]
        if value is not None:
            yield from _value(member.shape, value, path)
        elif member.required:
            yield missing(path)


def _value(shape: Shape, value: Any, path: str) -> Iterator[str]:
    match shape.kind:
        case "structure":
            yield from _structure(shape, value, path + ".")
        case "list":
            yield from _own(shape, value, path)
            yield from _elements(shape, value, path)
        case "map":
            yield from _own(shape, value, path)
            yield from _entries(shape, value, path)
        case _:
            yield from _own(shape, value, path)


def _own(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """Violations of the shape's own constraints, not of what it contains."""
    shown: str | None = None
    for number, text in enumerate(_broken(shape, value)):
        if number == 0:
            shown = _shown(shape, value)
        yield violation(path, shown, text)


def _elements(shape: Shape, values: list[Any], path: str) -> Iterator[str]:
    inner = shape.inner().shape
    for index, value in enumerate(values, 1):
        if value is None:
            yield missing(f"{path}.{index}.member")
        elif inner.kind in ("structure", "list", "map"):
            yield from _value(inner, value, f"{path}.{index}.member")
    if inner.kind not in ("structure", "list", "map") and _any_broken(inner, values):
        yield violation(path, _shown(shape, values), f"Member must satisfy constraint: [{_all_words(inner)}]")


def _entries(shape: Shape, values: Mapping[str, Any], path: str) -> Iterator[str]:
    key, inner = shape.map_key().shape, shape.inner().shape
    if _any_broken(key, values):
        yield violation(path, _shown(shape, values), f"Map keys must satisfy constraint: [{_all_words(key)}]")
    for name, value in values.items():
        if value is None:
            yield missing(f"{path}.{name}.member")
        elif inner.kind in ("structure", "list", "map"):
            yield from _value(inner, value, f"{path}.{name}.member")
    if inner.kind not in ("structure", "list", "map") and _any_broken(inner, values.values()):
        yield violation(path, _shown(shape, values), f"Map value must satisfy constraint: [{_all_words(inner)}]")


def _any_broken(shape: Shape, values: Any) -> bool:
    return any(value is not None and next(_broken(shape, value), None) is not None for value in values)


# Constraints of one value --------------------------------------------------------------------------------------------
def _broken(shape: Shape, value: Any) -> Iterator[str]:
    """Words of each constraint of `shape` that `value` does not satisfy."""
    numeric = shape.kind in ("integer", "long", "float", "double")
    if numeric:
        yield from _out_of_range(shape, value)
    elif shape.kind in ("string", "blob", "list", "map"):
        if shape.max is not None and len(value) > shape.max:
            yield constraints.max_length(int(shape.max))
        if shape.min is not None and len(value) < shape.min:
            yield constraints.min_length(int(shape.min))
    if shape.kind != "string":
        return
    if shape.pattern is not None and _is_matched(shape, value) and not _matches(shape.pattern, value):
        yield constraints.pattern(shape.pattern)
    if shape.enum and value not in shape.enum:
        yield constraints.enum(shape.enum)


def _out_of_range(shape: Shape, value: float) -> Iterator[str]:
    limit = shape.max
    if limit is None and shape.kind == "integer":
        limit = _INT32_MAX
    if limit is not None and value > limit:
        yield constraints.max_value(limit)
    least = shape.min
    if least is None and shape.kind == "integer":
        least = -_INT32_MAX - 1
    if least is not None and value < least:
        yield constraints.min_value(least)


def _is_matched(shape: Shape, value: str) -> bool:
    """Whether to run the pattern: some take quadratic time, so never on values far over their own maximum."""
    return len(value) <= _MATCHED_CHARS or shape.max is None or len(value) <= shape.max


def _matches(pattern: str, value: str) -> bool:
    return patterns.compiled(pattern).fullmatch(value) is not None


def _all_words(shape: Shape) -> str:
    """All constraints of a list's elements or a map's keys or values."""
    words = []
    if shape.kind in ("integer", "long", "float", "double"):
        words += [constraints.max_value(shape.max)] if shape.max is not None else []
        words += [constraints.min_value(shape.min)] if shape.min is not None else []
    else:
        words += [constraints.max_length(int(shape.max))] if shape.max is not None else []
        words += [constraints.min_length(int(shape.min))] if shape.min is not None else []
    words += [constraints.pattern(shape.pattern)] if shape.pattern is not None else []
    words += [constraints.enum(shape.enum)] if shape.enum else []
    return ", ".join(words)


# Values in texts -----------------------------------------------------------------------------------------------------
def _shown(shape: Shape, value: Any) -> str | None:
    """The value as Java's toString would have it; None where any of it is sensitive."""
    if _is_sensitive(shape, frozenset()):
        return None
    return _text(shape, value)


def _text(shape: Shape, value: Any) -> str:
    match shape.kind:
        case "boolean":
            return "true" if value else "false"
        case "blob":
            return f"java.nio.HeapByteBuffer[pos=0 lim={len(value)} cap={len(value)}]"
        case "list":
            items = [_item(shape.inner().shape, item) for item in value[:_MAX_SHOWN_ITEMS]]
            return "[" + ", ".join([*items, "..."] if len(value) > len(items) else items) + "]"
        case "map":
            pairs = [
                f"{key}={_item(shape.inner().shape, item)}" for key, item in list(value.items())[:_MAX_SHOWN_ITEMS]
            ]
            return "{" + ", ".join([*pairs, "..."] if len(value) > len(pairs) else pairs) + "}"
        case "structure":
            return f"{shape.name}(...)"
        case _:
            return str(value)


def _item(shape: Shape, value: Any) -> str:
    return "null" if value is None else _text(shape, value)


def _is_sensitive(shape: Shape, seen: frozenset[str]) -> bool:
    if shape.sensitive:
        return True
    if shape.name in seen:
        return False
    inside = [*shape.members.values(), *(member for member in (shape.key, shape.element) if member is not None)]
    return any(_is_sensitive(member.shape, seen | {shape.name}) for member in inside)
