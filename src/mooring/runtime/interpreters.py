"""Which Pythons are installed on this machine.

Called by `runtime.environments`, from a worker thread: it starts candidates to ask for their version (20 ms each) and
remembers the answer for the life of the object. Nothing is downloaded. Knows nothing of images.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROBE = (
    "import json,sys,platform;"
    "print(json.dumps([list(sys.version_info[:3]),sys.base_prefix,platform.machine(),sys.implementation.name]))"
)
_PROBE_TIMEOUT_S = 10.0
_NAME = re.compile(r"python(3\.\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """An installed CPython."""

    path: Path  # no symbolic link
    version: str  # "3.10.13"
    base_prefix: Path
    machine: str

    @property
    def minor(self) -> str:
        """ "3.10"."""
        return ".".join(self.version.split(".")[:2])

    @property
    def identity(self) -> str:
        """What an environment built on it depends on."""
        return f"{self.path} {self.version} {sys.platform} {self.machine}"


class Interpreters:
    """Finds interpreters by minor version: our own, then PATH, then where pyenv and uv put theirs."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._found: dict[str, Interpreter | None] = {}
        self._lock = threading.Lock()

    def running_minor(self) -> str:
        """The minor version of this process."""
        return f"{sys.version_info[0]}.{sys.version_info[1]}"

    def find(self, minor: str) -> Interpreter | None:
        """An interpreter of that minor version, or None. Blocking."""
        with self._lock:
            known = self._found.get(minor)
            if known is not None and known.path.exists():
                return known
            found = next((i for i in map(self._probe, self._candidates(minor)) if i and i.minor == minor), None)
            self._found[minor] = found
            return found

    def installed(self) -> Sequence[str]:
        """Minor versions that a file name promises, for error messages."""
        names = {
            match[1]
            for directory in self._directories()
            for entry in _names(directory)
            if (match := _NAME.fullmatch(entry)) and (directory / entry).exists()
        }
        return sorted(names | {self.running_minor()}, key=lambda minor: [int(part) for part in minor.split(".")])

    def _candidates(self, minor: str) -> Iterator[Path]:
        if minor == self.running_minor():
            yield Path(sys.base_prefix) / "bin" / f"python{minor}"
        for directory in self._directories():
            yield directory / f"python{minor}"

    def _directories(self) -> Iterator[Path]:
        for entry in self._environ.get("PATH", os.defpath).split(os.pathsep):
            # pyenv's shims only answer for the version selected there; its versions are looked at below
            if entry.startswith("/") and not entry.rstrip("/").endswith("/shims"):
                yield Path(entry)
        home = Path(self._environ.get("HOME", "/nonexistent"))
        roots = [
            Path(self._environ.get("PYENV_ROOT", home / ".pyenv")) / "versions",
            Path(self._environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python")),
        ]
        for root in roots:
            for name in sorted(_names(root), key=_version_key, reverse=True):
                yield root / name / "bin"
        yield from (Path("/usr/local/bin"), Path("/usr/bin"))

    def _probe(self, candidate: Path) -> Interpreter | None:
        if not candidate.exists():
            return None
        path = candidate.resolve()
        try:
            done = subprocess.run(
                [str(path), "-I", "-S", "-c", _PROBE],
                capture_output=True,
                timeout=_PROBE_TIMEOUT_S,
                check=True,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
            )
            version, base_prefix, machine, implementation = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            return None  # a broken installation is no candidate; `find` says what there is
        if implementation != "cpython":
            return None
        return Interpreter(
            path=path,
            version=".".join(map(str, version)),
            base_prefix=Path(base_prefix).resolve(),
            machine=machine,
        )


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _version_key(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]
