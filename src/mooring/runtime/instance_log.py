"""Where an instance's output is kept, and its tail. Called by runtime.process; kit.logfile knows the form. Blocking."""

import os
from collections.abc import Iterable
from urllib.parse import quote

from mooring.domain.instance import InstanceSpec
from mooring.kit import logfile


def log_directory(data_dir: str, spec: InstanceSpec) -> str:
    """Where an instance's output is kept (kit.logfile)."""
    return os.path.join(data_dir, "logs", quote(spec.log_group, safe=""), quote(spec.log_stream, safe=""))


def tail(directory: str, max_bytes: int) -> str:
    """The last lines that a container printed, at most `max_bytes` of them. Blocking."""
    numbers = logfile.segments(directory, logfile.WRITER_OUTPUT)
    raw = b""
    for number in reversed(numbers):
        try:
            with open(os.path.join(directory, logfile.segment_name(logfile.WRITER_OUTPUT, number)), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 2 * max_bytes))
                raw = file.read(2 * max_bytes) + raw
        except OSError:  # rotated away, or never written
            break
        if len(raw) >= 2 * max_bytes:
            break
    return "\n".join(_texts(raw.splitlines())).encode()[-max_bytes:].decode("utf-8", "ignore")


def _texts(lines: Iterable[bytes]) -> Iterable[str]:
    for line in lines:
        try:
            yield logfile.parse_event(line)[1]
        except ValueError:  # cut at its start
            continue
