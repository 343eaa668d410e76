"""Pings and posts to one instance, as the reconciler and the engines send them."""

from pathlib import Path

import pytest
from tests.integration import edge_rig
from tests.integration.edge_rig import Instance, ok, raw

from mooring.invoke import client


@pytest.fixture
def instance(tmp_path: Path):
    one = Instance(tmp_path / "i.sock")
    yield one
    one.join()


async def test_a_ping_gives_the_status_that_came(instance: Instance) -> None:
    assert await client.ping(instance.address, timeout_s=5) == 200
    assert instance.requests[0].start == b"GET /ping HTTP/1.1"
    instance.behave = raw(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    assert await client.ping(instance.address, timeout_s=5) == 503


async def test_a_ping_without_answer_is_none(instance: Instance) -> None:
    instance.behave = lambda wire, _: None
    assert await client.ping(instance.address, timeout_s=0.2) is None
    instance.behave = edge_rig.hang_up
    assert await client.ping(instance.address, timeout_s=5) is None
    instance.close()
    assert await client.ping(instance.address, timeout_s=5) is None
    assert await client.ping("unix:/nowhere/at/all", timeout_s=5) is None
    assert await client.ping("gopher:x", timeout_s=5) is None


async def test_a_socket_with_a_long_path_is_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    one = Instance(tmp_path / "i.sock")
    (tmp_path / "i.sock").rename(deep / "i.sock")
    assert await client.ping(f"unix:{deep / 'i.sock'}", timeout_s=5) == 200
    one.join()


async def test_a_post_gives_status_headers_and_body(instance: Instance) -> None:
    instance.behave = ok(b"[1]")
    answer = await client.post(instance.address, b"1,2", headers=[(b"Content-Type", b"text/csv")], timeout_s=5)
    assert (answer.status, answer.body) == (200, b"[1]")
    assert (b"content-type", b"application/json") in answer.fields
    seen = instance.requests[0]
    assert (seen.start, seen.body, seen.field("content-type")) == (b"POST /invocations HTTP/1.1", b"1,2", "text/csv")


async def test_a_post_says_whether_it_may_have_run(instance: Instance) -> None:
    instance.behave = edge_rig.hang_up
    with pytest.raises(client.InvokeError) as ran:
        await client.post(instance.address, b"", timeout_s=5)
    assert ran.value.sent
    instance.behave = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100)
    with pytest.raises(client.InvokeError, match="over 10 bytes"):
        await client.post(instance.address, b"", timeout_s=5, max_answer_bytes=10)
    instance.close()
    with pytest.raises(client.InvokeError) as refused:
        await client.post(instance.address, b"", timeout_s=5)
    assert not refused.value.sent
