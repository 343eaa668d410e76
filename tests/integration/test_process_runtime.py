"""The process runtime on real processes: walls, limits, logs, and death at the wrong moment."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration import process_rig as rig

from mooring.contract import shim as names
from mooring.kit import logfile, proc, unixpath
from mooring.kit.clock import token_hex
from mooring.runtime import instance_log, process, recipes, sandbox
from mooring.runtime.driver import Prepared
from mooring.runtime.process import ProcessDriver

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a user id per instance")


@pytest.fixture
def node_id() -> str:
    return f"test{token_hex(4)}"


@pytest.fixture
async def driver(tmp_path: Path, node_id: str) -> AsyncIterator[ProcessDriver]:
    async with rig.driven(tmp_path, node_id) as driver:
        yield driver


def needs_limits(driver: ProcessDriver) -> None:
    if not driver.capabilities.hard_limits:
        pytest.skip(f"no control groups here: {driver.capabilities.notes}")


# walls ---------------------------------------------------------------------------------------------------------------
async def test_a_model_sees_nothing_of_the_host_but_the_system(driver: ProcessDriver, tmp_path: Path) -> None:
    secret = tmp_path / "credentials"
    secret.write_text("secret")
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    for path in ("/etc/shadow", secret, tmp_path, f"{tmp_path}/instances/i-1/spec.json", "/home", "/boot", "/sys"):
        assert "No such file" in await rig.ask(handle, f"os.stat({str(path)!r})"), path
    assert set(eval(await rig.ask(handle, "os.listdir('/')"))) <= {
        *("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "dev", "proc", "tmp", "var", "run", "opt"),
        rig.PYTHON.split("/")[1],
    }
    passwd = await rig.ask(handle, "open('/etc/passwd').read()")
    assert passwd.count("\\n") == 2


async def test_a_model_can_write_only_where_it_may(driver: ProcessDriver, tmp_path: Path) -> None:
    model = tmp_path / "cache" / "model"
    model.mkdir()
    (model / "weights").write_text("w")
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path, model=model))
    await rig.healthy(handle)
    assert await rig.ask(handle, "open('/opt/ml/model/weights').read()") == "'w'"
    for path in ("/opt/ml/model/x", "/opt/ml/model/weights", "/usr/x", "/x", "/etc/passwd", "/opt/x", "/proc/sys/vm/x"):
        said = await rig.ask(handle, f"open({path!r}, 'w')")
        assert "Read-only" in said or "Permission denied" in said or "No such file" in said, (path, said)
    for path in ("/tmp/x", "/opt/ml/x", "/dev/shm/x", "/var/tmp/x"):
        assert await rig.ask(handle, f"open({path!r}, 'w').write('x')") == "1"
    assert "No space left" in await rig.ask(handle, "open('/tmp/big', 'wb').write(bytes(16 << 20))")
    assert (model / "weights").read_text() == "w"


async def test_instances_see_neither_each_others_processes_nor_files(driver: ProcessDriver, tmp_path: Path) -> None:
    first, second = await asyncio.gather(
        *(driver.start(rig.spec(name), rig.prepared(tmp_path)) for name in ("i-1", "i-2"))
    )
    await asyncio.gather(rig.healthy(first), rig.healthy(second))
    await rig.ask(first, "open('/tmp/mine', 'w').write('x')")
    assert "No such file" in await rig.ask(second, "os.stat('/tmp/mine')")
    assert eval(await rig.ask(second, "[p for p in os.listdir('/proc') if p.isdigit()]")) == ["1", "2"]
    assert eval(await rig.ask(second, "os.listdir('/run/mooring')")) == ["serve.sock"]
    spaces = [
        tuple(
            eval(await rig.ask(handle, "[os.readlink('/proc/self/ns/' + n) for n in ('pid','net','mnt','ipc','uts')]"))
        )
        for handle in (first, second)
    ]
    own = tuple(os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "net", "mnt", "ipc", "uts"))
    assert len({*spaces[0], *spaces[1], *own}) == 15


async def test_a_model_has_no_privileges_to_gain(driver: ProcessDriver, tmp_path: Path) -> None:
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    status = eval(await rig.ask(handle, "open('/proc/self/status').read()"))
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {fields[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    assert await rig.ask(handle, "__import__('resource').getrlimit(4)") == "(0, 0)"
    assert "Network is unreachable" in await rig.ask(handle, "socket.create_connection(('192.0.2.1', 80), 1)")


@is_root
async def test_each_instance_has_a_user_id_of_its_own(driver: ProcessDriver, tmp_path: Path) -> None:
    handles = [await driver.start(rig.spec(f"i-{n}"), rig.prepared(tmp_path)) for n in range(3)]
    await asyncio.gather(*(rig.healthy(handle) for handle in handles))
    uids = {eval(await rig.ask(handle, "os.getresuid()")) for handle in handles}
    assert len(uids) == 3
    assert all(0 not in uid and os.getuid() not in uid for uid in uids)
    assert "not permitted" in await rig.ask(handles[0], "os.setuid(0)")


@is_root
async def test_the_environment_runs_no_code_before_privileges_are_gone(driver: ProcessDriver, tmp_path: Path) -> None:
    """LD_PRELOAD reaches the model, whose own affair it is, and neither bwrap nor setpriv."""
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path, LD_PRELOAD="/opt/ml/model/none.so", SECRET="hush"))
    await rig.healthy(handle)
    await rig.until(lambda: "none.so" in _log_text(tmp_path), "the loader's complaint")
    assert _log_text(tmp_path).count("none.so") == 1
    assert await rig.ask(handle, "os.environ['SECRET']") == "'hush'"


@is_root
async def test_no_secret_of_the_environment_is_where_others_can_read_it(driver: ProcessDriver, tmp_path: Path) -> None:
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path, SECRET="very-hush"))
    await rig.healthy(handle)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"very-hush" not in path.read_bytes(), path
        except OSError:
            continue
    for path in (tmp_path / "instances").rglob("*"):
        if path.is_file():
            assert b"very-hush" not in path.read_bytes()
    assert stat.S_IMODE((tmp_path / "instances" / "i-1").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "instances" / "i-1" / names.SOCKET).stat().st_mode) == 0o600


# limits --------------------------------------------------------------------------------------------------------------
async def test_a_memory_hog_is_killed_and_said_to_be_out_of_memory(driver: ProcessDriver, tmp_path: Path) -> None:
    needs_limits(driver)
    handle = await driver.start(rig.spec(memory_bytes=64 << 20), rig.prepared(tmp_path))
    await rig.healthy(handle)
    with pytest.raises(OSError):
        await rig.ask(handle, "hog(256 << 20)")
    outcome = await asyncio.wait_for(driver.wait(handle), rig.DEADLINE_S)
    assert outcome.oom_killed
    assert outcome.code == -9


async def test_a_fork_bomb_is_bounded_and_dies_with_its_instance(driver: ProcessDriver, tmp_path: Path) -> None:
    needs_limits(driver)
    handle = await driver.start(rig.spec(pids=40), rig.prepared(tmp_path))
    await rig.healthy(handle)
    made, number = eval(await rig.ask(handle, "fork_bomb()"))
    assert made < 40
    assert number == 11  # EAGAIN
    assert (await driver.stop(handle, grace_s=5)).code == 0
    await rig.until(lambda: rig.processes_of(tmp_path) == [], "the end of all")


async def test_the_cpu_quota_is_that_of_the_type(driver: ProcessDriver, tmp_path: Path, node_id: str) -> None:
    needs_limits(driver)
    await driver.start(rig.spec(vcpu=0.5), rig.prepared(tmp_path))
    files = {Path(group, name) for group in rig.groups_of(node_id) for name in ("i-1/cpu.cfs_quota_us", "i-1/cpu.max")}
    values = [path.read_text().split()[0] for path in files if path.exists()]
    assert values == ["50000"]


# output --------------------------------------------------------------------------------------------------------------
def _log_directory(data_dir: Path, name: str = "i-1") -> str:
    return instance_log.log_directory(str(data_dir), rig.spec(name))


def _events(data_dir: Path) -> list[tuple[int, str]]:
    directory = _log_directory(data_dir)
    return [
        logfile.parse_event(line)
        for number in logfile.segments(directory, "out")
        for line in Path(directory, logfile.segment_name("out", number)).read_bytes().splitlines()
    ]


def _log_text(data_dir: Path) -> str:
    return "\n".join(text for _, text in _events(data_dir))


async def test_output_lands_in_the_log_with_its_time(driver: ProcessDriver, tmp_path: Path) -> None:
    before_ms = int(time.time() * 1000)
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    await rig.ask(handle, r"print('a\tb\\c', flush=True)")
    await rig.ask(handle, "print('x' * 600000, flush=True)")
    await driver.stop(handle, grace_s=10)
    events = _events(tmp_path)
    texts = [text for _, text in events]
    for text in ("server is up", "on stderr", "a\tb\\c", "got SIGTERM"):
        assert text in texts
    assert any("no access to the network" in text for text in texts)
    assert sum(text.count("x") for text in texts if set(text) == {"x"}) == 600000
    times = [ms for ms, _ in events]
    assert times == sorted(times)
    assert before_ms <= times[0] <= times[-1] <= time.time() * 1000
    await driver.remove(handle.instance_id)
    assert _events(tmp_path) == events  # logs stay


async def test_a_flood_of_output_is_bounded_on_disk(driver: ProcessDriver, tmp_path: Path) -> None:
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    await rig.ask(handle, "[print('y' * 1000, flush=False) for _ in range(36000)] and None")
    await driver.stop(handle, grace_s=10)
    directory = Path(_log_directory(tmp_path))
    sizes = [path.stat().st_size for path in directory.iterdir()]
    assert len(sizes) <= logfile.SEGMENTS
    assert sum(sizes) <= (logfile.SEGMENTS + 1) * logfile.SEGMENT_BYTES
    assert "got SIGTERM" in _log_text(tmp_path)


# death at the wrong moment -------------------------------------------------------------------------------------------
async def test_killing_the_shim_kills_everything_in_the_sandbox(driver: ProcessDriver, tmp_path: Path) -> None:
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path, IGNORE_TERM="1"))
    await rig.healthy(handle)
    await rig.ask(handle, "os.fork() or signal.pause()")
    waiting = asyncio.ensure_future(driver.wait(handle))
    inside = [pid for pid in rig.processes_of(tmp_path) if pid != handle.shim_pid]
    os.kill(handle.shim_pid, signal.SIGKILL)
    outcome = await asyncio.wait_for(waiting, rig.DEADLINE_S)
    assert outcome.code == -9
    assert "server is up" in outcome.last_words
    await rig.until(lambda: not any(proc.state(pid) not in ("", "Z") for pid in inside), "their death")
    with pytest.raises(OSError):
        await rig.call(handle.address, b"hello")
    assert await driver.recover(rig.spec(), handle) is None


async def test_a_shim_stopped_by_sigterm_stops_its_server(driver: ProcessDriver, tmp_path: Path) -> None:
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    os.kill(handle.shim_pid, signal.SIGTERM)
    assert (await asyncio.wait_for(driver.wait(handle), rig.DEADLINE_S)).code == 0


async def test_a_start_whose_server_died_at_once_is_found_again(
    driver: ProcessDriver, tmp_path: Path, node_id: str
) -> None:
    """A server killed between spawn and answer: the shim holds the lock that it inherited."""
    code = f"""
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {str(Path.cwd())!r})
from tests.integration import process_rig as rig
from mooring.runtime import shim_client
shim_client._read_line = lambda *_: os._exit(9)
async def main():
    driver = await rig.open_driver(Path({str(tmp_path)!r}), node_id={node_id!r})
    await driver.start(rig.spec(), rig.prepared(Path({str(tmp_path)!r})))
asyncio.run(main())
"""
    life = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await life.wait() == 9
    handle = await driver.recover(rig.spec(), None)
    assert handle is not None
    await rig.healthy(handle)
    assert (await driver.stop(handle, grace_s=10)).code == 0


async def test_an_instance_outlives_its_server(driver: ProcessDriver, tmp_path: Path, node_id: str) -> None:
    code = f"""
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path.cwd())!r})
from tests.integration import process_rig as rig
async def main():
    driver = await rig.open_driver(Path({str(tmp_path)!r}), node_id={node_id!r})
    await driver.start(rig.spec(), rig.prepared(Path({str(tmp_path)!r})))
    os.killpg(0, signal.SIGKILL)
asyncio.run(main())
"""
    life = await asyncio.create_subprocess_exec(sys.executable, "-c", code, start_new_session=True)
    assert await life.wait() == -9
    handle = await driver.recover(rig.spec(), None)
    assert handle is not None
    await rig.healthy(handle)


async def test_a_directory_without_a_shim_is_swept(driver: ProcessDriver, tmp_path: Path) -> None:
    half = tmp_path / "instances" / "half"
    half.mkdir(parents=True)
    (half / names.SPEC).write_text("{")
    assert await driver.recover(rig.spec("half"), None) is None
    assert await driver.sweep(()) == ["half"]
    assert not half.exists()


async def test_a_shim_whose_directory_was_deleted_is_swept(driver: ProcessDriver, tmp_path: Path) -> None:
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    shutil.rmtree(handle.directory)
    assert await driver.recover(rig.spec(), handle) is None
    assert await driver.sweep(()) == ["i-1"]
    await rig.until(lambda: proc.state(handle.shim_pid) in ("", "Z"), "the shim's death")


async def test_a_shim_that_is_frozen_is_replaced_and_not_waited_for(
    driver: ProcessDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_ANSWER_S", 0.2)
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    os.kill(handle.shim_pid, signal.SIGSTOP)
    assert await driver.recover(rig.spec(), handle) is None
    assert proc.state(handle.shim_pid) in ("", "Z")


async def test_a_cancelled_start_leaves_nothing(driver: ProcessDriver, tmp_path: Path, node_id: str) -> None:
    start = asyncio.ensure_future(driver.start(rig.spec(), rig.prepared(tmp_path)))
    await rig.until(lambda: (tmp_path / "instances" / "i-1").exists(), "the directory")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not (tmp_path / "instances" / "i-1").exists()
    assert rig.processes_of(tmp_path) == []
    assert rig.groups_of(node_id) == []


async def test_a_program_that_is_not_there_ends_at_once_and_says_why(driver: ProcessDriver, tmp_path: Path) -> None:
    whole = rig.prepared(tmp_path)
    recipe = whole.token
    assert isinstance(recipe, recipes.Recipe)
    program = sandbox.Program(
        argv=("/nonexistent",), environment={}, mounts=recipe.program.mounts, python=recipe.program.python
    )
    token = recipes.Recipe(program=program, artifact=recipe.artifact)
    handle = await driver.start(rig.spec(), Prepared(resolved_image="x", resolved_at_s=0.0, token=token))
    outcome = await asyncio.wait_for(driver.wait(handle), rig.DEADLINE_S)
    assert outcome.code not in (0, None)
    assert "No such file" in outcome.last_words


# shim.sock -----------------------------------------------------------------------------------------------------------
def _dial(path: str, port: int) -> socket.socket:
    with socket.socket(socket.AF_UNIX) as shim:
        target = unixpath.SocketPath(path)
        shim.connect(target.address)
        target.close()
        shim.sendall(b'{"op": "dial", "port": %d}\n' % port)
        line, descriptors, _, _ = socket.recv_fds(shim, 4096, 1)
    if not descriptors:
        raise ConnectionRefusedError(line)
    connection = socket.socket(fileno=descriptors[0])
    connection.settimeout(rig.DEADLINE_S)
    return connection


async def test_the_shim_dials_into_the_instances_network(driver: ProcessDriver, tmp_path: Path) -> None:
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path, tcp=True))
    assert handle.address == f"dial:{handle.directory}/{names.SOCKET}"
    path = handle.address.removeprefix("dial:")

    async def answers() -> bool:
        try:
            connection = await asyncio.to_thread(_dial, path, 8080)
        except ConnectionRefusedError:
            return False
        with connection:
            connection.sendall(b"POST /invocations HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
            return await asyncio.to_thread(connection.recv, 4096) != b""

    await rig.until(answers, "an answer through the shim")
    with pytest.raises(ConnectionRefusedError, match="refused"):
        await asyncio.to_thread(_dial, path, 8081)
    connections = await asyncio.gather(*(asyncio.to_thread(_dial, path, 8080) for _ in range(20)))
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[]\n", b'{"op": "fly"}\n', b'{"op": "stop"}\n', b"x" * 5000])
async def test_nonsense_on_the_shims_socket_is_answered_and_harms_nothing(
    driver: ProcessDriver, tmp_path: Path, line: bytes
) -> None:
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
    target = unixpath.SocketPath(f"{handle.directory}/{names.SOCKET}")
    reader, writer = await asyncio.open_unix_connection(target.address)
    target.close()
    writer.write(line)
    assert b'"ok": false' in await reader.readline()
    writer.close()
    await rig.healthy(handle)
    assert await driver.recover(rig.spec(), handle) == handle


async def test_more_clients_than_the_shim_takes_do_not_stop_it(driver: ProcessDriver, tmp_path: Path) -> None:
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    waiters = [asyncio.ensure_future(driver.wait(handle)) for _ in range(names.MAX_CONNECTIONS + 40)]
    await asyncio.sleep(0)
    os.kill(handle.shim_pid, signal.SIGTERM)
    outcomes = await asyncio.wait_for(asyncio.gather(*waiters), rig.DEADLINE_S)
    assert {outcome.code for outcome in outcomes} == {0}


async def test_the_shim_is_small(driver: ProcessDriver, tmp_path: Path) -> None:
    handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    status = Path(f"/proc/{handle.shim_pid}/status").read_text()
    resident_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert resident_kb < 16_384


# data directories ------------------------------------------------------------------------------------------------------
async def test_a_data_directory_with_a_long_path_works(tmp_path: Path, node_id: str) -> None:
    deep = tmp_path / ("d" * 120)
    async with rig.driven(deep, node_id) as driver:
        handle = await driver.start(rig.spec(), rig.prepared(deep))
        await rig.healthy(handle)
        assert await driver.recover(rig.spec(), None) == handle
        assert (await driver.stop(handle, grace_s=10)).code == 0


async def test_without_a_sandbox_models_still_run_and_the_log_says_so(tmp_path: Path, node_id: str) -> None:
    settings = process.ProcessSettings(sandbox=False)
    async with rig.driven(tmp_path, node_id, settings) as driver:
        assert not driver.capabilities.sandbox
        assert any("WITHOUT A SANDBOX" in note for note in driver.capabilities.notes)
        handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
        await rig.healthy(handle)
        assert await rig.call(handle.address, b"hello") == b"hello"
        assert "MOORING_MODEL_DIR" in await rig.ask(handle, "sorted(os.environ)")
        assert "WITHOUT A SANDBOX" in _log_text(tmp_path)
        os.kill(handle.shim_pid, signal.SIGKILL)
        assert (await asyncio.wait_for(driver.wait(handle), rig.DEADLINE_S)).code == -9
        again = await driver.start(rig.spec(), rig.prepared(tmp_path))
        await rig.healthy(again)
        assert (await driver.stop(again, grace_s=10)).code == 0


async def test_a_user_namespace_closes_models_in_where_the_server_is_not_root(
    tmp_path: Path, node_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def user_only(bwrap: str, _: str, __: list[str]) -> list[sandbox.System]:
        return [sandbox.System(mode=sandbox.Mode.USER_NAMESPACE, bwrap=bwrap)]

    monkeypatch.setattr(sandbox, "_candidates", user_only)
    async with rig.driven(tmp_path, node_id) as driver:
        if not driver.capabilities.sandbox:
            pytest.skip("no user namespaces here")
        handle = await driver.start(rig.spec(), rig.prepared(tmp_path, tcp=True, SECRET="very-hush"))
        path = handle.address.removeprefix("dial:")

        async def ask(expression: str) -> str:
            with await asyncio.to_thread(_dial, path, 8080) as connection:
                body = f"eval {expression}".encode()
                connection.sendall(b"POST /invocations HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                return (await asyncio.to_thread(connection.recv, 65536)).decode()

        async def up() -> bool:
            try:
                return bool(await ask("1"))
            except ConnectionRefusedError:
                return False

        await rig.until(up, "an answer")
        assert "very-hush" in await ask("os.environ['SECRET']")
        for pid in rig.processes_of(tmp_path):
            assert b"very-hush" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        for target in ("/opt/ml/model/x", "/x", "/proc/sys/kernel/core_pattern", "/etc/passwd"):
            said = await ask(f"open({target!r}, 'w')")
            assert "Read-only" in said or "Permission denied" in said, said
        assert "No such file" in await ask("os.stat('/etc/shadow')")
        assert "0000000000000000" in await ask("open('/proc/self/status').read().split('CapEff:')[1][:20]")
        assert (await driver.stop(handle, grace_s=10)).code == 0
