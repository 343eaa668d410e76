"""The gateway against nginx, in the same run: requests per second, latency, CPU per request of the proxy.

    wrk ─▶ proxy (edge workers | nginx) ─▶ backend (C, or nginx where there is no compiler)

Arrangement P: one proxy process alone on core 0, backend and wrk on core 1. Arrangement U2: as many proxy processes as
cores, nothing pinned. Both proxies get the same freshly signed requests, at least 1000 distinct ones per round; ours checks
each signature, nginx passes it on. Rounds are interleaved; only ratios within one run mean anything.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mooring.domain import channel, routing
from mooring.protocol import sigv4

HERE = Path(__file__).parent
RESULTS = HERE / "results"
REGION, ACCOUNT = "us-east-1", "000000000000"
KEY = routing.Credential(
    access_key="AKIDBENCH", secret_key="bench", account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:root"
)
DISTINCT = 1024
TICKS = os.sysconf("SC_CLK_TCK")

LUA = """
local file = assert(io.open(os.getenv("BENCH_REQUESTS"), "rb"))
local text = file:read("*a")
file:close()
local requests, at = {}, 1
while at <= #text do
  local a, b, c, d = text:byte(at, at + 3)
  local length = ((a * 256 + b) * 256 + c) * 256 + d
  requests[#requests + 1] = text:sub(at + 4, at + 3 + length)
  at = at + 4 + length
end
local next = 0
request = function()
  next = next % #requests + 1
  return requests[next]
end
done = function(summary, latency, _)
  local e = summary.errors
  io.write(string.format("BENCH %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
end
"""

NGINX = """
worker_processes {workers};
daemon off;
{user}
error_log {directory}/error.log;
pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 300s;
  client_max_body_size 64m; client_body_buffer_size 1m; default_type application/json;
  client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  upstream backend {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""

NGINX_BACKEND = """
worker_processes 1;
daemon off;
{user}
error_log {directory}/error.log;
pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 300s;
  client_max_body_size 64m; client_body_buffer_size 1m; default_type application/json;
  client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{ listen 127.0.0.1:{port}; listen unix:{path}; return 200 '{{"predictions":[0.12345678]}}'; }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    name: str
    workers: int
    connections: int
    body_bytes: int
    pinned: bool

    @property
    def label(self) -> str:
        size = f"{self.body_bytes // 1000} kB" if self.body_bytes >= 1000 else f"{self.body_bytes} B"
        return f"{self.name}, {self.connections} connections, {size}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us_per_request: float
    rss_mb: float
    errors: int


@dataclass(slots=True, kw_only=True)
class System:
    name: str
    port: int
    pids: list[int] = field(default_factory=list)


# what runs -------------------------------------------------------------------------------------------------------------
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(core: int | None, command: Sequence[str]) -> list[str]:
    return list(command) if core is None else ["taskset", "-c", str(core), *command]


def wait_port(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > end:
            raise TimeoutError(f"nothing listens on port {port}")
        time.sleep(0.02)


@contextlib.contextmanager
def process(command: Sequence[str], **kwargs: object) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(command, **kwargs)  # type: ignore[call-overload]
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def user_line() -> str:
    return "user root;" if os.geteuid() == 0 else ""


@contextlib.contextmanager
def backend(directory: Path, core: int | None) -> Iterator[tuple[str, int, Path]]:
    """(what it is, its port, its Unix socket)."""
    port, path = free_port(), directory / "backend.sock"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is not None:
        binary = directory / "backend"
        subprocess.run([compiler, "-O2", "-o", str(binary), str(HERE / "backend.c")], check=True)
        command, kind = [str(binary), str(port), str(path)], "C, epoll"
    else:
        home = directory / "backend"
        home.mkdir()
        text = NGINX_BACKEND.format(user=user_line(), directory=home, port=port, path=path)
        (home / "nginx.conf").write_text(text)
        command, kind = ["nginx", "-c", str(home / "nginx.conf"), "-p", str(home)], "nginx return 200"
    with process(pinned(core, command)):
        wait_port(port)
        yield kind, port, path


@contextlib.contextmanager
def nginx(directory: Path, name: str, upstream: str, workers: int, core: int | None) -> Iterator[System]:
    home = directory / name.replace(" ", "-")
    home.mkdir(parents=True)
    port = free_port()
    text = NGINX.format(workers=workers, user=user_line(), directory=home, upstream=upstream, port=port)
    (home / "nginx.conf").write_text(text)
    with process(pinned(core, ["nginx", "-c", str(home / "nginx.conf"), "-p", str(home)])) as master:
        wait_port(port)
        children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        yield System(name=name, port=port, pids=[int(pid) for pid in children])


class Control:
    """The other end of the route channel: one table, for every worker that asks."""

    def __init__(self, path: Path, table: routing.RouteTable) -> None:
        payload = msgspec.json.encode(table)
        self._frame = struct.pack(">I", len(payload)) + payload
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._peers: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            (length,) = struct.unpack(">I", peer.recv(4, socket.MSG_WAITALL))
            msgspec.json.decode(peer.recv(length, socket.MSG_WAITALL), type=channel.Hello)
            peer.sendall(self._frame)
            self._peers.append(peer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self._peers):
            one.close()


@contextlib.contextmanager
def mooring(directory: Path, name: str, address: str, workers: int, core: int | None) -> Iterator[System]:
    from mooring.kit import counters

    home = directory / name
    home.mkdir(parents=True)
    instance = routing.InstanceRoute(instance_id="i-0", slot=0, address=address)
    variant = routing.VariantRoute(name="AllTraffic", slot=0, weight=1.0, instances=(instance,))
    endpoint = routing.EndpointRoute(account=ACCOUNT, region=REGION, name="bench", variants=(variant,))
    control = Control(
        home / "routes.sock", routing.RouteTable(generation=1, endpoints=(endpoint,), credentials=(KEY,), serving=True)
    )
    shared = counters.create(counters.Layout(workers=workers))
    port = free_port()
    with contextlib.ExitStack() as stack:
        pids = []
        for index in range(workers):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(1024)
            command = [sys.executable, "-m", "bench.gateway", "--worker", str(index)]
            command += [str(workers), str(listener.fileno()), str(shared), str(home)]
            child = stack.enter_context(process(pinned(core, command), pass_fds=[listener.fileno(), shared]))
            pids.append(child.pid)
        yield System(name=name, port=port, pids=pids)
    control.close()
    os.close(shared)


def work(index: int, workers: int, listen_fd: int, counters_fd: int, home: str) -> None:
    """What one of our proxy processes is: the product's own worker."""
    import uvloop

    from mooring.edge import worker
    from mooring.kit import counters

    async def serve() -> None:
        await worker.run(
            listen_fd=listen_fd,
            worker=index,
            counters=counters.Counters(counters_fd, counters.Layout(workers=workers)),
            control_socket=f"{home}/control.sock",
            s3_socket=f"{home}/s3.sock",
            routes_socket=f"{home}/routes.sock",
            region=REGION,
            drain_s=1.0,
        )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if profile := os.environ.get("BENCH_PROFILE"):
            import cProfile

            cProfile.runctx("runner.run(serve())", globals(), {"runner": runner, "serve": serve}, f"{profile}.{index}")
        else:
            runner.run(serve())


# what is measured ------------------------------------------------------------------------------------------------------
def sign_requests(path: Path, body_bytes: int, count: int) -> None:
    """`count` distinct signed requests, each behind its length."""
    now_s = time.time()
    with path.open("wb") as out:
        for index in range(count):
            body = (b'{"instances":[%d],"pad":"' % index).ljust(body_bytes - 2, b"x") + b'"}'
            head = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
            signed = sigv4.sign(
                method=b"POST",
                path=b"/endpoints/bench/invocations",
                query=b"",
                headers=head,
                payload_sha256=hashlib.sha256(body).hexdigest(),
                access_key=KEY.access_key,
                secret_key=KEY.secret_key,
                region=REGION,
                service="sagemaker",
                now_s=now_s,
            )
            extra = [(b"user-agent", b"bench"), (b"content-length", b"%d" % len(body))]
            lines = b"".join(b"%b: %b\r\n" % one for one in [*head, *signed, *extra])
            request = b"POST /endpoints/bench/invocations HTTP/1.1\r\n" + lines + b"\r\n" + body
            out.write(struct.pack(">I", len(request)) + request)


def cpu_s(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def rss_mb(pids: Sequence[int]) -> float:
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * page / 1e6


def steal_and_foreign() -> tuple[int, int]:
    """(steal ticks, all ticks but idle) of the machine."""
    values = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return values[7], sum(values) - values[3] - values[4]


def load(
    system: System, arrangement: Arrangement, script: Path, requests: Path, seconds: int, core: int | None
) -> Round:
    command = ["wrk", "-t1", f"-c{arrangement.connections}", f"-d{seconds}s", "-s", str(script)]
    command.append(f"http://127.0.0.1:{system.port}")
    before = cpu_s(system.pids)
    done = subprocess.run(
        pinned(core, command),
        env={**os.environ, "BENCH_REQUESTS": str(requests)},
        capture_output=True,
        text=True,
        check=True,
    )
    spent = cpu_s(system.pids) - before
    match = re.search(r"BENCH (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if match is None:
        raise RuntimeError(f"wrk said: {done.stdout}{done.stderr}")
    count, duration_us, p50, p99, status, broken = map(int, match.groups())
    return Round(
        requests_per_s=count / (duration_us / 1e6),
        p50_us=p50,
        p99_us=p99,
        cpu_us_per_request=spent * 1e6 / max(count, 1),
        rss_mb=rss_mb(system.pids),
        errors=status + broken,
    )


def measure(arrangement: Arrangement, rounds: int, seconds: int, directory: Path) -> dict[str, object]:
    proxy_core, other_core = (0, 1) if arrangement.pinned else (None, None)
    script, requests = directory / "load.lua", directory / "requests"
    script.write_text(LUA)
    seen: dict[str, list[Round]] = {}
    disturbed = []
    with contextlib.ExitStack() as stack:
        kind, port, path = stack.enter_context(backend(directory, other_core))
        workers = arrangement.workers
        systems = [
            stack.enter_context(nginx(directory, "nginx", f"127.0.0.1:{port}", workers, proxy_core)),
            stack.enter_context(nginx(directory, "nginx unix", f"unix:{path}", workers, proxy_core)),
            stack.enter_context(mooring(directory, "mooring", f"unix:{path}", workers, proxy_core)),
        ]
        for system in systems:
            wait_port(system.port)
        for number in range(rounds + 1):  # the first warms up
            sign_requests(requests, arrangement.body_bytes, DISTINCT if arrangement.body_bytes < 10_000 else 1000)
            for system in systems:
                steal = steal_and_foreign()[0]
                got = load(system, arrangement, script, requests, seconds if number else 1, other_core)
                if got.errors:
                    raise RuntimeError(f"{system.name}: {got.errors} requests failed in {arrangement.label}, {got}")
                if number:
                    seen.setdefault(system.name, []).append(got)
                    if steal_and_foreign()[0] - steal > seconds * TICKS // 100:
                        disturbed.append(f"{system.name}, round {number}")
    return {
        "arrangement": arrangement.label,
        "backend": kind,
        "systems": summary(seen),
        "disturbed_by_steal": disturbed,
    }


def summary(seen: dict[str, list[Round]]) -> dict[str, dict[str, object]]:
    base = statistics.median(one.requests_per_s for one in seen["nginx"])
    table: dict[str, dict[str, object]] = {}
    for name, rounds in seen.items():
        rates = [one.requests_per_s for one in rounds]
        table[name] = {
            "requests_per_s": round(statistics.median(rates)),
            "requests_per_s_range": [round(min(rates)), round(max(rates))],
            "ratio_to_nginx": round(statistics.median(rates) / base, 3),
            "p50_us": round(statistics.median(one.p50_us for one in rounds)),
            "p99_us": round(statistics.median(one.p99_us for one in rounds)),
            "cpu_us_per_request": round(statistics.median(one.cpu_us_per_request for one in rounds), 1),
            "rss_mb": round(max(one.rss_mb for one in rounds), 1),
            "rounds": len(rounds),
        }
    return table


def show(result: dict[str, object]) -> None:
    print(f"\n{result['arrangement']}  (backend: {result['backend']})")
    heads = f"{'× nginx':>9}{'p50 µs':>9}{'p99 µs':>9}{'CPU µs/req':>12}{'RSS MB':>8}"
    print(f"  {'system':<12}{'req/s':>9}  {'min–max':>15}{heads}")
    systems = result["systems"]
    assert isinstance(systems, dict)
    for name, row in systems.items():
        low, high = row["requests_per_s_range"]
        spread = f"{low}–{high}"
        print(
            f"  {name:<12}{row['requests_per_s']:>9}  {spread:>15}{row['ratio_to_nginx']:>9}{row['p50_us']:>9}"
            f"{row['p99_us']:>9}{row['cpu_us_per_request']:>12}{row['rss_mb']:>8}"
        )
    if result["disturbed_by_steal"]:
        print(f"  disturbed by the host: {', '.join(map(str, result['disturbed_by_steal']))}")


def machine() -> dict[str, object]:
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {"cpu": model[1] if model else platform.processor(), "cores": os.cpu_count(), "kernel": platform.release()}


def versions() -> dict[str, str]:
    import httptools
    import uvloop

    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True)
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split("\n", 1)[0]
    found = {
        "nginx": said.stderr.strip().rpartition("/")[2],
        "wrk": wrk.split(" [")[0],
        "python": platform.python_version(),
    }
    return {**found, "uvloop": uvloop.__version__, "httptools": httptools.__version__}


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--worker"]:
        work(int(arguments[1]), int(arguments[2]), int(arguments[3]), int(arguments[4]), arguments[5])
        return 0
    parser = argparse.ArgumentParser(prog="python -m bench gateway", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", help="arrangements whose label contains this")
    options = parser.parse_args(arguments)
    missing = [tool for tool in ("wrk", "nginx", "taskset") if shutil.which(tool) is None]
    if missing:
        print(f"gateway: skipped, not installed: {', '.join(missing)}")
        return 0
    cores = os.cpu_count() or 1
    arrangements = [
        Arrangement(name="P", workers=1, connections=16, body_bytes=1000, pinned=cores > 1),
        Arrangement(name="P", workers=1, connections=64, body_bytes=1000, pinned=cores > 1),
        Arrangement(name="P", workers=1, connections=16, body_bytes=100_000, pinned=cores > 1),
        Arrangement(name=f"U{cores}", workers=cores, connections=64, body_bytes=1000, pinned=False),
        Arrangement(name=f"U{cores}", workers=cores, connections=64, body_bytes=100_000, pinned=False),
    ]
    results = []
    for arrangement in arrangements:
        if options.only and options.only not in arrangement.label:
            continue
        with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
            results.append(measure(arrangement, options.rounds, options.seconds, Path(directory)))
        show(results[-1])
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine(), "versions": versions(), "seconds": options.seconds, "results": results}
    path = RESULTS / "gateway.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(f"\nwritten to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
