"""Filter patterns of FilterLogEvents, the unstructured form. Pure.

    ERROR timeout      both terms       ?ERROR ?WARN   any of them       -DEBUG   not this one       "exact phrase"

Terms are matched as substrings, upper and lower case told apart. JSON (`{…}`), space-delimited (`[…]`) and regular
expression (`%…%`) patterns are refused, and so is `?` mixed with other terms, which CloudWatch itself does not evaluate.
Source: CloudWatch Logs user guide, "Filter pattern syntax".
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)')


class PatternError(Exception):
    """The pattern is not of a form that is offered. The text is for the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What a message must, must not, and may hold."""

    required: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def matches(self, message: str) -> bool:
        """Whether the pattern lets the message through."""
        return (
            all(term in message for term in self.required)
            and not any(term in message for term in self.excluded)
            and (not self.optional or any(term in message for term in self.optional))
        )


def parse(text: str) -> Pattern:
    """Read a filter pattern; an empty one matches everything. Raises PatternError."""
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        raise PatternError(
            "JSON and space-delimited filter patterns are not offered; use terms, ?terms, -terms or quotes."
        )
    if stripped[:1] == "%":
        raise PatternError(
            "Regular expressions in filter patterns are not offered; use terms, ?terms, -terms or quotes."
        )
    terms: dict[str, list[str]] = {"": [], "-": [], "?": []}
    position = 0
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise PatternError("Invalid filter pattern: a quotation mark is not closed or stands inside a term.")
        sign, quoted, plain = match.groups()
        term = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        if not term:
            raise PatternError("Invalid filter pattern: a term is empty.")
        terms[sign].append(term)
        position = match.end()
    if terms["?"] and (terms[""] or terms["-"]):
        raise PatternError("A filter pattern that mixes ?terms with other terms is not offered.")
    return Pattern(required=tuple(terms[""]), excluded=tuple(terms["-"]), optional=tuple(terms["?"]))
