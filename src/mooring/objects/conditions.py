"""Headers → Precondition. Pure."""

from collections.abc import Mapping

from mooring.objects import times
from mooring.objects.records import Precondition

_NAMES = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


def precondition_of(headers: Mapping[str, str]) -> Precondition | None:
    """What a request demands of the present object; None: nothing."""
    if not any(name in headers for name in _NAMES):
        return None
    modified, unmodified = headers.get("if-modified-since"), headers.get("if-unmodified-since")
    return Precondition(
        if_match=_etags(headers.get("if-match", "")),
        if_none_match=_etags(headers.get("if-none-match", "")),
        if_modified_since_s=None if modified is None else times.parse_http(modified),
        if_unmodified_since_s=None if unmodified is None else times.parse_http(unmodified),
    )


def _etags(value: str) -> tuple[str, ...]:
    return tuple(word.strip().removeprefix("W/").strip('"') for word in value.split(",") if word.strip())
