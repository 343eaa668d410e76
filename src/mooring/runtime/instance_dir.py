"""An instance's directory as the driver uses it: the record of what was started, the lock, the exit. contract.shim names
the files. Blocking, small files only.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mooring.contract import shim as names
from mooring.domain.ids import InstanceId
from mooring.domain.instance import Exit
from mooring.kit import proc


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """spec.json: what recovery and removal need. Holds nothing secret."""

    instance_id: str
    control_group: tuple[str, ...]
    address: str
    resolved_image: str
    uid: int
    artifacts: tuple[str, ...]  # digests of what is mounted
    environment: str  # path of the environment in use; "" when none
    log_directory: str


class InstanceDirectory:
    """One directory, there or not."""

    def __init__(self, instances: str, instance_id: InstanceId) -> None:
        if not instance_id or "/" in instance_id or instance_id.startswith("."):
            raise ValueError(f"not an instance id: {instance_id!r}")
        self.instance_id = instance_id
        self.path = os.path.join(instances, instance_id)

    def file(self, name: str) -> str:
        """Path of one of contract.shim's files."""
        return os.path.join(self.path, name)

    @property
    def serve_socket(self) -> str:
        """Where our own model server listens, on the host."""
        return os.path.join(self.path, names.SERVE_DIRECTORY, names.SERVE_SOCKET)

    def exists(self) -> bool:
        """Whether there is anything."""
        return os.path.isdir(self.path)

    def make(self, record: Record) -> None:
        """The directory and spec.json."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        os.mkdir(self.path, 0o700)
        content = {name: getattr(record, name) for name in Record.__slots__}
        proc.write_atomically(self.file(names.SPEC), json.dumps(content).encode(), sync=False)

    def record(self) -> Record | None:
        """What `make` wrote; None when it is not there whole."""
        content = self._json(names.SPEC)
        try:
            if content is None:
                return None
            lists = {name: tuple(content[name]) for name in ("control_group", "artifacts")}
            return Record(**{**content, **lists})
        except (TypeError, KeyError):
            return None

    def take_lock(self) -> int:
        """Hold the lock; returns its descriptor, to be inherited by the shim. Raises BlockingIOError when it is held."""
        fd = os.open(self.file(names.LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def is_held(self) -> bool:
        """Whether a shim (or the start of one) is alive."""
        try:
            fd = os.open(self.file(names.LOCK), os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def wait_free(self, timeout_s: float) -> bool:
        """Wait until nobody holds the lock."""
        end_s = time.monotonic() + timeout_s
        pause_s = 0.001
        while self.is_held():
            if time.monotonic() > end_s:
                return False
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
        return True

    def shim(self) -> tuple[int, int, str] | None:
        """(pid, start ticks, boot id) as the shim wrote them."""
        content = self._json(names.IDENTITY)
        try:
            return (
                None if content is None else (int(content["pid"]), int(content["start_ticks"]), str(content["boot_id"]))
            )
        except (TypeError, KeyError, ValueError):
            return None

    def exit(self) -> Exit | None:
        """How it ended, as the shim wrote it."""
        content = self._json(names.EXIT)
        return None if content is None else parse_exit(content)

    def remove(self) -> None:
        """Delete the directory with all in it. Idempotent."""
        doomed = f"{os.path.dirname(self.path)}/.{self.instance_id}.removed"
        try:
            os.rename(self.path, doomed)
        except FileNotFoundError:
            pass
        except OSError:  # a removal that was interrupted left its own behind
            shutil.rmtree(doomed)
            os.rename(self.path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _json(self, name: str) -> dict[str, Any] | None:
        try:
            content = json.loads(Path(self.file(name)).read_bytes())
        except (OSError, ValueError):  # not there, or torn by a power loss: nothing of it runs any more then
            return None
        return content if isinstance(content, dict) else None


def parse_exit(content: Mapping[str, Any]) -> Exit:
    """exit.json's object."""
    code = content.get("code")
    return Exit(
        code=code if isinstance(code, int) else None,
        oom_killed=bool(content.get("oom_killed")),
        last_words=str(content.get("last_words", "")),
    )


def is_same_process(identity: tuple[int, int, str]) -> bool:
    """Whether (pid, start ticks, boot id) is alive now."""
    pid, ticks, boot = identity
    return (
        pid > 0 and boot == proc.boot_id() and proc.start_ticks(pid) == ticks and proc.state(pid) not in ("Z", "X", "")
    )


def find_shims(instances: str) -> dict[str, list[int]]:
    """Instance id → pids of the shims, and of what they forked, whose directory (there or deleted) lies in `instances`; told
    from their argv.
    """
    found: dict[str, list[int]] = {}
    prefix = os.path.join(instances, "")
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            words = Path("/proc", name, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(words) >= 4 and words[-4].endswith(b"/mooring/shim/__main__.py"):
            directory = os.fsdecode(words[-2])
            if directory.startswith(prefix):
                found.setdefault(directory[len(prefix) :], []).append(int(name))
    return found
