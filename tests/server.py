"""A real `mooring serve` for tests: started on a free port and a fresh directory, asked with boto3, killed, started again,
and checked to have left nothing behind.

    with Server.started(tmp_path / "data") as server:
        server.client("sagemaker").list_models()

See the fixtures `server` (one per test process, shared) and `own_server` (a factory, for what breaks things) in conftest.py.
"""

import configparser
import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 45.0
REGION = "us-east-1"
ACCOUNT = "000000000000"
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/MooringExecutionRole"


def wait_until(true: Callable[[], Any], *, what: str, timeout_s: float = 30.0, every_s: float = 0.02) -> Any:
    """The first truthy value of `true()`. Fails with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = true()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(every_s)


def is_foreign(name: str) -> bool:
    """Settings of this machine's environment that must not decide what tests see; `make test-effects`' switch may."""
    return name.startswith(("AWS_", "MOORING_", "BOTO_")) and name != "MOORING_TEST_DROP_MEMBER"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be taken for another: pids are used again, start times are not."""

    pid: int
    start_ticks: int
    command: str

    def is_alive(self) -> bool:
        now = read_process(self.pid)
        return now is not None and now.start_ticks == self.start_ticks


def read_process(pid: int) -> Process | None:
    """None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Process(pid, int(fields[19]), command)


def is_shim(process: Process) -> bool:
    """Whether it is the shim of an instance, and not the process beside it that keeps its network."""
    if "/mooring/shim/__main__.py" not in process.command:
        return False
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process.pid}/comm").read_text().strip() != "mooring-network"
    return False


def all_processes() -> list[tuple[Process, int]]:
    """Every process with its parent."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := read_process(int(entry))) is not None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                found.append((process, int(stat.rpartition(")")[2].split()[1])))
    return found


@dataclass
class Server:
    """One data directory and the server on it. Not started by the constructor."""

    data_dir: Path
    env: Mapping[str, str] = field(default_factory=dict)  # MOORING_… overrides
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    start_s: float = 0.0  # from exec to health 200

    @classmethod
    @contextlib.contextmanager
    def started(cls, data_dir: Path, **options: Any) -> Iterator["Server"]:
        """Start, and at the end stop and check that nothing is left."""
        server = cls(data_dir, **options)
        try:
            server.start()
            yield server
        finally:
            server.close()

    # life -------------------------------------------------------------------------------------------------------------
    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the command without waiting for anything."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not is_foreign(name)}
        arguments = ("serve", "--port", str(self.port), "--data-dir", str(self.data_dir), *self.arguments)
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [str(Path(sys.executable).parent / "mooring"), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=inherited | dict(self.env),
                start_new_session=True,
            )

    def start(self) -> None:
        """Start and wait for health. A second start uses the port of the first."""
        assert self.process is None, "it is running"
        began = time.monotonic()
        self.process = self.spawn()
        try:
            wait_until(self._is_up, what="the server answers its health check", timeout_s=START_TIMEOUT_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-8000:]}") from None
        self.start_s = time.monotonic() - began

    def _is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with status {self.process.returncode}")
        if not self.port:
            try:
                self.port = int((self.data_dir / "run" / "port").read_text())
            except (FileNotFoundError, ValueError):
                return False
        return self.health() == 200

    def stop(self, *, number: int = signal.SIGTERM) -> int:
        """Ask it to end; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Stop in peace and start again on the same directory and port."""
        assert self.stop() == 0
        self.start()

    def kill(self, name: str = "supervisor") -> Process:
        """SIGKILL to the process of that name (see `processes`); returns what was killed."""
        victim = self.processes()[name]
        os.kill(victim.pid, signal.SIGKILL)
        if name == "supervisor" and self.process is not None:
            self.process.wait()
            self.process = None
        return victim

    def close(self) -> None:
        """Stop what runs, in peace when it can, and check that nothing is left."""
        before = self.own_processes()
        status = self.stop() if self.process is not None else 0
        left = [process for process in before if process.is_alive()]
        if left and status == 0 and self.process is None:
            with contextlib.suppress(AssertionError):  # the supervisor may have been killed by the test: moments only
                wait_until(lambda: not any(process.is_alive() for process in left), what="gone", timeout_s=5)
            left = [process for process in left if process.is_alive()]
        groups = self.control_groups()
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        tail = self.log()[-6000:]
        assert status == 0, f"the server ended with status {status}\n{tail}"
        assert not left, f"processes are left: {left}\n{tail}"
        assert not groups, f"control groups are left: {groups}\n{tail}"
        assert not list(self.data_dir.glob("run/*.sock")), "socket files are left"

    # what there is ----------------------------------------------------------------------------------------------------
    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        return self.data_dir.with_name(self.data_dir.name + ".log")

    def log(self) -> str:
        """Everything it printed, over all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def processes(self) -> dict[str, Process]:
        """The server's own processes by name: supervisor, control, s3, edge-0 …"""
        assert self.process is not None
        supervisor = read_process(self.process.pid)
        assert supervisor is not None
        found = {"supervisor": supervisor}
        edges: list[Process] = []
        for process, parent in all_processes():
            if parent != self.process.pid:
                continue
            kind = process.command.rsplit(" ", 1)[-1]
            if kind == "edge":
                edges.append(process)
            elif kind in ("control", "s3"):
                found[kind] = process
        found.update({f"edge-{index}": edge for index, edge in enumerate(sorted(edges, key=lambda each: each.pid))})
        return found

    def own_processes(self) -> list[Process]:
        """Everything that belongs to this data directory: server processes, shims, instances."""
        marks = (str(self.data_dir.absolute()), f"mooring-{self.data_id()}" if self.data_id() else "\0")
        everything = all_processes()
        own = {process.pid for process, _ in everything if any(mark in process.command for mark in marks)}
        if self.process is not None:
            own.add(self.process.pid)
        while True:  # and their descendants
            more = {process.pid for process, parent in everything if parent in own} - own
            if not more:
                return [process for process, _ in everything if process.pid in own and process.pid != os.getpid()]
            own |= more

    def data_id(self) -> str:
        """Names this directory's control groups."""
        path = self.data_dir / "id"
        return path.read_text().strip() if path.exists() else ""

    def control_groups(self) -> list[str]:
        """Control groups of this directory's instances that exist."""
        wanted = self.data_id()
        if not wanted:
            return []
        found = []
        for directory, names, _ in os.walk("/sys/fs/cgroup"):
            here = [os.path.join(directory, name) for name in names if wanted in name]
            found += [group for group in here if any(entry.is_dir() for entry in Path(group).iterdir())]
            names[:] = [name for name in names if wanted not in name]
        return found

    # asking -----------------------------------------------------------------------------------------------------------
    def get(self, path: str, *, timeout_s: float = 10.0) -> tuple[int, bytes]:
        """GET without credentials: (status, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def health(self) -> int:
        """Status of the health check; 0 when nothing answers."""
        try:
            return self.get("/_mooring/health")[0]
        except (OSError, http.client.HTTPException):
            return 0

    def keys(self) -> tuple[str, str]:
        """(access key, secret key) of root."""
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(self.data_dir / "credentials")
        section = parser["default"]
        return section["aws_access_key_id"], section["aws_secret_access_key"]

    def client(self, service: str, *, attempts: int = 1, timeout_s: float = 70.0, **config: Any) -> Any:
        """A boto3 client with the root key. `attempts` in all, 1: no retry hides anything."""
        access_key, secret_key = self.keys()
        return boto3.session.Session(
            aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name=REGION
        ).client(
            service,
            endpoint_url=self.url,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": attempts},
                connect_timeout=5,
                read_timeout=timeout_s,
                **config,
            ),
        )

    def environment(self) -> dict[str, str]:
        """What a user's shell would export."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_SHARED_CREDENTIALS_FILE": str(self.data_dir.absolute() / "credentials"),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def wait_status(self, endpoint: str, wanted: str = "InService", *, timeout_s: float = 60.0) -> dict[str, Any]:
        """DescribeEndpoint once it has that status; fails at once when it is Failed instead, telling why."""
        sagemaker = self.client("sagemaker")

        def look() -> dict[str, Any] | None:
            described: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=endpoint)
            status = described["EndpointStatus"]
            if status == "Failed" and wanted != "Failed":
                raise AssertionError(f"{endpoint} failed: {described.get('FailureReason')}\n{self.log()[-4000:]}")
            return described if status == wanted else None

        found: dict[str, Any] = wait_until(
            look, what=f"{endpoint} is {wanted}\n{self.log()[-4000:]}", timeout_s=timeout_s
        )
        return found

    def metrics(self) -> dict[str, float]:
        """Samples of /_mooring/metrics by series."""
        status, text = self.get("/_mooring/metrics")
        assert status == 200, text
        lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
        return {re.sub(r" \S+$", "", line): float(line.rsplit(" ", 1)[1]) for line in lines}
