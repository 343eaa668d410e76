"""Bubblewrap command lines, and finding out what this system can do. Pure but for `probe`.

What a model sees (everything else of the machine is absent):

    /usr /lib* /bin /sbin      the system's, read-only              /opt/ml        private tmpfs, small
    /etc                       generated, plus linker and TLS data   /opt/ml/model  the artefact, read-only
    environment, interpreter   read-only, at their own paths         /opt/mooring   mooring.serving and .contract, read-only
    /tmp /dev/shm              private, sized tmpfs                  /run/mooring   the server's socket directory
    /proc /dev                 of its own PID namespace, minimal

The chain, when control is root:   bwrap ─▶ setpriv (own user id, no capabilities) ─▶ python: takes the environment ─▶ server
and otherwise:                     bwrap with a user namespace ─▶ server

As root no user namespace is used: a different real user id per instance is the stronger wall, and works where they are
forbidden. The model's environment never stands in argv, nor in the environment of bwrap or setpriv (LD_PRELOAD would run
code there, before privileges are dropped): it comes by a descriptor to a process that has none left.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from mooring import contract

Egress = Literal["none", "host"]

_ARGS_FD = 40
_ENV_FD = 41
INFO_FD = 42

SERVER_ROOT = "/opt/mooring"
SOCKET_DIRECTORY = "/run/mooring"
_BASE_BYTES = 64 << 20  # of /opt/ml beside the model
_HOSTNAME = "container-0.local"
_TMP, _VAR_TMP, _SHM = "/tmp", "/var/tmp", "/dev/shm"  # noqa: S108  # the sandbox's own

# 1879048192…2147483647 is the range systemd's UIDS-GIDS.md leaves to nobody; the second is for hosts that map few ids.
_UID_RANGES = ((0x70000000, 0x08000000), (30_000, 30_000))

# Run by `python -I -S -c` once privileges are gone: NUL-separated environment from a descriptor, then the program.
_TAKE_ENVIRONMENT = (
    "import os,sys\n"
    "f=os.fdopen(int(sys.argv[1]),'rb');d=f.read();f.close()\n"
    "e=dict(p.split(b'=',1) for p in d.split(b'\\0') if p)\n"
    "os.execve(sys.argv[2],sys.argv[2:],e)\n"
)


class Mode(StrEnum):
    """How an instance is closed in."""

    ROOT = "root"  # bwrap as root, own user id
    USER_NAMESPACE = "user-namespace"  # bwrap as anybody
    PLAIN = "plain"  # no sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What this machine can do."""

    mode: Mode
    bwrap: str = ""
    setpriv: str = ""
    uid_base: int = 0
    uid_count: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A host path shown inside, read-only."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What runs inside: absolute argv[0] and `environment` as seen inside, mounts it needs. `python`: an interpreter among
    the mounts, for taking the environment (3.6 or newer). `tcp`: it is reached by port 8080, not by its Unix socket.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    python: str
    tcp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The places of one instance on the host."""

    etc: str  # directory of generated files
    sockets: str
    model: str
    tmp_bytes: int
    memory_bytes: int
    uid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the shim executes."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    memory_files: Mapping[int, str]
    info_fd: int
    working_directory: str


def etc_files(uid: int, resolver: str = "") -> dict[str, str]:
    """Names and contents of the generated /etc. `resolver`: of resolv.conf."""
    return {
        "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\nmodel:x:{uid}:{uid}:model:/tmp:/usr/sbin/nologin\n",
        "group": f"root:x:0:\nmodel:x:{uid}:\n",
        "hosts": f"127.0.0.1 localhost {_HOSTNAME}\n::1 localhost\n",
        "hostname": f"{_HOSTNAME}\n",
        "resolv.conf": resolver,
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }


_ETC_OF_HOST = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki/tls/certs",
    "alternatives",
    "localtime",
    "mime.types",
    "protocols",
    "services",
)
_SYSTEM_DIRECTORIES = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


class _Words:
    """bwrap's words in the making. Parents are made one by one: those that bwrap makes itself only root may pass."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._made: set[str] = {"/"}
        self._covered: set[str] = set()

    def directory(self, path: str) -> None:
        """A directory of the sandbox's root, and those above it; nothing within what is mounted."""
        missing = []
        while path not in self._made and path not in self._covered:
            missing.append(path)
            path = os.path.dirname(path)
        if path in self._made:
            for part in reversed(missing):
                self.words += ["--dir", part]
                self._made.add(part)

    def mount(self, *words: str) -> None:
        """A mount; its target is the last word. Directories can be made in fresh memory, and nowhere else."""
        target = words[-1]
        self.directory(os.path.dirname(target))
        self.words += words
        if "--tmpfs" in words:
            self._made.add(target)
        else:
            self._covered.add(target)
            self._made.discard(target)


def _mount_system(to: _Words) -> None:
    to.mount("--ro-bind", "/usr", "/usr")
    for path in _SYSTEM_DIRECTORIES:
        if os.path.islink(path):
            to.mount("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            to.mount("--ro-bind", path, path)


def _mount_etc(to: _Words, etc: str, egress: Egress) -> None:
    to.directory("/etc")
    for name in etc_files(0):
        source = f"{etc}/{name}"
        if name == "resolv.conf" and egress == "host":
            source = os.path.realpath("/etc/resolv.conf")
        to.mount("--ro-bind", source, f"/etc/{name}")
    for name in _ETC_OF_HOST:
        if os.path.exists(f"/etc/{name}"):
            to.mount("--ro-bind", f"/etc/{name}", f"/etc/{name}")


def _mount_proc(to: _Words) -> None:
    """Its own /proc. What there is the machine's and not the sandbox's is read-only: the kernel lets user id 0 write it by
    the id alone, without capabilities, also from a user namespace (core_pattern would run a program as root).
    """
    to.mount("--proc", "/proc")
    for name in ("sys", "sysrq-trigger", "irq", "bus", "fs"):
        if os.path.exists(f"/proc/{name}"):
            to.words += ["--ro-bind", f"/proc/{name}", f"/proc/{name}"]


def _memory_mount(size: int, target: str) -> list[str]:
    return ["--perms", "1777", "--size", str(max(size, 1 << 20)), "--tmpfs", target]


def _namespaces(system: System, egress: Egress) -> list[str]:
    words = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", _HOSTNAME]
    if egress == "none":
        words.append("--unshare-net")  # bwrap brings its loopback up
    if system.mode is Mode.ROOT:
        words += ["--cap-drop", "ALL"]
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):  # setpriv spends them
            words += ["--cap-add", capability]
    else:
        words += ["--unshare-user", "--cap-drop", "ALL"]
    return [*words, "--die-with-parent", "--new-session", "--info-fd", str(INFO_FD)]


def plan_mounts(program: Program, room: Room, egress: Egress) -> list[str]:
    """Everything of the file system, in bwrap's words; later ones lie over earlier ones."""
    to = _Words()
    _mount_system(to)
    _mount_etc(to, room.etc, egress)
    to.mount(*_memory_mount(room.tmp_bytes, _TMP))
    to.mount("--symlink", _TMP, _VAR_TMP)
    _mount_proc(to)
    to.mount("--dev", "/dev")
    to.mount(*_memory_mount(room.memory_bytes // 2, _SHM))
    to.directory(contract.BASE_DIR)
    to.mount(*_memory_mount(_BASE_BYTES, contract.BASE_DIR))
    to.mount("--ro-bind", room.model, contract.MODEL_DIR)
    to.mount("--bind", room.sockets, SOCKET_DIRECTORY)
    for mount in sorted(program.mounts, key=lambda mount: mount.target):  # parents first
        to.mount("--ro-bind", mount.source, mount.target)
    return [*to.words, "--remount-ro", "/", "--chdir", contract.BASE_DIR]


def plan_command(system: System, program: Program, room: Room, *, egress: Egress) -> Command:
    """What the shim is to execute."""
    if system.mode is Mode.PLAIN:
        wrap = (system.setpriv, "--pdeathsig", "KILL", "--") if system.setpriv else ()
        return Command(
            argv=(*wrap, *program.argv),
            environment=dict(program.environment),
            memory_files={},
            info_fd=-1,
            working_directory=room.model,
        )
    words = [*_namespaces(system, egress), "--clearenv"]
    files = {}
    if system.mode is Mode.ROOT:
        take = (program.python, "-I", "-S", "-c", _TAKE_ENVIRONMENT, str(_ENV_FD))
        inside = (*_as_user(system, room.uid), "--", *take, *program.argv)
        files[_ENV_FD] = "\0".join(f"{name}={value}" for name, value in program.environment.items())
    else:
        inside = program.argv
        for name, value in program.environment.items():
            words += ["--setenv", name, value]
    words += plan_mounts(program, room, egress)
    files[_ARGS_FD] = "\0".join(words) + "\0"
    return Command(
        argv=(system.bwrap, "--args", str(_ARGS_FD), "--", *inside),
        environment={"PATH": "/usr/bin:/bin"},
        memory_files=files,
        info_fd=INFO_FD,
        working_directory="/",
    )


def _as_user(system: System, uid: int) -> tuple[str, ...]:
    identity = ("--reuid", str(uid), "--regid", str(uid), "--clear-groups")
    return (
        system.setpriv,
        *identity,
        "--no-new-privs",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
    )


def plan_trial(system: System, *, info_fd: int) -> list[str]:
    """The front of a command: a sandbox with the walls that instances get, and nothing in it but the system."""
    system_only = _Words()
    _mount_system(system_only)
    words = [*_namespaces(system, "none"), "--clearenv", *system_only.words]
    words += ["--proc", "/proc", "--dev", "/dev", *_memory_mount(1 << 20, _TMP), "--remount-ro", "/"]
    words[words.index("--info-fd") + 1] = str(info_fd)
    inner = [*_as_user(system, system.uid_base), "--"] if system.mode is Mode.ROOT else []
    return [system.bwrap, *words, "--", *inner]


# Probing --------------------------------------------------------------------------------------------------------------


def probe(*, plain: bool = False, timeout_s: float = 10.0) -> System:
    """Try the sandbox out, strongest first. Blocking: some tens of milliseconds. `plain`: do not even try."""
    bwrap, setpriv = shutil.which("bwrap") or "", shutil.which("setpriv") or ""
    notes: list[str] = []
    if plain:
        notes.append("sandboxing is switched off")
    elif not bwrap:
        notes.append("bubblewrap (bwrap) is not installed")
    else:
        for candidate in _candidates(bwrap, setpriv, notes):
            failure = _try(candidate, timeout_s)
            if not failure:
                return candidate
            notes.append(f"{candidate.mode} sandbox does not work here: {failure}")
    notes.append("MODELS RUN WITHOUT A SANDBOX: they can read and change what this server can")
    return System(mode=Mode.PLAIN, setpriv=setpriv, notes=tuple(notes))


def _candidates(bwrap: str, setpriv: str, notes: list[str]) -> list[System]:
    user = System(mode=Mode.USER_NAMESPACE, bwrap=bwrap)
    if os.geteuid() != 0:
        return [user]
    if not setpriv:
        notes.append("setpriv (util-linux) is not installed: instances share the server's user id")
        return [user]
    ranges = [System(mode=Mode.ROOT, bwrap=bwrap, setpriv=setpriv, uid_base=b, uid_count=n) for b, n in _UID_RANGES]
    return [*ranges, user]


def _try(system: System, timeout_s: float) -> str:
    """Run `true` in the sandbox that instances would get; why it failed, or nothing."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        done = subprocess.run(
            [*plan_trial(system, info_fd=null), "/bin/true"],
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            pass_fds=(null,),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        os.close(null)
    if done.returncode == 0:
        return ""
    return done.stderr.decode("utf-8", "replace").strip().splitlines()[-1] if done.stderr else f"exit {done.returncode}"


# Our own model server -------------------------------------------------------------------------------------------------


def server_mounts() -> tuple[Mount, ...]:
    """mooring.serving and mooring.contract, and nothing else of the package."""
    package = Path(__file__).resolve().parent.parent
    target = f"{SERVER_ROOT}/mooring"
    return tuple(
        Mount(source=str(package / name), target=f"{target}/{name}") for name in ("__init__.py", "contract", "serving")
    )


def interpreter_mounts() -> tuple[Mount, ...]:
    """The running interpreter's own installation, where it lies outside /usr; for programs that run on it."""
    roots = {os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)}
    return tuple(Mount(source=root, target=root) for root in sorted(roots) if not is_system_path(root))


def is_system_path(path: str) -> bool:
    """Whether the sandbox has it already."""
    return path == "/usr" or path.startswith("/usr/")
