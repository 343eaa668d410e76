"""Refuses members that this server would otherwise accept and ignore.

Called by the API between validation and the handler. Pure; knows neither models nor HTTP.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mooring.domain import errors

DOCS = "docs/coverage.md"
_MAX_NAMED = 10


def refuse_unsupported(operation_name: str, params: Mapping[str, Any], supported: Collection[str]) -> None:
    """Raise ValidationException naming every member of `params` that `supported` does not cover.

    `supported` holds dotted member paths; list elements add nothing to a path. A path covers all that is inside it,
    unless other paths begin with it: then it covers what they name and no more.
    """
    parents = {path[:at] for path in supported for at, letter in enumerate(path) if letter == "."}
    found = dict.fromkeys(_uncovered(params, "", supported, parents))
    if not found:
        return
    names = list(found)
    shown = ", ".join(f"'{name}'" for name in names[:_MAX_NAMED])
    if len(names) > _MAX_NAMED:
        shown += f" and {len(names) - _MAX_NAMED} more"
    noun, verb = ("Member", "is") if len(names) == 1 else ("Members", "are")
    raise errors.ValidationException(
        f"{noun} {shown} of {operation_name} {verb} not supported by this server: see {DOCS}#{operation_name.lower()}."
    )


def _uncovered(
    params: Mapping[str, Any], prefix: str, supported: Collection[str], parents: Collection[str]
) -> Iterator[str]:
    for name, value in params.items():
        path = prefix + name
        if value is None:
            continue
        if path not in parents:
            if path not in supported:
                yield path
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                yield from _uncovered(item, path + ".", supported, parents)
            elif path not in supported:
                yield path
