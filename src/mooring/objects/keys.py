"""What this package asks of whoever keeps keys: a Protocol that `app` fills (from `kms`). No keys are kept here.

Every stored body has a random data key. What the index keeps of it is the data key wrapped by a longer-lived one, which is
either the storage's own (SSE-S3, "AES256") or a KMS key, known by its ARN (SSE-KMS, "aws:kms").
"""

from typing import Protocol

S3_MANAGED = ""  # names the storage's own key where else an ARN stands
DEFAULT_ALIAS = "alias/aws/s3"


class KeyRing(Protocol):
    """See the module. Thread-safe; `load` and `create` block on the disk."""

    @property
    def where(self) -> str:
        """Where the root key lies, for messages."""

    def load(self) -> str | None:
        """Make the ring usable; returns the root key's id, None when there is no root key. Raises SealingError, OSError."""

    def create(self) -> str:
        """Make a root key where there is none and load it; returns its id. Raises SealingError, OSError."""

    def resolve(self, key_id: str) -> str | None:
        """The ARN of the KMS key that an id, an ARN or an alias names; None when there is no such key."""

    def wrap(self, key: str, secret: bytes, associated: bytes) -> bytes:
        """Seal a data key under S3_MANAGED or a resolved ARN. Raises SealingError when there is no such key."""

    def unwrap(self, key: str, wrapped: bytes, associated: bytes) -> bytes:
        """What `wrap` was given. Raises SealingError."""
