"""Times as S3 writes them. Pure."""

import datetime
from email.utils import format_datetime, parsedate_to_datetime


def iso(epoch_s: int) -> str:
    """As in XML."""
    return datetime.datetime.fromtimestamp(epoch_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def http(epoch_s: int) -> str:
    """As in headers."""
    return format_datetime(datetime.datetime.fromtimestamp(epoch_s, datetime.UTC), usegmt=True)


def parse_http(value: str) -> int | None:
    """Epoch seconds of a header's date; None when it is none (RFC 9110: such a condition is passed over)."""
    try:
        parsed = parsedate_to_datetime(value)
    except ValueError:
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=datetime.UTC)
    return int(parsed.timestamp())
