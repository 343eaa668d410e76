"""Turns the regular expressions of AWS's service models (Java's dialect) into Python's.

Called by `validate` for each constrained value. Differences that matter: `\\p{...}` properties, `\\z`, ASCII-only
`\\w \\d \\s`, what `.` does not match, and a literal `-` after a class escape. What Java would read otherwise than
Python and what no model uses (nested classes, `&&`, `\\Q..\\E`) is refused rather than guessed. Matching is against the
whole value.
"""

import re
import unicodedata
from functools import cache

_NO_LINE_END = r"[^\n\r\x85\u2028\u2029]"
_POSIX = {
    "ASCII": r"\x00-\x7f",
    "Alnum": "a-zA-Z0-9",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Lower": "a-z",
    "Upper": "A-Z",
    "Space": r" \t\n\x0b\f\r",
    "Blank": r" \t",
    "Punct": r"!-/:-@\[-`{-~",
    "Graph": r"!-~",
    "Print": r" -~",
    "Cntrl": r"\x00-\x1f\x7f",
    "XDigit": "0-9a-fA-F",
}
_TOKEN = re.compile(
    r"\\p\{\^?(?P<property>\w+)\}|\\p(?P<letter>[A-Z])"
    r"|\\u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\.|\[\^?|\]|&&|[^\\]",
    re.DOTALL,
)


class UnsupportedPattern(ValueError):
    """A pattern that cannot be carried over faithfully."""


# Where assigned characters of the categories lie; the planes between are unassigned or private.
_SCANNED = (range(0x323B0), range(0xE0000, 0xE01F0))


@cache
def _categories() -> dict[str, str]:
    """Character class contents by general category (`L`, `N`, `Z`, ...)."""
    ranges: dict[str, list[list[int]]] = {}
    for block in _SCANNED:
        for point in block:
            kinds = ranges.setdefault(unicodedata.category(chr(point))[0], [])
            if kinds and kinds[-1][1] == point - 1:
                kinds[-1][1] = point
            else:
                kinds.append([point, point])
    return {
        kind: "".join(f"\\U{first:08x}-\\U{last:08x}" if last > first else f"\\U{first:08x}" for first, last in spans)
        for kind, spans in ranges.items()
    }


def _property(name: str) -> str:
    """Contents of a character class for `\\p{name}`."""
    if name in _POSIX:
        return _POSIX[name]
    try:
        return _categories()[name.removeprefix("Is")]
    except KeyError:
        raise UnsupportedPattern(f"\\p{{{name}}}") from None


def translate(pattern: str) -> str:
    """The pattern in Python's dialect, for `re.ASCII`. Raises UnsupportedPattern."""
    out: list[str] = []
    in_class = False
    after_escape = False  # the last thing in the class was an escape that no range can start with
    for token in _TOKEN.finditer(pattern):
        text = token.group()
        piece, escape = _piece(token, in_class=in_class)
        if in_class and text == "-" and after_escape:
            piece = r"\-"
        if text.startswith("[") and not in_class:
            in_class = True
        elif text == "]" and in_class:
            in_class = False
        after_escape = escape
        out.append(piece)
    return "".join(out)


def _piece(token: re.Match[str], *, in_class: bool) -> tuple[str, bool]:
    """(translation of one token, whether it is a class escape)."""
    text = token.group()
    if name := token["property"] or token["letter"]:
        if text.startswith("\\p{^"):
            raise UnsupportedPattern(text)
        return (_property(name) if in_class else f"[{_property(name)}]"), True
    if token["high"]:
        point = 0x10000 + ((int(token["high"], 16) - 0xD800) << 10) + int(token["low"], 16) - 0xDC00
        return f"\\U{point:08x}", False
    if text in (r"\z", r"\Z"):
        return r"\Z", False
    if text in (r"\Q", r"\E", r"\P", r"\h", r"\H", r"\R", r"\G", r"\X", r"\p"):
        raise UnsupportedPattern(text)
    if text in (r"\w", r"\W", r"\d", r"\D", r"\s", r"\S"):
        return text, True
    if text == "." and not in_class:
        return _NO_LINE_END, False
    if in_class and (text.startswith("[") or text == "&&"):
        raise UnsupportedPattern("nested character class")
    if in_class and text in ("|", "~"):
        return "\\" + text, False  # doubled they would mean set operations some day
    return text, False


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a model's pattern; use `fullmatch`. Raises UnsupportedPattern."""
    try:
        return re.compile(translate(pattern), re.ASCII)
    except re.error as exc:
        raise UnsupportedPattern(f"{pattern!r}: {exc}") from exc
