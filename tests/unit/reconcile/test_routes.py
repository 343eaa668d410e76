"""The route channel: what subscribers get, when a generation is acknowledged, what slots mean. In virtual time."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from tests.unit.reconcile.harness import SCOPE, Edge, LoopClock, run_virtual

from mooring.domain.channel import Ack, Hello
from mooring.domain.endpoint import EndpointKey
from mooring.domain.ids import EndpointName, PoolId
from mooring.domain.rollout import Traffic
from mooring.domain.routing import Credential
from mooring.kit import counters, frames
from mooring.reconcile import slotfile
from mooring.reconcile.routes import NotAcknowledged, Publisher, check_peer
from mooring.reconcile.slots import SlotsExhausted
from mooring.reconcile.table import VariantKey

KEY = EndpointKey(scope=SCOPE, name=EndpointName("e"))
POOL = PoolId("d.a")
TRAFFIC = (Traffic(variant="a", pool_id=POOL, weight=1.0),)


class Channel:
    def __init__(self, path: Path, *, workers: int = 1, slots_file: Path | None = None) -> None:
        self.path = str(path)
        self.layout = counters.Layout(workers=workers, gauges=4, groups=2)
        self.fd = counters.create(self.layout)
        self.counters = counters.Counters(self.fd, self.layout)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.listener.setblocking(False)
        self.slots_file = slots_file
        self.edges = [Edge(self.path, worker) for worker in range(workers)]
        self.publisher = self.build()

    def build(self) -> Publisher:
        return Publisher(
            listener=self.listener.dup(),
            counters=self.counters,
            clock=LoopClock(),
            slots_file=self.slots_file,
            supervisor_pid=os.getpid(),
        )

    async def aclose(self) -> None:
        for edge in self.edges:
            await edge.aclose()
        await self.publisher.aclose()
        self.listener.close()
        self.counters.close()
        os.close(self.fd)

    async def raw(self, *payloads: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        for payload in payloads:
            writer.write(payload)
        return reader, writer


@pytest.fixture
def played(tmp_path: Path):
    def play(story, *, edges: bool = True, **arguments):
        async def run() -> None:
            channel = Channel(tmp_path / "r", **arguments)
            await channel.publisher.start()
            for edge in channel.edges if edges else ():
                edge.start()
            try:
                await story(channel)
            finally:
                await channel.aclose()

        run_virtual(run())

    return play


def test_nothing_is_published_before_the_state_is_whole(played) -> None:
    async def story(channel: Channel) -> None:
        generation = channel.publisher.set_serving(True)
        await asyncio.sleep(5)
        assert not channel.edges[0].tables
        channel.publisher.release(instances=(), variants=())
        await channel.publisher.acknowledged(generation, timeout_s=5)
        assert channel.edges[0].table.serving

    played(story)


def test_many_changes_travel_in_one_table_and_no_change_in_none(played) -> None:
    async def story(channel: Channel) -> None:
        publisher = channel.publisher
        publisher.release(instances=(), variants=())
        await publisher.acknowledged(publisher.generation, timeout_s=5)
        seen = len(channel.edges[0].tables)
        publisher.claim_variants(KEY, {"a"})
        publisher.claim_instance("i-1")
        publisher.set_traffic(KEY, TRAFFIC)
        publisher.set_members(POOL, {"i-1": "unix:x"})
        credential = Credential(access_key="A", secret_key="S", account="0", arn="arn:aws:iam::0:root")
        generation = publisher.set_credentials([credential])
        await publisher.acknowledged(generation, timeout_s=5)
        assert len(channel.edges[0].tables) == seen + 1
        table = channel.edges[0].table
        assert table.generation == generation
        assert table.credentials == (credential,)
        assert table.endpoints[0].variants[0].instances[0].address == "unix:x"
        assert publisher.set_traffic(KEY, TRAFFIC) == generation
        assert publisher.set_members(POOL, {"i-1": "unix:x"}) == generation
        await asyncio.sleep(5)
        assert len(channel.edges[0].tables) == seen + 1

    played(story)


def test_a_generation_is_acknowledged_when_every_worker_has_it(played) -> None:
    async def story(channel: Channel) -> None:
        publisher = channel.publisher
        channel.edges[1].acks = False
        publisher.release(instances=(), variants=())
        with pytest.raises(NotAcknowledged, match=r"workers \[1\]"):
            await publisher.acknowledged(publisher.generation, timeout_s=3)
        await channel.edges[1].aclose()
        with pytest.raises(NotAcknowledged, match=r"workers \[1\]"):
            await publisher.acknowledged(publisher.generation, timeout_s=3)
        channel.edges[1].acks = True
        channel.edges[1].start()
        await publisher.acknowledged(publisher.generation, timeout_s=3)

    played(story, workers=2)


def test_the_s3_process_gets_the_tables_and_is_not_waited_for(played) -> None:
    async def story(channel: Channel) -> None:
        s3 = Edge(channel.path, -1)
        s3.acks = False
        s3.start()
        channel.publisher.release(instances=(), variants=())
        generation = channel.publisher.set_serving(True)
        await channel.publisher.acknowledged(generation, timeout_s=3)
        await asyncio.sleep(1)
        assert s3.table.generation == generation
        await s3.aclose()

    played(story)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xff\xff\xff",
        frames.pack(b"nonsense"),
        frames.pack(msgspec.json.encode(Hello(worker=7, pid=1))),
        frames.pack(msgspec.json.encode(Hello(worker=0, pid=1)))
        + frames.pack(msgspec.json.encode(Ack(generation=10**6))),
        b"\x00",
    ],
    ids=["oversize frame", "no JSON", "unknown worker", "acknowledges what was not sent", "says nothing"],
)
def test_a_subscriber_that_talks_nonsense_is_dropped_and_the_others_served(played, payload: bytes) -> None:
    async def story(channel: Channel) -> None:
        reader, writer = await channel.raw(payload)
        async with asyncio.timeout(60):
            await reader.read()
        writer.close()
        channel.edges[0].start()
        channel.publisher.release(instances=(), variants=())
        await channel.publisher.acknowledged(channel.publisher.generation, timeout_s=3)

    played(story, edges=False)


def test_a_subscriber_that_reads_nothing_is_dropped(played) -> None:
    async def story(channel: Channel) -> None:
        publisher = channel.publisher
        publisher.release(instances=(), variants=())
        _, writer = await channel.raw(frames.pack(msgspec.json.encode(Hello(worker=0, pid=1))))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(40):
            long = Credential(access_key=str(number), secret_key="S" * 400_000, account="0", arn="arn")
            publisher.set_credentials([long])
            await asyncio.sleep(1)
        assert not publisher._subscribers
        writer.close()

    played(story, edges=False)


def test_a_variants_slot_outlives_its_route_until_its_instances_are_idle(played) -> None:
    async def story(channel: Channel) -> None:
        publisher = channel.publisher
        publisher.release(instances=(), variants=())
        publisher.claim_variants(KEY, {"a", "b"})
        slot = publisher.claim_instance("i-1")
        publisher.set_traffic(KEY, TRAFFIC)
        publisher.set_members(POOL, {"i-1": "unix:x"})
        gauge = channel.counters.gauge(0, slot)
        channel.counters.word[gauge] = 1
        channel.counters.word[channel.counters.group(0, publisher.variant_slot(KEY, "a") or 0)] = 9
        publisher.release_variants(KEY, keep=())
        publisher.set_traffic(KEY, None)
        publisher.set_members(POOL, {})
        publisher.release_variants(KEY, keep=())
        publisher.free_instance("i-1")
        await publisher.acknowledged(publisher.generation, timeout_s=3)
        other = EndpointKey(scope=SCOPE, name=EndpointName("other"))
        publisher.claim_variants(other, {"x"})  # b's slot: nobody used it
        with pytest.raises(SlotsExhausted, match="places for variants"):
            publisher.claim_variants(other, {"x", "y"})
        channel.counters.word[gauge] = 0
        publisher.claim_variants(other, {"x", "y"})
        group = channel.counters.group(0, publisher.variant_slot(other, "y") or 0)
        assert channel.counters.word[group] == 0, "another variant's counts were cleared"

    played(story)


def test_a_restarted_publisher_keeps_slots_and_lets_go_of_what_is_gone(tmp_path: Path) -> None:
    # The slots' file is written by a thread, so this one runs on real time.
    async def story() -> None:
        channel = Channel(tmp_path / "r", slots_file=tmp_path / "slots")
        publisher = channel.publisher
        await publisher.start()
        channel.edges[0].start()
        publisher.release(instances=(), variants=())
        publisher.claim_variants(KEY, {"gone", "kept"})
        kept = publisher.variant_slot(KEY, "kept")
        publisher.claim_instance("i-gone")
        slot = publisher.claim_instance("i-kept")
        await publisher.acknowledged(publisher.set_serving(True), timeout_s=30)
        await publisher.aclose()
        publisher = channel.publisher = channel.build()
        await publisher.start()
        assert publisher.claim_instance("i-kept") == slot
        publisher.release(instances={"i-kept"}, variants={VariantKey(KEY, "kept")})
        await publisher.acknowledged(publisher.generation, timeout_s=30)
        assert publisher.variant_slot(KEY, "kept") == kept
        publisher.claim_instance("i-new")
        assert publisher.instance_slot("i-gone") is None
        await channel.aclose()

    asyncio.run(story())


def test_routes_wait_behind_no_other_work_of_the_process(tmp_path: Path) -> None:
    async def story() -> None:
        busy, free = threading.Event(), threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
        channel = Channel(tmp_path / "r", slots_file=tmp_path / "slots")
        publisher = channel.publisher
        await publisher.start()
        channel.edges[0].start()
        publisher.release(instances=(), variants=())
        await publisher.acknowledged(publisher.generation, timeout_s=30)

        def work() -> None:
            busy.set()
            free.wait(60)

        jobs = [loop.run_in_executor(None, work) for _ in range(3)]
        try:
            publisher.claim_instance("i-1")  # the slots' file is to be written before the table goes out
            await publisher.acknowledged(publisher.set_serving(True), timeout_s=30)
            assert busy.is_set()
            assert not any(job.done() for job in jobs)
            assert slotfile.load(tmp_path / "slots").instances == {"i-1": publisher.instance_slot("i-1")}
        finally:
            free.set()
            await asyncio.gather(*jobs)
            await channel.aclose()

    asyncio.run(story())


def test_a_disk_that_hangs_keeps_no_route_back_and_the_newest_slots_are_written_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, save = threading.Event(), slotfile.save
    writes: list[slotfile.Held] = []

    def slow(path: Path, held: slotfile.Held) -> None:
        writes.append(held)
        free.wait(60)
        save(path, held)

    monkeypatch.setattr(slotfile, "save", slow)

    async def story() -> None:
        channel = Channel(tmp_path / "r", slots_file=tmp_path / "slots")
        publisher = channel.publisher
        await publisher.start()
        channel.edges[0].start()
        try:
            publisher.release(instances=(), variants=())
            for number in range(3):
                publisher.claim_instance(f"i-{number}")
                await publisher.acknowledged(publisher.set_serving(number % 2 == 0), timeout_s=30)
            assert not (tmp_path / "slots").exists()
            free.set()
            async with asyncio.timeout(30):
                while set(slotfile.load(tmp_path / "slots").instances) != {"i-0", "i-1", "i-2"}:
                    await asyncio.sleep(0.01)
            assert len(writes) == 2, "what came while one was written was not written as one"
        finally:
            free.set()
            await channel.aclose()

    asyncio.run(story())


def test_a_slots_file_that_cannot_be_written_is_written_with_the_next_table(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        path = tmp_path / "later" / "slots"
        channel = Channel(tmp_path / "r", slots_file=path)
        publisher = channel.publisher
        await publisher.start()
        channel.edges[0].start()
        try:
            publisher.release(instances=(), variants=())
            slot = publisher.claim_instance("i-1")
            await publisher.acknowledged(publisher.set_serving(True), timeout_s=30)
            assert "cannot write" in caplog.text
            path.parent.mkdir()
            await publisher.acknowledged(publisher.set_serving(False), timeout_s=30)
            assert slotfile.load(path).instances == {"i-1": slot}
        finally:
            await channel.aclose()

    asyncio.run(story())


def test_a_worker_that_is_alive_but_silent_is_killed(played) -> None:
    async def story(channel: Channel) -> None:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            channel.counters.begin(0, child.pid)
            for _ in range(20):
                channel.counters.beat(0)
                await asyncio.sleep(1)
            assert child.poll() is None
            await asyncio.sleep(10)
            assert child.wait(timeout=30) == -9
        finally:
            child.kill()
            child.communicate()

    played(story)


def test_a_peer_of_another_user_is_refused() -> None:
    class Peer:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            return struct.pack("3i", 1, os.getuid() + 1, 1)

    with pytest.raises(PermissionError, match="user"):
        check_peer(Peer())  # type: ignore[arg-type]
    mine, other = socket.socketpair()
    with mine, other:
        check_peer(mine)
