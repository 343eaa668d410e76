"""Listening sockets that are passed on."""

import os
import socket
import stat
from pathlib import Path

import pytest

from mooring.supervisor import sockets
from mooring.supervisor.sockets import ListenError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST", "::1%lo"])
def test_loopback_addresses_are_known(host: str) -> None:
    assert sockets.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "169.254.1.1"])
def test_everything_else_is_beyond_loopback(host: str) -> None:
    assert not sockets.is_loopback(host)


def test_workers_share_one_free_port() -> None:
    made = sockets.listen_tcp("127.0.0.1", 0, 3)
    try:
        (port,) = {listener.getsockname()[1] for listener in made}
        assert port > 0
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    finally:
        for listener in made:
            listener.close()


@pytest.mark.parametrize("shared", [True, False])
def test_a_port_that_another_server_has_is_refused_even_if_it_would_share(shared: bool) -> None:
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"port {port} on 127.0.0.1 is in use"):
            sockets.listen_tcp("127.0.0.1", port, 2)


def test_a_host_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1"):
        sockets.listen_tcp("192.0.2.1", 0, 1)


def test_a_unix_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    sockets.listen_unix(path).close()
    with sockets.listen_unix(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_path_longer_than_an_address_may_be_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with sockets.listen_unix(deep / "x.sock"):
        assert (deep / "x.sock").is_socket()
    assert len(os.listdir("/proc/self/fd")) == before
