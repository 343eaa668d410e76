"""The model server as a process: sockets, workers, signals, failures."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mooring
from mooring import contract
from mooring.runtime.images import SERVER_PYTHONS
from mooring.runtime.interpreters import Interpreters

DEADLINE_S = 30.0
PACKAGE = Path(mooring.__file__).parent


def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S):
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)
    return value


class Server:
    """A started server, its output in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, socket_path: Path) -> None:
        self.process = process
        self.log = log
        self.socket_path = socket_path

    def text(self) -> str:
        return self.log.read_text()

    def port(self) -> int:
        found = until(lambda: re.search(r"http://127\.0\.0\.1:(\d+)", self.text()), "a port in the log")
        return int(found[1])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port(), timeout=DEADLINE_S)

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port()), timeout=DEADLINE_S)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read(), dict(response.getheaders())
        finally:
            connection.close()

    def invoke(self, body: bytes, **headers: str):
        return self.ask("POST", "/invocations", body, {name.replace("_", "-"): v for name, v in headers.items()})

    def wait_healthy(self) -> "Server":
        self.port()
        until(lambda: self.process.poll() is not None or self.ask("GET", "/ping")[0] == 200, "a healthy server")
        assert self.process.poll() is None, self.text()
        return self

    def wait_end(self) -> int:
        return self.process.wait(DEADLINE_S)

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an instance sees of the package: serving and contract alone."""
    root = tmp_path_factory.mktemp("library")
    (root / "mooring").mkdir()
    (root / "mooring/__init__.py").touch()
    for name in ("serving", "contract"):
        shutil.copytree(PACKAGE / name, root / "mooring" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture
def start(tmp_path: Path, library: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(script: str | None = None, *, python: str = sys.executable, **environ: str) -> Server:
        model = tmp_path / f"model{len(servers)}"
        model.mkdir()
        if script is not None:
            (model / "code").mkdir()
            (model / "code/inference.py").write_text(script)
        log = tmp_path / f"log{len(servers)}"
        socket_path = tmp_path / f"server{len(servers)}.sock"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, "-m", "mooring.serving", "serve"],
                env={
                    "PATH": os.defpath,
                    "PYTHONPATH": str(library),
                    contract.ENV_MODEL_DIR: str(model),
                    contract.ENV_SOCKET: str(socket_path),
                    contract.ENV_SERVE_TCP: "1",
                    contract.ENV_BIND_TO_PORT: "0",
                    contract.ENV_WORKERS: "1",
                    **environ,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
            )
        servers.append(Server(process, log, socket_path))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(DEADLINE_S)


ECHO = "def transform_fn(model, data, content_type, accept): return data, accept\n"
# tells when it works, and works until it may go on: files, so that the test and the handler need no clock
GATE = """
import os, time
def transform_fn(model, data, content_type, accept):
    name = data if isinstance(data, str) else data.decode()
    open(name + ".begun", "w").close()
    while not os.path.exists(name + ".go"):
        time.sleep(0.005)
    return name
"""


def test_it_answers_on_its_socket_and_its_port(start):
    server = start(ECHO).wait_healthy()
    status, body, headers = server.invoke(b"a,b", Content_Type="text/csv", Accept="text/csv")
    assert (status, body, headers["Content-Type"]) == (200, b"a,b", "text/csv")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(server.socket_path))
        client.sendall(b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n")


def test_routes_and_methods_are_told_apart(start):
    server = start(ECHO).wait_healthy()
    assert server.ask("GET", "/nothing")[0] == 404
    assert server.ask("GET", "/invocations")[0] == 405
    assert server.ask("POST", "/ping", b"")[0] == 405
    status, body, headers = server.ask("HEAD", "/execution-parameters")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0
    status, body, _ = server.ask("GET", "/execution-parameters")
    assert json.loads(body) == {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}


def test_a_script_gives_its_own_execution_parameters(start):
    server = start(ECHO + "def execution_parameters_fn(): return {'MaxPayloadInMB': 2}\n").wait_healthy()
    status, body, _ = server.ask("GET", "/execution-parameters")
    assert (status, json.loads(body)) == (200, {"MaxPayloadInMB": 2})


def test_it_is_not_healthy_before_the_model_is_loaded(start, tmp_path):
    gate = tmp_path / "loaded"
    server = start(
        f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.005)\n{ECHO}",
    )
    assert server.ask("GET", "/ping")[0] == 503
    assert server.invoke(b"x")[0] == 503
    gate.touch()
    server.wait_healthy()
    assert server.invoke(b"x")[0] == 200


def test_ping_is_answered_while_the_only_worker_computes(start, tmp_path):
    server = start(GATE).wait_healthy()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.invoke, b"one")
        until((tmp_path / "one.begun").exists, "the handler at work")
        assert server.ask("GET", "/ping")[0] == 200
        (tmp_path / "one.go").touch()
        assert call.result(DEADLINE_S)[1] == b"one"


def test_no_request_waits_behind_a_busy_worker_while_another_is_idle(start, tmp_path):
    server = start(GATE, **{contract.ENV_WORKERS: "2"}).wait_healthy()
    for name in ("quick0", "quick1", "quick2", "warm0", "warm1"):
        (tmp_path / f"{name}.go").touch()
    # both workers are there, and connections exist before any of them is busy
    connections = [server.connect() for _ in range(4)]
    for connection in connections:
        connection.request("POST", "/invocations", b"warm0")
        assert connection.getresponse().read() == b"warm0"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.invoke, b"slow")
        until((tmp_path / "slow.begun").exists, "one worker busy")
        until(
            lambda: server.text().count("mooring: the model is loaded") and len(server.children()) == 2, "two workers"
        )
        for connection in connections:
            connection.request("POST", "/invocations", b"quick0")
            assert connection.getresponse().read() == b"quick0"
        assert not slow.done()
        (tmp_path / "slow.go").touch()
        assert slow.result(DEADLINE_S)[1] == b"slow"
    for connection in connections:
        connection.close()


def test_many_callers_each_get_their_own_answer(start):
    server = start(ECHO, **{contract.ENV_WORKERS: "2"}).wait_healthy()

    def call_often(number: int) -> int:
        connection = server.connect()
        good = 0
        for i in range(50):
            body = b"%d:%d:" % (number, i) + b"x" * (i * 997)
            connection.request("POST", "/invocations", body)
            good += connection.getresponse().read() == body
        connection.close()
        return good

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call_often, range(8))) == [50] * 8


def test_pipelined_requests_are_answered_in_order(start):
    server = start(ECHO).wait_healthy()
    with server.raw() as client:
        client.sendall(
            b"".join(b"POST /invocations HTTP/1.1\r\nContent-Length: 2\r\n\r\n%02d" % i for i in range(20))
            + b"GET /ping HTTP/1.1\r\n\r\n" * 2000
            + b"POST /invocations HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n\r\nend"
        )
        answers = client.makefile("rb").read()
    bodies = re.findall(rb"\r\n\r\n([0-9]{2}|end)", answers)
    assert bodies == [b"%02d" % i for i in range(20)] + [b"end"]
    assert answers.count(b"HTTP/1.1 200 OK") == 2021


def test_chunks_and_continue_are_understood(start):
    server = start(ECHO).wait_healthy()
    with server.raw() as client:
        stream = client.makefile("rb")
        client.sendall(b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert stream.readline() == b"\r\n"
        client.sendall(b"3\r\nabc\r\n")
        client.sendall(b"2\r\nde\r\n0\r\n\r\n")
        answer = stream.readline(), *iter(stream.readline, b"\r\n")
        assert answer[0] == b"HTTP/1.1 200 OK\r\n"
        assert stream.read(5) == b"abcde"


def test_large_bodies_pass_both_ways(start):
    server = start(ECHO).wait_healthy()
    body = os.urandom(20 << 20)
    assert server.invoke(body, Content_Type="application/octet-stream")[1] == body


def test_a_body_over_the_limit_is_413_and_the_answer_arrives(start):
    server = start(ECHO, **{contract.ENV_MAX_PAYLOAD_MB: "1"}).wait_healthy()
    with server.raw() as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 500_000)
        assert client.makefile("rb").readline() == b"HTTP/1.1 413 Payload Too Large\r\n"
    with server.raw() as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.makefile("rb").readline() == b"HTTP/1.1 400 Bad Request\r\n"


def test_a_request_whose_caller_left_is_not_worked_on(start, tmp_path):
    server = start(GATE).wait_healthy()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.invoke, b"first")
        until((tmp_path / "first.begun").exists, "the worker busy")
        with server.raw() as client:
            client.sendall(b"POST /invocations HTTP/1.1\r\nContent-Length: 4\r\n\r\ngone")
            assert server.ask("GET", "/ping")[0] == 200  # the front has read what came before
        assert server.ask("GET", "/ping")[0] == 200
        (tmp_path / "first.go").touch()
        first.result(DEADLINE_S)
    (tmp_path / "last.go").touch()
    assert server.invoke(b"last")[1] == b"last"
    assert not (tmp_path / "gone.begun").exists()


def test_what_a_handler_prints_is_in_the_log_at_once(start):
    server = start("print('at import')\ndef predict_fn(data, model): print('at work'); return 1\n").wait_healthy()
    assert "at import" in server.text()
    server.invoke(b"1")
    assert "at work" in server.text()


def test_pings_leave_no_line_in_the_log(start):
    server = start(ECHO).wait_healthy()
    before = server.text()
    for _ in range(5):
        assert server.ask("GET", "/ping")[0] == 200
    assert server.text() == before


def test_an_exception_is_answered_and_logged_and_the_server_goes_on(start):
    server = start("def predict_fn(data, model): return 1 // int(data)\n").wait_healthy()
    status, body, _ = server.invoke(b"0")
    assert status == 500
    assert b"ZeroDivisionError" in body
    assert "ZeroDivisionError" in server.text()
    assert server.invoke(b"1")[1] == b"1"


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def model_fn(d): raise RuntimeError('weights are\\nmissing')\n" + ECHO, "RuntimeError: weights are missing"),
        ("def predict_fn(:\n", "SyntaxError"),
        ("exit(3)\n", "SystemExit: 3"),
        (ECHO + "def predict_fn(d, m): ...\n", "ValueError: Cannot use transform_fn"),
        ("", "inference.py defines neither transform_fn nor predict_fn"),
        (None, "there is no code/inference.py"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
            "was killed by SIGSEGV while it loaded the model",
        ),
        ("import os\nos._exit(4)\n", "ended with exit code 4 while it loaded the model"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_it_with_the_cause_in_the_last_line(start, script, cause):
    server = start(script, **{contract.ENV_WORKERS: "2"})
    assert server.wait_end() == contract.EXIT_MODEL_LOAD_FAILED, server.text()
    last = server.text().rstrip().splitlines()[-1]
    assert last.startswith("mooring: the model cannot be loaded: ")
    assert cause in last
    assert server.text().count("the model cannot be loaded") == 1


def test_what_a_worker_said_is_heard_though_its_end_is_noticed_first(library, tmp_path):
    script = """
import os, selectors
from mooring.serving import settings
from mooring.serving.workers import Worker

said = []
worker = Worker(
    0,
    settings.read(os.environ),
    selectors.DefaultSelector(),
    lambda worker, kind, payload: said.append(payload.decode()),
    lambda worker, how: said.append(how),
)
os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
worker.reap(wait=False)
assert "there is no code/inference.py" in said[0] and said[1:] == ["ended with exit code 0"], said
"""
    (tmp_path / "model").mkdir()
    environment = {"PYTHONPATH": str(library), contract.ENV_MODEL_DIR: str(tmp_path / "model")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_bad_setting_is_named(start):
    server = start(ECHO, **{contract.ENV_WORKERS: "none"})
    assert server.wait_end() == contract.EXIT_MODEL_LOAD_FAILED
    assert contract.ENV_WORKERS in server.text()


def test_sigterm_finishes_what_is_under_way_and_exits_0(start, tmp_path):
    server = start(GATE).wait_healthy()
    idle = server.raw()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(server.invoke, b"one")
        until((tmp_path / "one.begun").exists, "the handler at work")
        server.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""
        (tmp_path / "one.go").touch()
        assert running.result(DEADLINE_S)[:2] == (200, b"one")
    idle.close()
    assert server.wait_end() == 0
    assert not server.socket_path.exists()


def test_sigterm_while_the_model_loads_exits_0(start):
    server = start("import time\nprint('loading')\ntime.sleep(3600)\n")
    until(lambda: "loading" in server.text(), "the load")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_end() == 0


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_worker_that_dies_answers_500_and_ends_the_server_with_the_reason(start, how):
    action = "os.kill(os.getpid(), 9)" if how == "kill" else "os._exit(9)"
    server = start(f"import os\ndef predict_fn(data, model): {action}\n", **{contract.ENV_WORKERS: "2"}).wait_healthy()
    status, body, _ = server.invoke(b"1")
    assert status == 500
    assert "while it worked on this request" in json.loads(body)["error-message"]
    assert server.wait_end() == 70
    assert ("was killed by SIGKILL" if how == "kill" else "ended with exit code 9") in server.text()


def test_workers_do_not_outlive_the_front(start):
    server = start(
        "import time\ndef predict_fn(d, m): time.sleep(3600)\n", **{contract.ENV_WORKERS: "2"}
    ).wait_healthy()
    workers = until(lambda: len(server.children()) == 2 and server.children(), "two workers")
    with server.raw() as client:  # one is at work, in user code
        client.sendall(b"POST /invocations HTTP/1.1\r\nContent-Length: 1\r\n\r\n1")
        server.process.kill()
        server.process.wait(DEADLINE_S)
    until(lambda: not any(_runs(pid) for pid in workers), "their end")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_handler_over_its_time_is_replaced_and_its_caller_told(start):
    script = "import time\ndef predict_fn(data, model):\n    if int(data): time.sleep(3600)\n    return 1\n"
    server = start(script, **{contract.ENV_SERVER_TIMEOUT: "1"}).wait_healthy()
    status, body, _ = server.invoke(b"1")
    assert status == 504
    assert b"within 1 s" in body
    server.wait_healthy()
    assert server.invoke(b"0")[1] == b"1"


def test_threads_are_shared_out_before_anything_is_imported(start):
    script = "import os\nAT_IMPORT = os.environ['OMP_NUM_THREADS']\ndef predict_fn(d, m): return AT_IMPORT\n"
    server = start(script, **{contract.ENV_VCPU: "6", contract.ENV_WORKERS: "2"}).wait_healthy()
    assert json.loads(server.invoke(b"1")[1]) == "3"


def test_nothing_of_the_package_but_serving_and_contract_is_imported(start):
    script = "import sys\ndef predict_fn(d, m): return sorted(n for n in sys.modules if n.startswith('mooring'))\n"
    server = start(script).wait_healthy()
    names = json.loads(server.invoke(b"1")[1])
    assert all(n == "mooring" or n.startswith(("mooring.serving", "mooring.contract")) for n in names)


def test_a_socket_path_longer_than_the_system_allows_works(start, tmp_path):
    directory = tmp_path / ("d" * 60) / ("e" * 60)
    directory.mkdir(parents=True)
    path = directory / "server.sock"
    start(ECHO, **{contract.ENV_SOCKET: str(path)}).wait_healthy()
    assert path.is_socket()


@pytest.mark.parametrize("minor", sorted({"3.7", *SERVER_PYTHONS} & set(Interpreters(os.environ).installed())))
def test_every_python_of_the_images_serves(start, minor):
    interpreter = Interpreters(os.environ).find(minor)
    assert interpreter is not None
    server = start("def predict_fn(data, model): return data\n", python=str(interpreter.path)).wait_healthy()
    answer = server.invoke(b"1,2\n3,4\n", Content_Type="text/csv", Accept="text/csv")
    assert answer[1] == b"1.0,2.0\n3.0,4.0\n"
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_end() == 0
    assert "Warning" not in server.text()


def test_slow_readers_do_not_hold_up_others(start):
    server = start(ECHO).wait_healthy()
    body = os.urandom(8 << 20)
    head = b"POST /invocations HTTP/1.1\r\nConnection: close\r\nContent-Type: x/y\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    with server.raw() as slow:
        threading.Thread(
            target=slow.sendall,
            args=(head + body,),
            daemon=True,
        ).start()
        assert server.invoke(b"quick")[1] == b"quick"
        answer = slow.makefile("rb").read()
    assert answer.endswith(body)
