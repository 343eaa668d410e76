"""The sandboxed process: start it in its control group, signal it, kill everything of it."""

import fcntl
import os
import resource
import signal
from dataclasses import dataclass

from mooring.kit import control_groups
from mooring.shim.launch import Launch

_ABOVE_ALL = 64  # no descriptor number of a launch document is as high


@dataclass
class Child:
    """A started child. `output`: read end of its stdout and stderr; `info`: read end of bwrap's word on PID 1, or -1."""

    pid: int
    output: int
    info: int
    failures: str  # what could not be set up, for the log


def start(launch: Launch) -> Child:
    """Fork and execute. Raises OSError when it cannot be executed."""
    output_read, output_write = os.pipe2(os.O_CLOEXEC)
    info_read, info_write = os.pipe2(os.O_CLOEXEC)
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _execute(launch, output_write, info_write, error_write)
    for fd in (output_write, info_write, error_write):
        os.close(fd)
    with os.fdopen(error_read, "rb") as file:  # ends when execve has closed the other end
        failures, _, fatal = file.read(1 << 16).decode("utf-8", "replace").partition("\0")
    if fatal:
        os.waitpid(pid, 0)
        raise OSError(f"{launch.argv[0]}: {fatal}")
    os.set_blocking(output_read, False)
    os.set_blocking(info_read, False)
    return Child(pid=pid, output=output_read, info=info_read, failures=failures)


def _execute(launch: Launch, output: int, info: int, error: int) -> None:
    """In the forked child: never returns. Before the NUL on `error`: what was left out; after it: why it cannot run."""
    error = fcntl.fcntl(error, fcntl.F_DUPFD_CLOEXEC, _ABOVE_ALL)
    try:
        os.setsid()
        left_out = control_groups.join(launch.control_group)
        for name, value in launch.resource_limits.items():
            number = getattr(resource, name)
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            try:
                resource.setrlimit(number, (value, value))
            except (ValueError, OSError) as failure:
                left_out.append(f"{name}: {failure}")
        if left_out:
            os.write(error, "; ".join(left_out).encode())
        _place_descriptors(launch, output, info)
        os.chdir(launch.working_directory)
        os.umask(0o022)
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.execve(launch.argv[0], launch.argv, launch.environment)  # noqa: S606
    except BaseException as failure:  # this process has nobody above it: it reports and ends
        os.write(error, b"\0" + str(failure).encode("utf-8", "replace"))
    finally:
        os._exit(127)


def _place_descriptors(launch: Launch, output: int, info: int) -> None:
    """Put everything at its number. Sources are first moved out of the way of the targets."""
    sources = {1: output, 2: output, 0: os.open("/dev/null", os.O_RDONLY)}
    if launch.info_fd >= 0:
        sources[launch.info_fd] = info
    for number, content in launch.memory_files.items():
        fd = os.memfd_create("mooring", os.MFD_CLOEXEC)
        view = memoryview(content.encode("utf-8", "surrogateescape"))
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        sources[int(number)] = fd
    above = max(sources) + 1
    moved = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for target, fd in sources.items()}
    for target, fd in moved.items():
        os.dup2(fd, target, inheritable=True)


def terminate(child_pid: int, init_pid: int) -> None:
    """SIGTERM to the model server: the first child of the sandbox's PID 1, or the child itself without a sandbox."""
    if init_pid <= 0:
        _signal(child_pid, signal.SIGTERM)
        return
    for pid in _first_process(init_pid):
        _signal(pid, signal.SIGTERM)


def _first_process(init_pid: int) -> list[int]:
    """The process with id 2 in the sandbox; all of PID 1's children when it cannot be told."""
    try:
        with open(f"/proc/{init_pid}/task/{init_pid}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        return []
    first = [pid for pid in children if _inner_pid(pid) == 2]
    return first or children


def _inner_pid(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return int(line.split()[-1])
    except OSError:
        return 0
    return 0


def kill(child_pid: int, init_pid: int, control_group: list[str], *, deadline_s: float) -> bool:
    """SIGKILL the sandbox's PID 1 (the kernel then kills all in it), the child (not reaped yet) and its control group."""
    if init_pid > 0 and _parent(init_pid) == child_pid:
        _signal(init_pid, signal.SIGKILL)
    _signal(-child_pid, signal.SIGKILL)
    _signal(child_pid, signal.SIGKILL)
    return control_groups.kill(control_group, deadline_s=deadline_s)


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
