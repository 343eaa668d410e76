"""Starting shims and talking to them (contract.shim). Called by runtime.process."""

import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mooring.contract import shim as names
from mooring.domain.instance import Limits
from mooring.kit import unixpath
from mooring.runtime.driver import DriverError
from mooring.runtime.sandbox import Command, Mode, System

_READY_TIMEOUT_S = 20.0
_SHIM = str(Path(__file__).resolve().parent.parent / "shim" / "__main__.py")


class ShimGone(Exception):
    """Nobody answers on shim.sock: the shim is dead, or not there yet."""


def launch_document(
    *,
    directory: str,
    log_directory: str,
    command: Command,
    control_group: list[str],
    system: System,
    limits: Limits,
    slirp: list[str],
    forward: tuple[int, str],
    preamble: list[str],
) -> dict[str, Any]:
    """What shim.launch.Launch is made of, but for the descriptors. `forward`: port inside, and the server's address file."""
    resources = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 65_536}
    if system.mode is Mode.ROOT:  # counted by user id: only where every instance has its own
        resources["RLIMIT_NPROC"] = limits.pids
    return {
        "directory": directory,
        "log_directory": log_directory,
        "argv": list(command.argv),
        "environment": dict(command.environment),
        "memory_files": {str(fd): content for fd, content in command.memory_files.items()},
        "info_fd": command.info_fd,
        "working_directory": command.working_directory,
        "control_group": control_group,
        "resource_limits": resources,
        "slirp": slirp,
        "forward_port": forward[0],
        "forward_address_file": forward[1],
        "preamble": preamble,
    }


def spawn(document: Mapping[str, Any], *, lock_fd: int) -> dict[str, Any]:
    """Start a shim, return who it is once its child runs. It outlives this process. Blocking; raises DriverError with
    nothing left but a shim that may still be on its way (the caller kills by directory).
    """
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    launch_fd = os.memfd_create("mooring-shim", os.MFD_CLOEXEC)
    try:
        content = json.dumps({**document, "ready_fd": ready_write, "lock_fd": lock_fd}).encode()
        view = memoryview(content)
        while view:
            view = view[os.write(launch_fd, view) :]
        os.lseek(launch_fd, 0, os.SEEK_SET)
        argv = [sys.executable, "-I", "-S", _SHIM, str(launch_fd), document["directory"]]
        starter = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath},
            pass_fds=(ready_write, launch_fd, lock_fd),
            cwd="/",
        )
        os.close(ready_write)
        ready_write = -1
        answer = _read_line(ready_read, _READY_TIMEOUT_S)
        return _judge(starter, answer)
    except OSError as error:
        raise DriverError(f"the instance's shim could not be started: {error}", retryable=True) from error
    finally:
        for fd in (ready_read, ready_write, launch_fd):
            if fd >= 0:
                os.close(fd)


def _judge(starter: "subprocess.Popen[bytes]", answer: bytes) -> dict[str, Any]:
    said = b""
    try:
        _, said = starter.communicate(timeout=_READY_TIMEOUT_S)  # it ends at once: the shim is its child
    except subprocess.TimeoutExpired:
        starter.kill()
        starter.communicate()
    value = json.loads(answer) if answer.endswith(b"\n") else {}
    if "pid" in value:
        return dict(value)
    cause = value.get("error") or said.decode("utf-8", "replace").strip()[-500:] or "no answer"
    raise DriverError(f"the instance could not be started: {cause}", retryable=True)


def _read_line(fd: int, timeout_s: float) -> bytes:
    """Until LF, end or time-out."""
    end_s = time.monotonic() + timeout_s
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    received = b""
    while not received.endswith(b"\n") and (left_s := end_s - time.monotonic()) > 0 and poll.poll(left_s * 1000):
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            break
        received += chunk
    return received


async def ask(directory: str, command: Mapping[str, object], *, timeout_s: float | None) -> dict[str, Any]:
    """One command, one answer. Raises ShimGone; TimeoutError when `timeout_s` is over."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await _connect(os.path.join(directory, names.SOCKET))
        try:
            writer.write(json.dumps(command).encode() + b"\n")
            await writer.drain()
            line = await reader.readline()
        except (OSError, ValueError) as error:
            raise ShimGone(str(error)) from error
        finally:
            writer.close()
    if not line.endswith(b"\n"):
        raise ShimGone("closed without an answer")
    return dict(json.loads(line))


async def _connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        with contextlib.closing(unixpath.SocketPath(path)) as socket_path:
            return await asyncio.open_unix_connection(socket_path.address, limit=names.MAX_ANSWER_BYTES)
    except OSError as error:
        raise ShimGone(str(error)) from error
