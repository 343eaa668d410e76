"""The root credentials: written once into `<data>/credentials`, in the form that every AWS tool reads.

`app` loads them at start and publishes them to the edges. The file is the only place where the secret lies; nothing here
prints it.
"""

import base64
import configparser
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from mooring.kit import durable

FILE_NAME = "credentials"
PROFILE = "default"
_KEY_PREFIX = "MOOR"  # where AWS has AKIA: 20 characters, and nobody takes it for a key of AWS


class CredentialsError(Exception):
    """The credentials file cannot be used. One line, no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCredentials:
    """The key that may do all."""

    access_key: str
    secret_key: str = field(repr=False)


def load_or_create(data_dir: Path) -> tuple[RootCredentials, bool]:
    """The root credentials of a data directory, and whether they were made just now. Raises CredentialsError, OSError."""
    path = data_dir / FILE_NAME
    try:
        text = _read_private(path)
    except FileNotFoundError:
        fresh = _generate()
        _write(path, fresh)
        return fresh, True
    return parse(text, path), False


def parse(text: str, path: Path) -> RootCredentials:
    """Read the shared-credentials form. Raises CredentialsError."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text)
        section = parser[PROFILE]
        found = RootCredentials(
            access_key=section["aws_access_key_id"].strip(), secret_key=section["aws_secret_access_key"].strip()
        )
    except (configparser.Error, KeyError) as error:
        # the parser's own message may quote a line of the file
        raise CredentialsError(f"{path} does not hold a profile [{PROFILE}] with a key id and a secret key") from error
    if not found.access_key.isalnum() or not found.secret_key:
        raise CredentialsError(f"{path} holds an empty or malformed key")
    return found


def _generate() -> RootCredentials:
    name = base64.b32encode(secrets.token_bytes(10)).decode()
    return RootCredentials(access_key=_KEY_PREFIX + name, secret_key=base64.b64encode(secrets.token_bytes(30)).decode())


def _read_private(path: Path) -> str:
    """Read a file that is ours alone, taking rights away from others where they have some."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        state = os.fstat(fd)
        if state.st_uid != os.geteuid():
            raise CredentialsError(f"{path} belongs to another user")
        if state.st_mode & 0o077:
            os.fchmod(fd, 0o600)
        raw = file.read(64 << 10)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise CredentialsError(f"{path} is not text") from error


def _write(path: Path, credentials: RootCredentials) -> None:
    """Whole or not at all, readable by the owner alone from its first byte on."""
    text = (
        f"[{PROFILE}]\naws_access_key_id = {credentials.access_key}\naws_secret_access_key = {credentials.secret_key}\n"
    )
    durable.write_private(path, text.encode())
