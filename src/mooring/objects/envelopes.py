"""Envelope encryption of bodies: a data key for each, kept beside the body's address, wrapped by a key of the key ring.

The wrapped key is bound to how the object is encrypted (mode, key, encryption context), not to a bucket, key or blob name:
a rename, or a copy that stays under the same key, refers to the same sealed bytes by a hard link and the same wrapped key.
It lies in the index while the bytes lie in a blob, so a blob put in another's place does not open.
"""

from dataclasses import dataclass, field

from mooring.kit import sealing
from mooring.objects.errors import StorageError
from mooring.objects.keys import KeyRing
from mooring.objects.records import Encryption


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A fresh data key, to seal one body with, and what the index keeps of it."""

    data_key: bytes = field(repr=False)
    wrapped: bytes


def seal(keys: KeyRing, encryption: Encryption | None) -> Envelope | None:
    """A data key for a new body; None for one that is kept as it is. Raises StorageError."""
    if encryption is None:
        return None
    data_key = sealing.new_key()
    try:
        wrapped = keys.wrap(encryption.key, data_key, _associated(encryption))
    except sealing.SealingError as error:
        raise StorageError(f"cannot wrap a data key: {error}") from error
    return Envelope(data_key=data_key, wrapped=wrapped)


def data_key_of(keys: KeyRing, encryption: Encryption | None, wrapped: bytes) -> bytes | None:
    """The data key of a stored body; None for one that is kept as it is. Raises StorageError."""
    if (encryption is None) != (not wrapped):
        raise StorageError("the index contradicts itself about a body's encryption")
    if encryption is None:
        return None
    try:
        return keys.unwrap(encryption.key, wrapped, _associated(encryption))
    except sealing.SealingError as error:
        raise StorageError(f"cannot unwrap a data key: {error}") from error


def _associated(encryption: Encryption) -> bytes:
    return "\0".join(("mooring/object/1", encryption.mode, encryption.key, encryption.context)).encode()
