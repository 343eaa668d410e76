"""The gateway's own code on the request path, without sockets, loop or kernel: microseconds of one thread per request.

    signed request ─▶ Connection ─▶ Gateway ─▶ Upstream ─▶ transport that only counts ─▶ answer ─▶ … ─▶ Connection

What else runs on the machine disturbs it little (the best of many batches counts), so it tells small changes apart that
`bench.gateway` cannot. It says nothing of system calls and cold caches: in the running worker a request costs some two to
three times as much. `python -m bench.inprocess [--parsed] [--body BYTES] [--profile]`
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
import random
import struct
import sys
import tempfile
import time
from pathlib import Path

from bench import gateway as bench

from mooring.domain import routing
from mooring.edge.worker import Edge
from mooring.gateway.server import GatewayLimits
from mooring.kit import counters, tasks
from mooring.kit.clock import SystemClock
from mooring.net import server
from mooring.net.connection import Connection
from mooring.net.upstream import Upstream

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\r\n{"predictions":[0.12345678]}'
CLIENTS = 16
BATCH = 2000


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.last = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.last = bytes(data[:12])

    def writelines(self, parts: object) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def is_closing(self) -> bool:
        return False


def signed_requests(body_bytes: int) -> list[bytes]:
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as directory:
        path = Path(directory) / "requests"
        bench.sign_requests(path, body_bytes, bench.DISTINCT)
        data = path.read_bytes()
    requests, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        requests.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return requests


async def measure(options: argparse.Namespace) -> None:
    upstreams: list[Upstream] = []

    async def connect(address: str, on_gone: object, /, *, timeout_s: float) -> Upstream:
        upstream = Upstream(on_gone)  # type: ignore[arg-type]
        upstream.connection_made(Transport())
        upstreams.append(upstream)
        return upstream

    layout = counters.Layout(workers=1)
    group = tasks.Group("bench")
    edge = Edge(
        worker=0,
        counters=counters.Counters(counters.create(layout), layout),
        control_socket="/nowhere",
        s3_socket="/nowhere",
        region=bench.REGION,
        gateway_limits=GatewayLimits(),
        http_limits=server.Limits(),
        clock=SystemClock(),
        random=random.random,
        group=group,
    )
    edge.gateway.router._connector = connect
    if options.parsed:
        edge.server.recall = lambda connection, data: False
    instance = routing.InstanceRoute(instance_id="i-0", slot=0, address="unix:/nowhere")
    variant = routing.VariantRoute(name="AllTraffic", slot=0, weight=1.0, instances=(instance,))
    endpoint = routing.EndpointRoute(account=bench.ACCOUNT, region=bench.REGION, name="bench", variants=(variant,))
    edge.swap(routing.RouteTable(generation=1, endpoints=(endpoint,), credentials=(bench.KEY,), serving=True))
    requests = signed_requests(options.body)
    clients = [(Connection(edge.server), Transport()) for _ in range(CLIENTS)]
    for connection, transport in clients:
        connection.connection_made(transport)
    clients[0][0].data_received(requests[0])
    while not upstreams:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    upstreams[0].data_received(ANSWER)

    def batch() -> None:
        upstream = upstreams[0]
        for index in range(BATCH):
            clients[index % CLIENTS][0].data_received(requests[index % len(requests)])
            upstream.data_received(ANSWER)

    batch()
    if any(transport.last != b"HTTP/1.1 200" for _, transport in clients) or len(upstreams) != 1:
        raise RuntimeError("not every request was answered")
    gc.collect()
    gc.freeze()
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(batch)
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
    else:
        spent = []
        for _ in range(options.batches):
            began_ns = time.thread_time_ns()
            batch()
            spent.append(time.thread_time_ns() - began_ns)
        print(f"{min(spent) / BATCH / 1000:.2f} µs per request (best of {len(spent)} batches of {BATCH})")
    edge.gateway.close()
    await group.aclose()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.inprocess", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--body", type=int, default=1000, help="bytes of a request's body")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--parsed", action="store_true", help="every request goes through the parser")
    parser.add_argument("--profile", action="store_true", help="cProfile of one batch instead")
    asyncio.run(measure(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
