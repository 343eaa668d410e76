"""Words for violated constraints, the same for members of JSON requests (`validate`) and headers (`runtime`).

Form (hosting.md section 10.2): `1 validation error detected: Value '<v>' at '<path>' failed to satisfy constraint: <what>`,
with several: `n validation errors detected: A; B`. Knows neither botocore nor HTTP.
"""

from collections.abc import Sequence

_MAX_SHOWN_CHARS = 1024  # of one offending value
_MAX_SHOWN = 50  # violations spelled out; the count is of all of them

NOT_NULL = "Member must not be null"


def violation(path: str, shown: str | None, constraint: str) -> str:
    """One violation. `shown` is the value as text, None for a sensitive one, which is never echoed."""
    if shown is None:
        return f"Value at '{path}' failed to satisfy constraint: {constraint}"
    if len(shown) > _MAX_SHOWN_CHARS:
        shown = shown[:_MAX_SHOWN_CHARS] + "..."
    return f"Value '{shown}' at '{path}' failed to satisfy constraint: {constraint}"


def missing(path: str) -> str:
    """A required member that is not there."""
    return f"Value null at '{path}' failed to satisfy constraint: {NOT_NULL}"


def max_length(limit: int) -> str:
    """Length of text, number of bytes, list or map entries."""
    return f"Member must have length less than or equal to {limit}"


def min_length(limit: int) -> str:
    """Length of text, number of bytes, list or map entries."""
    return f"Member must have length greater than or equal to {limit}"


def max_value(limit: float) -> str:
    """A number."""
    return (
        f"Member must have value less than or equal to {limit:g}"
        if limit != int(limit)
        else (f"Member must have value less than or equal to {int(limit)}")
    )


def min_value(limit: float) -> str:
    """A number."""
    return (
        f"Member must have value greater than or equal to {limit:g}"
        if limit != int(limit)
        else (f"Member must have value greater than or equal to {int(limit)}")
    )


def pattern(text: str) -> str:
    """A regular expression, as the service model writes it."""
    return f"Member must satisfy regular expression pattern: {text}"


def enum(values: Sequence[str]) -> str:
    """One of a set."""
    return f"Member must satisfy enum value set: [{', '.join(values)}]"


def summary(violations: Sequence[str]) -> str:
    """The message for all violations of a request; there is at least one."""
    count = len(violations)
    noun = "error" if count == 1 else "errors"
    return f"{count} validation {noun} detected: {'; '.join(violations[:_MAX_SHOWN])}"
