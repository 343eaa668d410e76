"""A sibling that answers before it has the whole request, and goes: its answer reaches the client all the same."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration import edge_rig
from tests.integration.edge_rig import Lost, Rig, Wire

DENIED = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
SIZED = b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"PUT /b/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with edge_rig.running(tmp_path) as rig:
        yield rig


@pytest.fixture
def sibling(rig: Rig) -> Iterator[Callable[[], Wire]]:
    """In S3's place: accepts a connection, and does what the test does."""
    rig.s3.close()
    path = rig.directory / "s3.sock"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        listener.settimeout(edge_rig.DEADLINE_S)
        wires: list[Wire] = []

        def accept() -> Wire:
            wires.append(Wire(listener.accept()[0]))
            return wires[-1]

        yield accept
        for wire in wires:
            wire.close()


class Standstill:
    """The worker's loop stands still: what happens meanwhile it sees at once, in the order in which it happened."""

    def __init__(self, rig: Rig) -> None:
        self._still, self._go = threading.Event(), threading.Event()
        rig._loop.call_soon_threadsafe(self._stand)
        assert self._still.wait(edge_rig.DEADLINE_S)

    def _stand(self) -> None:
        self._still.set()
        self._go.wait(edge_rig.DEADLINE_S)

    def end(self) -> None:
        self._go.set()


@pytest.mark.parametrize("more", [b"x" * 1000, b"x" * (1 << 20)], ids=["small", "large"])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("size", [2, 100_000])
def test_an_answer_behind_a_failed_write_is_the_answer(
    rig: Rig, sibling: Callable[[], Wire], size: int, chunked: bool, more: bytes
) -> None:
    client = rig.connect()
    client.send(CHUNKED if chunked else SIZED % (2 * len(more)))
    peer = sibling()
    peer.head()
    still = Standstill(rig)
    part = b"%x\r\n%b\r\n" % (len(more), more) if chunked else more
    sender = threading.Thread(target=client.send, args=(part,), daemon=True)
    sender.start()
    if len(part) < 2000:
        sender.join()  # the worker will read the client first, and write to a peer that is gone
    peer.send(DENIED % size + b"n" * size)
    peer.close()
    still.end()
    heard = client.read()
    assert (heard.status, len(heard.body), heard.field("connection")) == (403, size, "close")
    sender.join()
    client.send(b"0\r\n\r\n" if chunked else more)
    assert client.at_end()


def test_an_answer_that_broke_off_behind_a_failed_write_breaks_off(rig: Rig, sibling: Callable[[], Wire]) -> None:
    client = rig.connect()
    client.send(SIZED % 2000)
    peer = sibling()
    peer.head()
    still = Standstill(rig)
    client.send(b"x" * 1000)
    peer.send(DENIED % 100 + b"half")
    peer.close()
    still.end()
    with pytest.raises((Lost, ConnectionResetError)):
        client.read()


@pytest.mark.parametrize("last_words", [b"", b"HTTP/1.1 403 Forb", b"no HTTP\r\n\r\n"])
def test_a_sibling_that_goes_without_an_answer_is_not_reachable(
    rig: Rig, sibling: Callable[[], Wire], last_words: bytes
) -> None:
    client = rig.connect()
    client.send(SIZED % 2000)
    peer = sibling()
    peer.head()
    still = Standstill(rig)
    client.send(b"x" * 1000)
    peer.send(last_words)
    peer.close()
    still.end()
    heard = client.read()
    assert heard.status == 503
    assert b"<Code>ServiceUnavailable</Code>" in heard.body


def test_once_an_answer_begins_the_body_is_not_sent_on_and_does_not_block_the_client(
    rig: Rig, sibling: Callable[[], Wire]
) -> None:
    client, size = rig.connect(), 8 << 20  # far more than the sockets between hold
    client.send(SIZED % (3 + size) + b"abc")
    peer = sibling()
    peer.head()
    assert peer.exactly(3) == b"abc"
    peer.send(DENIED % 4 + b"no")
    assert client.head().status == 403
    client.send(b"x" * size)  # the peer reads none of it
    peer.send(b"pe")
    assert client.exactly(4) == b"nope"
    assert client.at_end()
    assert peer.at_end(), "the body went on to a peer that had answered"


def test_a_body_that_a_slow_sibling_held_up_flows_off_once_it_answers(rig: Rig, sibling: Callable[[], Wire]) -> None:
    client, size = rig.connect(), 8 << 20
    client.send(SIZED % size)
    peer = sibling()
    peer.head()
    sender = threading.Thread(target=client.send, args=(b"x" * size,), daemon=True)
    sender.start()
    peer.send(DENIED % 4 + b"no")
    sender.join(edge_rig.DEADLINE_S)
    assert not sender.is_alive()
    peer.send(b"pe")
    assert client.read().body == b"nope"
    assert client.at_end()
