"""The network of an instance: what it reaches and what not, and that nothing of it stays behind. Everything that is reached
is on this machine.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration import process_rig as rig

from mooring.domain.instance import Handle
from mooring.kit import control_groups, proc
from mooring.kit.clock import token_hex
from mooring.runtime import instance_dir, sandbox
from mooring.runtime.network import Server
from mooring.runtime.process import ProcessDriver, ProcessSettings
from mooring.shim import forward

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]
AUTO = ProcessSettings(egress="auto")
GREETING = b"hello from the host"


@pytest.fixture
def node_id() -> str:
    return f"test{token_hex(4)}"


def needs_slirp(driver: ProcessDriver) -> None:
    lacking = [note for note in driver.capabilities.notes if "MODELS HAVE NO NETWORK" in note]
    if lacking and os.geteuid() == 0 and Path("/etc/debian_version").exists():
        pytest.fail(f"scripts/components installs it here: {lacking[0]}")
    if lacking:
        pytest.skip(lacking[0])


def own_address() -> str:
    """An address of this machine that is not its loopback. Nothing is sent: a datagram socket only asks for the route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address beyond its loopback")
        return str(asked.getsockname()[0])


class Host:
    """A server on this machine. A peer that says something gets it back until it ends; then, or at once, it is greeted."""

    def __init__(self) -> None:
        self.seen = 0
        self._server: asyncio.Server | None = None

    async def start(self, address: str, port: int = 0) -> int:
        self._server = await asyncio.start_server(self._talk, address, port, backlog=512)
        return int(self._server.sockets[0].getsockname()[1])

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen += 1
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
            writer.write(GREETING)
            await writer.drain()
        writer.close()

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    yield host
    await host.aclose()


def fetch(address: str, port: int, sent: str = "b''") -> str:
    """An expression: connect, send, end, and everything that comes back."""
    return (
        f"(lambda s: (threading.Thread(target=lambda: (s.sendall({sent}), s.shutdown(1))).start(), "
        f"b''.join(iter(lambda: s.recv(1 << 16), b'')))[1])(socket.create_connection(({address!r}, {port}), 5))"
    )


def slirps(tmp_path: Path, handle: Handle) -> list[int]:
    """slirp4netns of an instance: in the process group of its network process."""
    groups = set(beside(tmp_path, handle))
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path("/proc", name, "comm").read_text() == "slirp4netns\n" and os.getpgid(int(name)) in groups:
                found.append(int(name))
    return found


def beside(tmp_path: Path, handle: Handle) -> list[int]:
    shims = instance_dir.find_shims(str(tmp_path / "instances")).get(handle.instance_id, [])
    return [pid for pid in shims if pid != handle.shim_pid and proc.state(pid) not in ("", "Z")]


async def attached(handle: Handle) -> None:
    async def up() -> bool:
        return "tap0" in await rig.ask(handle, "open('/proc/net/route').read()")

    await rig.until(up, "its network")


async def gone(pids: list[int]) -> None:
    await rig.until(lambda: all(proc.state(pid) in ("", "Z") for pid in pids), f"the end of {pids}")


@pytest.fixture(params=["as the server may", "by a user namespace"])
async def auto(
    tmp_path: Path, node_id: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ProcessDriver]:
    if request.param == "by a user namespace":
        user = sandbox.System(mode=sandbox.Mode.USER_NAMESPACE, bwrap=shutil.which("bwrap") or "")
        monkeypatch.setattr(sandbox, "_candidates", lambda *_: [user])
    async with rig.driven(tmp_path, node_id, AUTO) as driver:
        if not driver.capabilities.sandbox:
            pytest.skip("no sandbox of this kind here")
        needs_slirp(driver)
        yield driver


# out ------------------------------------------------------------------------------------------------------------------
async def test_a_model_reaches_other_machines_and_not_the_loopback_of_its_host(
    auto: ProcessDriver, tmp_path: Path, host: Host
) -> None:
    address = own_address()
    handle = await auto.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    await attached(handle)
    assert await rig.ask(handle, fetch(address, await host.start(address))) == repr(GREETING)
    assert (await rig.ask(handle, fetch(address, 1))).startswith("ConnectionRefusedError")

    secret = Host()
    port = await secret.start("127.0.0.1")
    try:
        for name in ("10.0.2.2", "10.0.2.3", "10.0.2.15", "127.0.0.1", "localhost", "0.0.0.0"):
            said = await rig.ask(handle, fetch(name, port))
            assert "Error" in said or "timed out" in said, (name, said)
        assert secret.seen == 0
    finally:
        await secret.aclose()


async def test_a_model_cannot_ask_its_hosts_cloud_for_credentials(auto: ProcessDriver, tmp_path: Path) -> None:
    handle = await auto.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    await attached(handle)
    for address in ("169.254.169.254", "169.254.170.2"):
        said = await rig.ask(handle, fetch(address, 80))
        assert "No route to host" in said or "unreachable" in said, said


async def test_names_are_asked_of_the_hosts_resolver(auto: ProcessDriver, tmp_path: Path) -> None:
    handle = await auto.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    assert "nameserver 10.0.2.3\\n" in await rig.ask(handle, "open('/etc/resolv.conf').read()")


async def test_without_egress_nothing_but_the_server_is_reached(tmp_path: Path, node_id: str, host: Host) -> None:
    address = own_address()
    port = await host.start(address)
    async with rig.driven(tmp_path, node_id, ProcessSettings(egress="none")) as driver:
        handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
        await rig.healthy(handle)
        assert "unreachable" in await rig.ask(handle, fetch(address, port))
        assert "nameserver" not in await rig.ask(handle, "open('/etc/resolv.conf').read()")
        assert slirps(tmp_path, handle) == []
    assert host.seen == 0


async def test_the_hosts_network_is_given_where_that_is_asked_for(tmp_path: Path, node_id: str, host: Host) -> None:
    port = await host.start("127.0.0.1")
    async with rig.driven(tmp_path, node_id, ProcessSettings(egress="host")) as driver:
        assert not driver.capabilities.network_namespace
        handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
        await rig.healthy(handle)
        assert await rig.ask(handle, fetch("127.0.0.1", port)) == repr(GREETING)
        assert beside(tmp_path, handle) == []


async def test_a_machine_without_slirp4netns_says_so_everywhere(
    tmp_path: Path, node_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *rest: None if name == "slirp4netns" else found(name, *rest))
    async with rig.driven(tmp_path, node_id, AUTO) as driver:
        if not driver.capabilities.sandbox:
            pytest.skip("no sandbox here")
        assert any("MODELS HAVE NO NETWORK" in note for note in driver.capabilities.notes)
        handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
        await rig.healthy(handle)
        text = "".join(path.read_text() for path in (tmp_path / "logs").rglob("*") if path.is_file())
        assert "MODELS HAVE NO NETWORK beyond this server: slirp4netns is not installed" in text


# the server -----------------------------------------------------------------------------------------------------------
class Site:
    """What the supervisor keeps: the file with the server's address."""

    def __init__(self, tmp_path: Path) -> None:
        self.file = tmp_path / "address"

    def at(self, port: int) -> Server:
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(f"127.0.0.1 {port}\n")
        temporary.replace(self.file)
        return Server(url=f"http://127.0.0.1:{port}", port=port, address_file=str(self.file))


async def forwards(handle: Handle, port: int) -> None:
    async def up() -> bool:
        return "Error" not in await rig.ask(handle, f"socket.create_connection(('127.0.0.1', {port}), 5).close()")

    await rig.until(up, "the forwarder")


@pytest.mark.parametrize("egress", ["auto", "none"])
async def test_the_server_is_found_on_the_loopback_and_nothing_else_of_the_host(
    tmp_path: Path, node_id: str, host: Host, egress: str
) -> None:
    port, other = await host.start("127.0.0.1"), Host()
    other_port = await other.start("127.0.0.1")
    settings = ProcessSettings(egress=egress)  # type: ignore[arg-type]  # the parameters are such
    try:
        async with rig.driven(tmp_path, node_id, settings, Site(tmp_path).at(port)) as driver:
            handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
            await rig.healthy(handle)
            await forwards(handle, port)
            assert await rig.ask(handle, fetch("127.0.0.1", port)) == repr(GREETING)
            assert "refused" in await rig.ask(handle, fetch("127.0.0.1", other_port))
            big = "b'0123456789' * 300000"
            assert await rig.ask(handle, f"{fetch('127.0.0.1', port, big)} == {big} + {GREETING!r}") == "True"
    finally:
        await other.aclose()
    assert other.seen == 0


async def test_more_connections_than_the_forwarder_holds_wait_their_turn(
    tmp_path: Path, node_id: str, host: Host
) -> None:
    port = await host.start("127.0.0.1")
    async with rig.driven(tmp_path, node_id, None, Site(tmp_path).at(port)) as driver:
        handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
        await rig.healthy(handle)
        await forwards(handle, port)
        count = forward.MAX_PAIRS + 50
        opened = f"[socket.create_connection(('127.0.0.1', {port}), 20) for _ in range({count})]"
        ended = f"[(s.shutdown(1), b''.join(iter(lambda: s.recv(99), b'')))[1] for s in {opened}]"
        assert await rig.ask(handle, f"set({ended})") == repr({GREETING})


async def test_an_instance_follows_its_server_to_another_port(tmp_path: Path, node_id: str, host: Host) -> None:
    site = Site(tmp_path)
    first = await host.start("127.0.0.1")
    async with rig.driven(tmp_path, node_id, None, site.at(first)) as driver:
        handle = await driver.start(rig.spec(), rig.prepared(tmp_path))
        await rig.healthy(handle)
        await forwards(handle, first)
        await host.aclose()
        site.file.unlink()
        assert await rig.ask(handle, fetch("127.0.0.1", first)) in (
            "b''",
            repr(ConnectionResetError(104, "Connection reset by peer")),
        )
        later = Host()
        server = site.at(await later.start("127.0.0.1"))
        try:
            adopted = await rig.open_driver(tmp_path, node_id=node_id, server=server)
            assert await adopted.recover(rig.spec(), handle) == handle
            assert await rig.ask(handle, fetch("127.0.0.1", first)) == repr(GREETING)
        finally:
            await later.aclose()


async def test_a_server_on_the_containers_own_port_is_found_on_another(tmp_path: Path) -> None:
    driver = await rig.open_driver(tmp_path, node_id="none", server=Site(tmp_path).at(8080))
    assert driver._network.endpoint_url(driver._server) in ("http://127.0.0.1:4747", "http://127.0.0.1:8080")
    assert driver._network.forward_port(driver._server) != 8080


# the end --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "how", ["stop", "remove", "kill the shim", "kill the shim without its group", "it ends itself"]
)
async def test_nothing_of_the_network_outlives_its_instance(
    auto: ProcessDriver, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how.endswith("without its group"):
        monkeypatch.setattr(auto._groups, "make", lambda *_: [])
        monkeypatch.setattr(auto._groups, "directories", lambda *_: [])
    handle = await auto.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    await attached(handle)
    pids = [*beside(tmp_path, handle), *slirps(tmp_path, handle)]
    assert len(pids) == 2
    if how == "stop":
        assert (await auto.stop(handle, grace_s=10)).code == 0
        assert all(proc.state(pid) in ("", "Z") for pid in pids)
    elif how == "remove":
        await auto.remove(handle.instance_id)
    elif how == "it ends itself":
        with contextlib.suppress(ConnectionError):
            await rig.call(handle.address, b"exit 3")
        assert (await auto.wait(handle)).code == 3
    else:
        os.kill(handle.shim_pid, signal.SIGKILL)
    await gone(pids)


async def test_a_network_process_whose_shim_is_gone_with_its_directory_is_swept(
    auto: ProcessDriver, tmp_path: Path
) -> None:
    handle = await auto.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    await attached(handle)
    pids = [*beside(tmp_path, handle), *slirps(tmp_path, handle)]
    os.kill(beside(tmp_path, handle)[0], signal.SIGSTOP)  # it does not see the end of its shim
    os.kill(handle.shim_pid, signal.SIGKILL)
    shutil.rmtree(handle.directory)
    assert await auto.sweep(()) == ["i-1"]
    await gone(pids)


async def test_slirp4netns_is_started_again_and_the_log_says_so(
    auto: ProcessDriver, tmp_path: Path, host: Host
) -> None:
    address = own_address()
    port = await host.start(address)
    handle = await auto.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    await attached(handle)
    (first,) = slirps(tmp_path, handle)
    os.kill(first, signal.SIGKILL)
    await gone([first])
    await rig.until(lambda: bool(slirps(tmp_path, handle)), "another")
    await attached(handle)
    assert await rig.ask(handle, fetch(address, port)) == repr(GREETING)
    assert "slirp4netns ended (-9)" in await auto.last_words(handle, max_bytes=1 << 16)


async def test_the_network_is_paid_for_by_its_instance_and_small(auto: ProcessDriver, tmp_path: Path) -> None:
    if not auto.capabilities.hard_limits:
        pytest.skip("no control groups here")
    handle = await auto.start(rig.spec(), rig.prepared(tmp_path))
    await rig.healthy(handle)
    await attached(handle)
    pids = {*beside(tmp_path, handle), *slirps(tmp_path, handle)}
    record = instance_dir.InstanceDirectory(str(tmp_path / "instances"), handle.instance_id).record()
    assert record is not None
    assert pids <= control_groups.members(record.control_group)
    private_kb = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_"):
                private_kb += int(line.split()[1])
    assert private_kb < 12_288
