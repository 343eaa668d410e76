"""An instance's way out: a process beside the shim that stays in the host's network.

    shim ──fork──▶ network process ──fork──▶ helper, in the instance's network: waits for its loopback, refuses link-local
      │ ◀─lines──┘   │  ▲                           addresses, listens on the forwarder's port, hands that socket back, ends
      │              │  └─ relays what comes over that socket to the server (shim.forward)
      │              └──fork──▶ slirp4netns: the rest of the network; started again, with pauses, when it ends
      └── its death closes their channel: the network process ends, and slirp4netns by its exit descriptor

The shim cannot do this itself: it enters the instance's network for good when it dials. All of it is in the instance's
control group, so that the model pays for its traffic, and nothing the model does waits for it.
"""

import os
import signal
import socket
import struct
import time
from dataclasses import dataclass

from mooring.kit import control_groups, namespaces
from mooring.shim.forward import Forwarder
from mooring.shim.launch import Launch
from mooring.shim.poller import READ, Poller

NAME = "mooring-network"  # in /proc/<pid>/comm; its command line is the shim's

_LOOPBACK_UP_S = 10.0
_PAUSE_S = 1.0  # before slirp4netns is started again, doubled while that does not help
_PAUSE_MAX_S = 60.0
_STEADY_S = 60.0  # one that lived as long did help
_LAST_WORDS_BYTES = 300

_RTM_NEWROUTE = 24
_NLMSG_ERROR = 2
_REQUEST_ACK_CREATE = 0x1 | 0x4 | 0x400
_RTA_DST = 1
_LINK_LOCAL = (socket.inet_aton("169.254.0.0"), 16)


@dataclass(frozen=True)
class Beside:
    """The network process, as the shim has it: its id is also its process group. `channel`: lines for the log, then EOF."""

    pid: int
    channel: socket.socket


def start(launch: Launch, init_pid: int) -> Beside | None:
    """None when the launch document asks for nothing. Raises OSError when the sandbox is gone already."""
    if not launch.slirp and not launch.forward_port:
        return None
    network = namespaces.open_network(init_pid)
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork()
        if pid == 0:
            _live(launch, network, theirs)
        ours.setblocking(False)
        return Beside(pid=pid, channel=ours)
    except BaseException:
        ours.close()
        raise
    finally:
        os.close(network)
        theirs.close()


def end(beside: Beside) -> None:
    """Kill it and what it started, and reap it."""
    for kill in (os.killpg, os.kill):  # its group is there a moment after itself
        try:
            kill(beside.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os.waitpid(beside.pid, 0)
    beside.channel.close()


# in the network process -----------------------------------------------------------------------------------------------
def _live(launch: Launch, network: int, channel: socket.socket) -> None:
    """Never returns."""
    try:
        os.setpgid(0, 0)
        with open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write(NAME)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _close_all_but(network, channel.fileno())  # above all the shim's lock
        left_out = control_groups.join(launch.control_group)
        if left_out:
            _say(channel, f"the network process is not in the container's control group: {'; '.join(left_out)}")
        _Network(launch, network, channel).run()
    except BaseException as error:  # process edge: the shim's log says it
        _say(channel, f"the network failed: {type(error).__name__}: {error}")
    finally:
        os._exit(1)


def _close_all_but(*kept: int) -> None:
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _say(channel: socket.socket, text: str) -> None:
    try:
        channel.send(text.replace("\n", " ").encode("utf-8", "replace") + b"\n", socket.MSG_DONTWAIT)
    except OSError:  # the shim is gone, or swamped: it is only a line for the log
        return


class _Network:
    def __init__(self, launch: Launch, network: int, channel: socket.socket) -> None:
        self._launch = launch
        self._network = network
        self._user = namespaces.owner(network)
        self._channel = channel
        self._poller = Poller()
        self._slirp = 0  # its process, 0: none
        self._exit_fd = -1  # its death when this is closed
        self._said = b""
        self._output = -1
        self._start_at_s = float("inf")  # monotonic
        self._started_s = 0.0
        self._pause_s = _PAUSE_S

    def run(self) -> None:
        """Until the shim is gone."""
        self._poller.watch(self._channel.fileno(), READ, lambda _: os._exit(0))  # the shim says nothing: it has ended
        listener, problem = _prepare(self._network, self._launch.forward_port, refuse=bool(self._launch.slirp))
        if problem:
            _say(self._channel, problem)
        if listener is not None:
            Forwarder(self._poller, listener, self._launch.forward_address_file)
        if self._launch.slirp and (listener is not None or not problem):
            self._start_at_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            if now_s >= self._start_at_s:
                self._start_slirp(now_s)
            self._poller.turn(min(3600.0, self._start_at_s - now_s))

    # slirp4netns ---------------------------------------------------------------------------------------------------
    def _start_slirp(self, now_s: float) -> None:
        exit_read, self._exit_fd = os.pipe2(os.O_CLOEXEC)
        self._output, output_write = os.pipe2(os.O_CLOEXEC)
        self._slirp = os.fork()
        if self._slirp == 0:
            self._execute(exit_read, output_write)
        os.close(exit_read)
        os.close(output_write)
        self._start_at_s, self._started_s, self._said = float("inf"), now_s, b""
        self._poller.watch(self._output, READ, self._read_output)

    def _execute(self, exit_read: int, output: int) -> None:
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for fd in (1, 2):
                os.dup2(output, fd)
            for fd in (exit_read, self._network, self._user):
                if fd >= 0:
                    os.set_inheritable(fd, True)
            argv = namespaces.plan_attach(self._launch.slirp, network=self._network, user=self._user, exit_fd=exit_read)
            os.execve(argv[0], argv, {"PATH": os.defpath})  # noqa: S606
        except BaseException as error:  # this process has nobody above it: it reports and ends
            os.write(output, str(error).encode("utf-8", "replace"))
        finally:
            os._exit(127)

    def _read_output(self, _: int) -> None:
        chunk = os.read(self._output, 4096)
        self._said = (self._said + chunk)[-_LAST_WORDS_BYTES:]
        if chunk:
            return
        self._poller.unwatch(self._output)
        os.close(self._output)
        os.close(self._exit_fd)
        _, status = os.waitpid(self._slirp, 0)
        self._slirp = 0
        now_s = time.monotonic()
        pause_s = _PAUSE_S if now_s - self._started_s >= _STEADY_S else self._pause_s
        self._start_at_s, self._pause_s = now_s + pause_s, min(pause_s * 2, _PAUSE_MAX_S)
        code = os.waitstatus_to_exitcode(status)
        words = self._said.decode("utf-8", "replace").strip().splitlines()[-1:] if code > 0 else []
        _say(
            self._channel,
            f"slirp4netns ended ({': '.join([str(code), *words])}); "
            f"there is no network beyond the server until it starts again in {pause_s:g} s",
        )


# inside the instance's network ----------------------------------------------------------------------------------------
def _prepare(network: int, port: int, *, refuse: bool) -> tuple[socket.socket | None, str]:
    """What is to be done inside, by a process that ends there: (the listening socket where a port is asked for, problem).

    `refuse`: link-local addresses lead nowhere. They would lead to the host's cloud, which gives its machines credentials.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _inside(network, port, theirs, refuse=refuse)
    theirs.close()
    try:
        said, descriptors, _, _ = socket.recv_fds(ours, 4096, 1)
    finally:
        os.waitpid(pid, 0)
        ours.close()
    if said == b"ok":
        return (socket.socket(fileno=descriptors[0]) if descriptors else None), ""
    for fd in descriptors:
        os.close(fd)
    return None, "the container has no network: " + (said.decode("utf-8", "replace") or "its preparation was killed")


def _inside(network: int, port: int, answer: socket.socket, *, refuse: bool) -> None:
    """Never returns."""
    try:
        namespaces.enter_network(network)
        _await_loopback()
        if refuse:
            _refuse(*_LINK_LOCAL)
        if port:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
                listener.bind(("127.0.0.1", port))
                listener.listen(128)
                socket.send_fds(answer, [b"ok"], [listener.fileno()])
        else:
            answer.send(b"ok")
    except BaseException as error:  # this process has nobody above it: it reports and ends
        answer.send(f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:4096])
    finally:
        os._exit(0)


def _await_loopback() -> None:
    """bwrap gives the loopback its address, and fails if somebody else (slirp4netns would) has done so before."""
    end_s = time.monotonic() + _LOOPBACK_UP_S
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
            try:
                trial.bind(("127.0.0.1", 0))
                return
            except OSError:
                if time.monotonic() > end_s:
                    raise
        time.sleep(0.001)


def _refuse(address: bytes, bits: int) -> None:
    """A route that answers `unreachable` (rtnetlink(7)). Raises OSError."""
    table_main, protocol_static, type_unreachable = 254, 4, 7
    route = struct.pack("=8BI", socket.AF_INET, bits, 0, 0, table_main, protocol_static, 0, type_unreachable, 0)
    body = route + struct.pack("=HH4s", 8, _RTA_DST, address)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.sendto(struct.pack("=IHHII", 16 + len(body), _RTM_NEWROUTE, _REQUEST_ACK_CREATE, 1, 0) + body, (0, 0))
        said = netlink.recv(4096)
    kind, number = struct.unpack("=4xH10xi", said[:20])
    if kind == _NLMSG_ERROR and number:
        raise OSError(-number, os.strerror(-number))
