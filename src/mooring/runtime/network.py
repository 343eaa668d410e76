"""What network instances get here, decided once per server life: the operator's wish and what this machine can do.

    wish    auto   a network of its own, with a way out by slirp4netns where that works, else without
            none   a network of its own, with a way to the server and to nothing else
            host   the host's

Called by runtime.process. The shim carries it out (shim.network); `probe` tries the same on a sandbox that does nothing.
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mooring import contract
from mooring.kit import namespaces
from mooring.runtime import sandbox
from mooring.runtime.sandbox import Mode, System

Wish = Literal["auto", "none", "host"]

RESOLVER = "10.0.2.3"  # slirp4netns(1): answers by asking the host's
_OPTIONS = ("--configure", "--mtu=65520", "--disable-host-loopback")
_WALLS = (("--enable-sandbox", "--enable-seccomp"), ("--enable-sandbox",), ("--enable-seccomp",), ())
_OTHER_PORT = 4747  # inside, where the server's is the one that a container serves on


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where this server is. `address_file`: `<numeric host> <port>`, kept current over its lives."""

    url: str
    port: int
    address_file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What an instance gets. `own`: a namespace; `slirp`: the command line but for what it is attached to; `note`: one
    line for the operator and for instances' logs, where it is less than was asked for.
    """

    own: bool
    slirp: tuple[str, ...] = ()
    note: str = ""

    def forward_port(self, server: Server | None) -> int:
        """Port of an instance's own loopback where the server is found; 0: none."""
        if not self.own or server is None:
            return 0
        return _OTHER_PORT if server.port == contract.PORT else server.port

    def endpoint_url(self, server: Server | None) -> str:
        """Where an instance finds the server; empty when that is not known."""
        if server is None:
            return ""
        return f"http://127.0.0.1:{self.forward_port(server)}" if self.own else server.url

    def resolver(self) -> str:
        """Contents of resolv.conf in a network of its own."""
        return plan_resolver(_host_resolver()) if self.slirp else ""


def plan_resolver(of_host: str) -> str:
    """The host's search domains and options, and slirp4netns' resolver instead of the host's."""
    kept = [line for line in of_host.splitlines() if line.split()[:1] in (["search"], ["domain"], ["options"])]
    return "".join(f"{line}\n" for line in (*kept, f"nameserver {RESOLVER}"))


def _host_resolver() -> str:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""


def probe(system: System, wish: Wish, *, timeout_s: float = 10.0) -> Network:
    """Blocking: tens of milliseconds."""
    if system.mode is Mode.PLAIN or wish == "host":
        return Network(own=False)
    if wish == "none":
        return Network(own=True)
    program = shutil.which("slirp4netns")
    if program is None:
        return Network(own=True, note=_missing("slirp4netns is not installed"))
    failure = ""
    try:
        with _idle_sandbox(system, timeout_s) as pid:
            for walls in _WALLS:
                command = (program, *_OPTIONS, *walls)
                why = _try(command, pid, timeout_s)
                if not why:
                    return Network(own=True, slirp=command)
                failure = failure or why
    except (OSError, ValueError) as error:
        failure = str(error)
    return Network(own=True, note=_missing(f"slirp4netns does not work here: {failure}"))


def _missing(why: str) -> str:
    return f"MODELS HAVE NO NETWORK beyond this server: {why} (runtime_egress = auto)"


@contextlib.contextmanager
def _idle_sandbox(system: System, timeout_s: float) -> Iterator[int]:
    """The PID 1 of a sandbox that waits, with its loopback up."""
    info_read, info_write = os.pipe2(os.O_CLOEXEC)
    try:
        argv = sandbox.plan_trial(system, info_fd=info_write)
        process = subprocess.Popen(
            [*argv, "/bin/sh", "-c", "echo up; read line"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin"},
            pass_fds=(info_write,),
        )
        os.close(info_write)
        info_write = -1
        with process:
            try:
                if process.stdout is None or not _readable(process.stdout.fileno(), timeout_s):
                    raise OSError("a sandbox for the trial does not start")
                if not process.stdout.readline():
                    raise OSError("a sandbox for the trial ends at once")
                yield int(json.loads(os.read(info_read, 1 << 16))["child-pid"])
            finally:
                process.kill()
    finally:
        for fd in (info_read, info_write):
            if fd >= 0:
                os.close(fd)


def _try(command: tuple[str, ...], pid: int, timeout_s: float) -> str:
    """Attach it to the network of a process; why that failed, or nothing."""
    with contextlib.ExitStack() as stack:

        def kept(fd: int) -> int:
            if fd >= 0:
                stack.callback(os.close, fd)
            return fd

        network = kept(namespaces.open_network(pid))
        user = kept(namespaces.owner(network))
        exit_read, exit_write = os.pipe2(os.O_CLOEXEC)
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        inherited = [kept(fd) for fd in (exit_read, ready_write)]
        kept(exit_write), kept(ready_read)
        argv = namespaces.plan_attach(command, network=network, user=user, exit_fd=exit_read, ready_fd=ready_write)
        inherited += [fd for fd in (network, user) if fd >= 0]
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath},
            pass_fds=inherited,
        ) as process:
            try:
                if _becomes_ready(ready_read, process, timeout_s):
                    return ""
            finally:
                process.kill()
            _, said = process.communicate()
    return (said.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]


def _becomes_ready(ready: int, process: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if _readable(ready, 0.02):
            return os.read(ready, 1) == b"1"
        if process.poll() is not None:
            return False
    return False


def _readable(fd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
