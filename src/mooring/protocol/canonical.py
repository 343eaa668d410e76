"""The canonical form of Signature Version 4: request targets, headers and time stamps. Pure; only `sigv4` calls it."""

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

# As sent, names in any case; or, cheaper, by lower-case name with values of repeated ones joined by commas.
Headers = Sequence[tuple[bytes, bytes]] | dict[bytes, bytes]

_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?")  # no escapes, no dot segments, no empty segments
_ENCODED = re.compile(rb"(?:[A-Za-z0-9._~/-]|%[0-9A-F]{2})*")
_IMF_DATE = re.compile(
    rb"(?:[A-Za-z]{3}, )?(\d{1,2}) ([A-Za-z]{3}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) (?:GMT|UTC|[+-]0000)"
)
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()


# Targets and headers -----------------------------------------------------------------------------------------------------
def collect(headers: Headers) -> Mapping[bytes, bytes]:
    """Headers by lower-case name; values of a repeated header joined by commas in order."""
    if isinstance(headers, dict):
        return headers
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        key = name.lower()
        if key in found:
            found[key] = found[key].rstrip() + b"," + value.strip()
        else:
            found[key] = value
    return found


def _normalize(path: bytes) -> bytes:
    """Remove dot segments and empty segments: RFC 3986 section 5.2.4 as botocore does it (`/a/.` is `/a`)."""
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment and segment != b".":
            kept.append(segment)
    tail = b"/" if kept and path.endswith(b"/") else b""
    return b"/" + b"/".join(kept) + tail


def _canonical_query(query: bytes) -> bytes:
    if not query:
        return b""
    if b"&" not in query:
        return query if b"=" in query else query + b"="
    return b"&".join(
        name + b"=" + value for name, value in sorted(pair.partition(b"=")[::2] for pair in query.split(b"&"))
    )


def _reencoded_query(query: bytes) -> bytes:
    pairs = []
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        pairs.append((_reencode(name), _reencode(value)))
    return b"&".join(name + b"=" + value for name, value in sorted(pairs))


def _reencode(text: bytes) -> bytes:
    return quote_from_bytes(unquote_to_bytes(text), safe="-_.~").encode()


def targets(path: bytes, query: bytes, *, s3: bool) -> tuple[bytes, ...]:
    """Canonical "path\\nquery" forms of a request target.

    SDKs sign the target as they send it, which for what they send is AWS's canonical form. Where a client sent
    characters unescaped, AWS signs the escaped form; that one is accepted as well. Both are functions of the whole
    target, so neither lets anything in that was not signed.
    """
    if _PLAIN_PATH.fullmatch(path):
        canonical = path
    elif s3:
        canonical = path or b"/"
    else:
        canonical = quote_from_bytes(_normalize(path), safe="/~").encode()
    if not query and (not s3 or _ENCODED.fullmatch(path)):
        return (canonical + b"\n",)
    plain = canonical + b"\n" + _canonical_query(query)
    if s3:
        canonical = quote_from_bytes(unquote_to_bytes(path or b"/"), safe="/-_.~").encode()
    escaped = canonical + b"\n" + (_reencoded_query(query) if query else b"")
    return (plain,) if plain == escaped else (plain, escaped)


def header_lines(signed: Iterable[bytes], found: Mapping[bytes, bytes]) -> bytes:
    """Canonical headers, in the order in which they were signed."""
    lines = []
    for name in signed:
        value = found.get(name, b"")
        lines.append(name + b":" + (b" ".join(value.split()) if b" " in value or b"\t" in value else value))
    return b"\n".join(lines)


# Dates ---------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=64)
def _day_start_s(day: bytes) -> int:
    return (datetime.date(int(day[:4]), int(day[4:6]), int(day[6:8])).toordinal() - _EPOCH_DAY) * 86400


@lru_cache(maxsize=1024)  # requests of the same second share it; what is no stamp raises, and is not kept
def stamp_s(stamp: bytes) -> int:
    """Epoch seconds of `YYYYMMDDTHHMMSSZ`. Raises ValueError."""
    day, clock = stamp[:8], stamp[9:15]
    if len(stamp) != 16 or stamp[8:9] != b"T" or stamp[15:] != b"Z" or not (day.isdigit() and clock.isdigit()):
        raise ValueError("not an ISO 8601 basic time stamp")
    hours, minutes, seconds = int(clock[:2]), int(clock[2:4]), int(clock[4:])
    if hours > 23 or minutes > 59 or seconds > 60:
        raise ValueError("not a time of day")
    return _day_start_s(day) + hours * 3600 + minutes * 60 + seconds


def stamp_of_date(value: bytes) -> bytes:
    """The Date header as a basic time stamp. Raises ValueError."""
    match = _IMF_DATE.fullmatch(value.strip())
    if match is None:
        return value.strip()
    day, month, year, *clock = match.groups()
    return year + b"%02d" % (_MONTHS.index(month.title()) + 1) + day.rjust(2, b"0") + b"T" + b"".join(clock) + b"Z"


def format_stamp(epoch_s: float) -> str:
    """`YYYYMMDDTHHMMSSZ` of an epoch time."""
    return datetime.datetime.fromtimestamp(epoch_s, datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
