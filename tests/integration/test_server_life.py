"""Starting, stopping, crashing: on servers of their own."""

import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import models
from tests.server import Server, all_processes, is_shim, wait_until

Start = Callable[..., Server]


def refused(server: Server, *, code: int) -> str:
    """What a server that cannot start says, on one line."""
    process = server.spawn()
    assert process.wait(30) == code, server.log()
    (line,) = [line for line in server.log().splitlines() if line.startswith("error:")]
    assert "Traceback" not in server.log()
    return line


def shims(server: Server) -> set[int]:
    return {process.pid for process in server.own_processes() if is_shim(process)}


def test_a_stop_leaves_nothing_behind_and_a_start_finds_everything_again(own_server: Start) -> None:
    server = own_server()
    models.deploy(server, "kept")
    before = server.own_processes()
    assert shims(server)
    assert server.stop() == 0
    assert not [process for process in before if process.is_alive()]
    assert not server.control_groups()
    server.start()
    server.wait_status("kept")
    wait_until(lambda: answers(server, "kept"), what="the endpoint answers again")
    assert "Ready after" in server.log()


def test_ctrl_c_stops_as_sigterm_does(own_server: Start) -> None:
    server = own_server()
    assert server.stop(number=signal.SIGINT) == 0


def test_a_stop_at_any_moment_of_the_start_leaves_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path / "early")
    for lines in range(1, 4):  # of what a start prints: a little later each time
        process = server.spawn()
        wait_until(lambda: (server.data_dir / "run" / "port").exists(), what="it listens")
        printed = f"listens on http://127.0.0.1:{(server.data_dir / 'run' / 'port').read_text().strip()}"
        if lines > 1:
            wait_until(lambda text=printed: text in server.log(), what="it says so")
        if lines > 2:
            wait_until(lambda pid=process.pid: any(parent == pid for _, parent in all_processes()), what="children")
        before = server.own_processes()
        process.terminate()
        assert process.wait(45) == 0, server.log()
        assert not [each for each in before if each.is_alive()]
        assert [entry.name for entry in (server.data_dir / "run").iterdir()] == []


def test_a_second_server_on_the_directory_is_refused_naming_the_first(own_server: Start, tmp_path: Path) -> None:
    server = own_server()
    second = Server(server.data_dir.parent / "link")
    second.data_dir.symlink_to(server.data_dir)
    assert server.process is not None
    line = refused(second, code=1)
    assert "is in use by another Mooring server" in line
    assert f"(process {server.process.pid})" in line
    assert server.health() == 200


def test_a_port_in_use_is_refused_and_the_directory_let_go(own_server: Start, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = Server(tmp_path / "late", port=other.getsockname()[1])
        assert f"port {server.port} on 127.0.0.1 is in use by another program" in refused(server, code=1)
    with Server.started(tmp_path / "late"):
        pass


def test_an_address_beyond_loopback_needs_insecure(own_server: Start, tmp_path: Path) -> None:
    assert "--insecure" in refused(Server(tmp_path / "a", arguments=("--host", "0.0.0.0")), code=1)
    assert not (tmp_path / "a").exists()
    own_server(arguments=("--host", "0.0.0.0", "--insecure"))


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"MOORING_EDGE_WORKERS": "many"}, "MOORING_EDGE_WORKERS must be a whole number from 1 to 64"),
        ({"MOORING_CONFIG": "/nonexistent.toml"}, "cannot read the settings file /nonexistent.toml"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(env: dict[str, str], words: str, tmp_path: Path) -> None:
    assert words in refused(Server(tmp_path / "a", env=env), code=2)


def test_a_state_of_a_newer_version_is_refused_and_not_tried_again(own_server: Start, tmp_path: Path) -> None:
    import sqlite3

    with Server.started(tmp_path / "newer"):
        pass
    with sqlite3.connect(tmp_path / "newer" / "state.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    database.close()
    server = Server(tmp_path / "newer")
    assert server.spawn().wait(30) == 1
    log = server.log().rpartition("To use it from another shell")[2]
    (line,) = [line for line in log.splitlines() if "CRITICAL control" in line]
    assert "newer" in line
    assert "Traceback" not in log


@pytest.mark.parametrize("content", [None, "name,vcpu\nml.x.y,many\n"])
def test_instance_types_that_cannot_be_read_end_it_naming_the_file(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "types.csv"
    if content is not None:
        file.write_text(content)
    server = Server(tmp_path / "a", env={"MOORING_INSTANCE_TYPES_FILE": str(file)})
    assert server.spawn().wait(30) == 1
    (line,) = [line for line in server.log().splitlines() if "CRITICAL control" in line]
    assert str(file) in line
    assert "Traceback" not in server.log()


def test_settings_come_from_the_file_and_credentials_that_would_win_are_warned_of(
    own_server: Start, tmp_path: Path
) -> None:
    file = tmp_path / "mooring.toml"
    file.write_text('account_id = "123456789012"\nedge_workers = 1\n')
    server = own_server(env={"MOORING_CONFIG": str(file), "MOORING_PROT": "1", "AWS_PROFILE": "work"})
    assert server.client("sts").get_caller_identity()["Account"] == "123456789012"
    assert {name for name in server.processes() if name.startswith("edge")} == {"edge-0"}
    assert "MOORING_PROT is set but no such option exists" in server.log()
    assert "AWS_PROFILE in this environment would win" in server.log()


def test_a_data_directory_with_a_very_long_path_works(own_server: Start, tmp_path: Path) -> None:
    with Server.started(tmp_path / ("d" * 100) / ("e" * 60)) as server:
        models.deploy(server, "deep")
        assert models.invoke(server, "deep") == b"42.0"


def answers(server: Server, endpoint: str) -> bool:
    try:
        return models.invoke(server, endpoint) == b"42.0"
    except Exception:  # anything a client may see while a process is replaced
        return False


def test_each_killed_process_is_replaced_and_nothing_acknowledged_is_lost(own_server: Start) -> None:
    server = own_server(env={"MOORING_EDGE_WORKERS": "2"})
    models.deploy(server, "kept")
    before = shims(server)
    assert len(before) == 1
    for name in ("control", "s3", "edge-0", "edge-1", "supervisor"):
        killed = server.kill(name)
        models_before = f"after-{name}"
        if name == "supervisor":
            server.start()
        wait_until(lambda: len(server.processes()) == 5, what=f"{name} is there again")
        assert not killed.is_alive()
        wait_until(lambda: answers(server, "kept"), what="the endpoint answers again")
        wait_until(lambda: server.health() == 200, what="health")
        assert shims(server) == before, "the instance was taken over, not replaced"
        sagemaker = server.client("sagemaker", attempts=5)
        assert sagemaker.describe_endpoint(EndpointName="kept")["EndpointStatus"] == "InService"
        wait_until(lambda at=models_before: uploads(server, at), what="storage takes objects")
    server.restart()
    keys = {item["Key"] for item in server.client("s3").list_objects_v2(Bucket=models.BUCKET)["Contents"]}
    assert len(keys) == 6


def uploads(server: Server, name: str) -> bool:
    try:
        models.upload(server, name)
    except Exception:
        return False
    return True


def test_instances_may_be_kept_over_a_stop(own_server: Start) -> None:
    server = own_server(arguments=("--keep-instances",))
    models.deploy(server, "kept")
    before = shims(server)
    assert server.stop() == 0
    assert shims(server) == before
    server.start()
    wait_until(lambda: answers(server, "kept"), what="the endpoint answers")
    assert shims(server) == before
    server.stop()
    server.arguments = ()
    server.start()  # and once more without the option, so that this stop takes them along


def test_a_request_in_flight_is_answered_before_the_server_ends(own_server: Start) -> None:
    server = own_server()
    slow = models.DOUBLER.replace("return value * factor", "import time; time.sleep(1.5); return value * factor")
    models.deploy(server, "slow", slow)
    runtime = server.client("sagemaker-runtime")
    import threading

    results: list[bytes] = []

    def call() -> None:
        answer = runtime.invoke_endpoint(EndpointName="slow", Body=b"21", ContentType="text/plain")
        results.append(answer["Body"].read())

    caller = threading.Thread(target=call)
    caller.start()
    flying = 'mooring_instance_requests_in_flight{endpoint="slow"'
    wait_until(
        lambda: any(value for series, value in server.metrics().items() if series.startswith(flying)), what="in flight"
    )
    assert server.stop() == 0
    caller.join(10)
    assert results == [b"42.0"]
    with pytest.raises((OSError, http.client.HTTPException)):
        server.get("/_mooring/health")


def test_a_second_signal_ends_it_at_once_and_the_next_start_takes_over(own_server: Start) -> None:
    server = own_server()
    stuck = models.DOUBLER.replace("return value * factor", "import time; time.sleep(600)")
    models.deploy(server, "stuck", stuck)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    runtime = server.client("sagemaker-runtime", timeout_s=1.0)
    with pytest.raises(Exception, match="Read timeout"):
        runtime.invoke_endpoint(EndpointName="stuck", Body=b"1", ContentType="text/plain")
    connection.connect()
    connection.putrequest("POST", "/endpoints/stuck/invocations")  # a client in the middle of a request holds the drain
    connection.putheader("Content-Length", "10")
    connection.endheaders()
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGTERM)
    wait_until(lambda: "stopping" in server.log(), what="it began to stop")
    os.kill(server.process.pid, signal.SIGTERM)
    assert server.process.wait(20) in (0, 130)
    connection.close()
    server.process = None
    server.start()
    server.client("sagemaker").delete_endpoint(EndpointName="stuck")


def test_a_plain_python_is_told_how_to_start_the_server() -> None:
    import sys

    shown = subprocess.run([sys.executable, "-m", "mooring.app", "edge"], capture_output=True, text=True, timeout=30)
    assert shown.returncode == 64
    assert "mooring serve" in shown.stderr
