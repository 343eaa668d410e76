"""The members of an invocation, read from its headers once for all requests that send the same.

Clients send the same few fields with every request, so what was read (and found right) is kept, bounded, by the exact name
and values. Nothing of a signature is ever kept. Called by gateway.server. Must not know what happens to the request.
"""

from collections.abc import Mapping

from mooring import contract
from mooring.gateway import texts
from mooring.protocol import runtime

_KNOWN = frozenset(rule.header for rule in runtime.RULES)
_MAX_KEPT = 512
_MAX_KEY_BYTES = 512

# Client → container: what the API knows and a plain endpoint takes; nothing is invented (hosting.md section 1.4).
_FORWARDED = (
    (b"content-type", b"Content-Type: "),
    (b"accept", b"Accept: "),
    (contract.HEADER_CUSTOM_ATTRIBUTES.lower().encode(), contract.HEADER_CUSTOM_ATTRIBUTES.encode() + b": "),
    (contract.HEADER_INFERENCE_ID.lower().encode(), contract.HEADER_INFERENCE_ID.encode() + b": "),
)

Members = tuple[runtime.Invocation, bytes]  # and the lines for the container, with the empty line that ends a head


class MemberReader:
    """See the module."""

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, ...], Members] = {}

    def read(self, name: bytes, headers: Mapping[bytes, bytes]) -> Members:
        """Raises ValidationError for a member that breaks its constraints or is not taken by plain endpoints."""
        key: tuple[bytes, ...] = (name,)
        for field in headers.keys() & _KNOWN:
            key += (field, headers[field])
        found = self._kept.get(key)
        if found is None:
            found = _read(name, headers)
            if sum(map(len, key)) <= _MAX_KEY_BYTES:
                if len(self._kept) >= _MAX_KEPT:
                    self._kept.clear()
                self._kept[key] = found
        return found


def _read(name: bytes, headers: Mapping[bytes, bytes]) -> Members:
    members = runtime.parse_invocation(name, headers.items())
    refused = texts.refused_member(members)
    if refused is not None:
        raise refused
    lines = [start + headers[field] + b"\r\n" for field, start in _FORWARDED if field in headers]
    return members, b"".join(lines) + b"\r\n"
