"""The sandbox in which packages are built and compiled: bubblewrap with a read-only system and the network.

Made by app for `runtime.environments` (its `wrap`). A requirements.txt can run code of its own: what is built from source,
and start-up files of installed packages while their bytecode is compiled. In here it sees no home, no data directory, no
process of the host, and can write its own build alone. The network is open, for the package index. Instances have a sandbox
of their own (`runtime.sandbox`).
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mooring.runtime.uv import Wrap

_PROBE_TIMEOUT_S = 10.0
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# what name look-ups, TLS and the dynamic linker read; not all of /etc, which has secrets that the same user id may read
_ETC = (
    "resolv.conf",
    "hosts",
    "nsswitch.conf",
    "host.conf",
    "gai.conf",
    "passwd",
    "group",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ssl",
    "pki",
    "ca-certificates",
    "crypto-policies",
    "alternatives",
    "localtime",
    "mime.types",
)


def find(environ: Mapping[str, str]) -> Wrap | None:
    """The sandbox if this system can make one; None where bubblewrap is missing or may not do it. Blocking."""
    program = shutil.which("bwrap", path=environ.get("PATH", os.defpath))
    if program is None:
        return None
    argv = [program, *_arguments((), ()), "true"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Bubblewrap(program) if done.returncode == 0 else None


class Bubblewrap:
    """A `Wrap`."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __call__(self, argv: Sequence[str], *, writable: Sequence[Path], readable: Sequence[Path]) -> Sequence[str]:
        """The command within the sandbox."""
        return [self._program, *_arguments(writable, readable), *argv]


def _arguments(writable: Sequence[Path], readable: Sequence[Path]) -> Iterator[str]:
    yield from ("--unshare-all", "--share-net", "--die-with-parent", "--new-session", "--cap-drop", "ALL")
    yield from ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")  # noqa: S108  its own
    for path in _SYSTEM:
        yield from _shown(path)
    for name in _ETC:
        yield from _shown(f"/etc/{name}")
    for place in readable:
        yield from ("--ro-bind-try", str(place), str(place))
    for place in writable:
        yield from ("--bind", str(place), str(place))
    yield "--"


def _shown(path: str) -> Iterator[str]:
    if os.path.islink(path) and path in _SYSTEM:
        yield from ("--symlink", os.readlink(path), path)
    else:
        yield from ("--ro-bind-try", path, path)
