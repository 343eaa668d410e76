"""Questions to a running server from the command line, over its status socket: only its owner can open that."""

import socket
from pathlib import Path

import msgspec

from mooring.app.admin import SOCKET_NAME
from mooring.kit.unixpath import SocketPath
from mooring.telemetry.status import Report

TIMEOUT_S = 10.0
_MAX_BYTES = 64 << 20


class NotRunningError(Exception):
    """No server answers for this data directory. One line for the operator."""


def status(data_dir: Path) -> Report:
    """What the server of this data directory is doing. Raises NotRunningError."""
    try:
        return msgspec.json.decode(_read_all(data_dir.absolute() / "run" / SOCKET_NAME), type=Report)
    except (OSError, msgspec.MsgspecError) as error:
        raise NotRunningError(f"no server answers for the data directory {data_dir}") from error


def _read_all(path: Path) -> bytes:
    place = SocketPath(str(path))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(place.address)
            parts: list[bytes] = []
            size = 0
            while size < _MAX_BYTES and (part := connection.recv(1 << 16)):
                parts.append(part)
                size += len(part)
            return b"".join(parts)
    finally:
        place.close()
