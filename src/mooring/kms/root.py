"""The root key, and the two keys that follow from it: the object storage's own, and the default KMS key alias/aws/s3.

    <data>/keys/root    32 random bytes, 0600, made once; whoever has it and the data directory can read everything

Used by the S3 process through `objects.keys.KeyRing`, which `app` fills with this. Knows nothing of objects.
"""

import contextlib
import os
import uuid
from pathlib import Path

from mooring.domain.ids import Scope, partition_of
from mooring.kit import sealing
from mooring.kit.sealing import SealingError

DEFAULT_ALIAS = "alias/aws/s3"
FILE_NAME = "root"


class RootKeys:
    """See the module. `load` or `create` comes first; then it is immutable and thread-safe."""

    def __init__(self, directory: Path, scope: Scope) -> None:
        self._path = directory / FILE_NAME
        self._prefix = f"arn:{partition_of(scope.region)}:kms:{scope.region}:{scope.account}:"
        self._names: frozenset[str] = frozenset()  # of the default key
        self._default_arn = ""
        self._storage_key: bytes | None = None
        self._keys: dict[str, bytes] = {}  # by id

    @property
    def where(self) -> str:
        """The root key's file."""
        return str(self._path)

    def load(self) -> str | None:
        """Read the root key; returns its id, None when there is no file. Raises SealingError, OSError."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            state = os.fstat(fd)
            if state.st_uid != os.geteuid():
                raise SealingError(f"{self._path} belongs to another user")
            if state.st_mode & 0o077:
                os.fchmod(fd, 0o600)
            root = file.read(sealing.KEY_BYTES + 1)
        if len(root) != sealing.KEY_BYTES:
            raise SealingError(f"{self._path} does not hold a key of {sealing.KEY_BYTES} bytes")
        return self._take(root)

    def create(self) -> str:
        """Make the root key, durable on return; returns its id. Raises SealingError when there is one, OSError.

        The file appears whole or not at all: it is written under another name and linked to its own, which fails where that
        is taken.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = sealing.new_key()
        temporary = self._path.with_name(f".{FILE_NAME}.tmp")
        temporary.unlink(missing_ok=True)  # of a start that was killed
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(root)
                file.flush()
                os.fsync(fd)
            os.link(temporary, self._path)
        except FileExistsError:
            raise SealingError(f"{self._path} exists already") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        for directory in (self._path.parent, self._path.parent.parent):
            _sync(directory)
        return self._take(root)

    def _take(self, root: bytes) -> str:
        own_id = str(uuid.UUID(bytes=sealing.derive(root, "mooring/default-key-id", 16), version=4))
        self._default_arn = f"{self._prefix}key/{own_id}"
        self._names = frozenset({own_id, self._default_arn, DEFAULT_ALIAS, self._prefix + DEFAULT_ALIAS})
        self._storage_key = sealing.derive(root, "mooring/s3-managed")
        self._keys = {own_id: sealing.derive(root, f"mooring/kms/{own_id}")}
        return own_id

    def resolve(self, key_id: str) -> str | None:
        """The ARN of the KMS key that an id, an ARN or an alias (or its ARN) names; None when there is no such key."""
        return self._default_arn if key_id in self._names else None

    def wrap(self, key: str, secret: bytes, associated: bytes) -> bytes:
        """Seal a small secret under the key of an ARN, or under the object storage's own (""). Raises SealingError."""
        return sealing.wrap(self._key(key), secret, associated)

    def unwrap(self, key: str, wrapped: bytes, associated: bytes) -> bytes:
        """What `wrap` was given. Raises SealingError."""
        return sealing.unwrap(self._key(key), wrapped, associated)

    def _key(self, arn: str) -> bytes:
        """By the id at the ARN's end: what was sealed stays readable when the server's region or account is set anew."""
        key = self._keys.get(arn.rpartition("/")[2]) if arn else self._storage_key
        if key is None:
            raise SealingError(f"there is no key {arn}")
        return key


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
