"""The Range header on an object of known size (RFC 9110 section 14). Pure."""

import re
from dataclasses import dataclass

from mooring.objects.errors import S3Error

_SPEC = re.compile(r"bytes=\s*(\d*)-(\d*)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """`length` bytes at `start`."""

    start: int
    length: int


def span_of(header: str, size: int) -> Span | None:
    """What a Range header asks for; None: it is not one that counts, and the whole is sent. Raises InvalidRange.

    As S3 does, several ranges and unreadable headers are passed over.
    """
    match = _SPEC.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        if length == 0:
            raise _invalid(header, size)
        return Span(start=size - length, length=length)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise _invalid(header, size)
    end = min(int(last), size - 1) if last else size - 1
    return Span(start=start, length=end - start + 1)


def _invalid(header: str, size: int) -> S3Error:
    return S3Error(
        "InvalidRange",
        "The requested range is not satisfiable",
        fields={"RangeRequested": header, "ActualObjectSize": str(size)},
        headers={"content-range": f"bytes */{size}"},
    )
