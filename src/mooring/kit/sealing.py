"""Bytes made unreadable without a key, in chunks, so that any range can be read and memory stays bounded. Pure.

The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance, CRYPTO 2015) over AES-256-GCM, each body under a key of its own:

    plaintext   | 64 KiB      | 64 KiB      | … | 0 … 64 KiB  |
    sealed      | chunk + tag | chunk + tag | … | chunk + tag |      nonce = number of the chunk (11 bytes) ‖ last? (1 byte)

A chunk that was changed, moved, or is last where it should not be (or the other way round) does not open. The one thing that
a reader must know besides the key is the size of the plaintext. A key seals one body only: the nonces always begin at zero.

`wrap` seals a small secret (a body's key) under a long-lived key, with a random nonce. Called by `objects` and `kms`; knows
nothing of either. Nothing here may put a key into a message.
"""

import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
CHUNK_BYTES = 64 << 10
TAG_BYTES = 16
_SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES
_NONCE_BYTES = 12


class SealingError(Exception):
    """Sealed bytes do not open: they are not what was sealed, or the key is another. Holds no secret."""


def new_key() -> bytes:
    """A fresh key."""
    return os.urandom(KEY_BYTES)


def derive(root: bytes, purpose: str, size: int = KEY_BYTES) -> bytes:
    """A key, or an id, that follows from a root key and says nothing about it or about other purposes (HKDF, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=purpose.encode()).derive(root)


def wrap(key: bytes, secret: bytes, associated: bytes) -> bytes:
    """Seal a small secret; only with the same `associated` does it open again."""
    nonce = os.urandom(_NONCE_BYTES)  # random: good for 2**32 secrets under one key (NIST SP 800-38D, 8.3)
    return nonce + AESGCM(key).encrypt(nonce, secret, associated)


def unwrap(key: bytes, wrapped: bytes, associated: bytes) -> bytes:
    """What `wrap` was given. Raises SealingError."""
    if len(wrapped) < _NONCE_BYTES + TAG_BYTES:
        raise SealingError("a wrapped key is too short")
    try:
        return AESGCM(key).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], associated)
    except InvalidTag:
        raise SealingError("a wrapped key does not open") from None


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(_NONCE_BYTES - 1, "big") + (b"\x01" if last else b"\x00")


class Sealer:
    """Seals one body as it comes. Holds back at most one chunk: which one is the last shows only at the end."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._held = bytearray()
        self._number = 0

    def update(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take in more; returns what can be written by now."""
        self._held += data
        count = (len(self._held) - 1) // CHUNK_BYTES if self._held else 0
        if not count:
            return b""
        with memoryview(self._held) as view:
            sealed = b"".join(
                self._cipher.encrypt(
                    _nonce(self._number + at, last=False), view[at * CHUNK_BYTES :][:CHUNK_BYTES], None
                )
                for at in range(count)
            )
        self._number += count
        del self._held[: count * CHUNK_BYTES]
        return sealed

    def finish(self) -> bytes:
        """The last chunk; there always is one, if only an empty one. Call it once."""
        sealed = self._cipher.encrypt(_nonce(self._number, last=True), self._held, None)
        self._held.clear()
        return sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Where the chunks lie that hold a range: `length` sealed bytes at `start`, of which the first chunk is `number`.

    Opened, they begin `skip` bytes before the range.
    """

    number: int
    start: int
    length: int
    skip: int


def _last_number(size: int) -> int:
    return max(size - 1, 0) // CHUNK_BYTES


def sealed_size(size: int) -> int:
    """How long a plaintext of `size` bytes becomes."""
    return size + (_last_number(size) + 1) * TAG_BYTES


def extent(size: int, offset: int, length: int) -> Extent:
    """The chunks of a plaintext of `size` that hold a range inside it."""
    first = min(offset // CHUNK_BYTES, _last_number(size))
    last = max(first, (offset + length - 1) // CHUNK_BYTES)
    start = first * _SEALED_CHUNK_BYTES
    end = min((last + 1) * _SEALED_CHUNK_BYTES, sealed_size(size))
    return Extent(number=first, start=start, length=end - start, skip=offset - first * CHUNK_BYTES)


class Opener:
    """Opens chunks of one body, from any of them on."""

    def __init__(self, key: bytes, size: int) -> None:
        self._cipher = AESGCM(key)
        self._size = size

    def open(self, number: int, sealed: bytes) -> bytes:
        """The plaintext of whole chunks, the first of which is `number`. Raises SealingError."""
        last = _last_number(self._size)
        view = memoryview(sealed)
        pieces = []
        try:
            for start in range(0, len(sealed), _SEALED_CHUNK_BYTES):
                nonce = _nonce(number, last=number == last)
                pieces.append(self._cipher.decrypt(nonce, view[start : start + _SEALED_CHUNK_BYTES], None))
                number += 1
        except InvalidTag:
            raise SealingError(f"chunk {number} is not what was sealed") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def open_whole(key: bytes, sealed: bytes, size: int) -> bytes:
    """A small body at once. Raises SealingError."""
    if len(sealed) != sealed_size(size):
        raise SealingError("a sealed body is not as long as it should be")
    return Opener(key, size).open(0, sealed)
