"""NextToken: a cursor, authenticated together with the query that it continues. Pure.

    token = base64url( HMAC-SHA256(key, query + payload)[:16] + payload ),  payload = JSON [sort value, name]

A token that was made up, changed, or came from another query or another server is refused.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping

import msgspec

from mooring.domain.errors import ValidationException
from mooring.domain.listing import Cursor

_MAC_BYTES = 16
MIN_KEY_BYTES = 16


class Tokens:
    """Makes and reads tokens with one server's key."""

    def __init__(self, key: bytes) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise ValueError(f"a token key has at least {MIN_KEY_BYTES} bytes")
        self._key = key

    def write(self, query: Mapping[str, object], cursor: Cursor) -> str:
        """The token that continues `query` after `cursor`."""
        payload = msgspec.json.encode([cursor.value, cursor.name])
        return base64.urlsafe_b64encode(self._mac(query, payload) + payload).decode()

    def read(self, query: Mapping[str, object], token: str) -> Cursor:
        """The cursor of a token of the same query. Raises ValidationException."""
        try:
            raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise _invalid("it is malformed") from None
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(query, payload)):
            raise _invalid("it does not belong to this request")
        value, name = msgspec.json.decode(payload, type=tuple[str | float, str])
        return Cursor(value=value, name=name)

    def _mac(self, query: Mapping[str, object], payload: bytes) -> bytes:
        asked = msgspec.json.encode(sorted((name, str(value)) for name, value in query.items()))
        return hmac.digest(self._key, asked + b"\n" + payload, "sha256")[:_MAC_BYTES]


def _invalid(reason: str) -> ValidationException:
    return ValidationException(f'Invalid pagination token because "{reason}".')
