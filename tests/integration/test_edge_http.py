"""HTTP as hostile and as ordinary clients send it, and everything that is not an invocation."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import botocore.config
import botocore.exceptions
import pytest
from tests.integration import edge_rig
from tests.integration.edge_rig import Heard, Lost, Rig, Wire, ok, raw, request, variant

from mooring.net.server import Limits


@pytest.fixture
def rig(tmp_path: Path):
    limits = Limits(head_timeout_s=1, idle_timeout_s=2, stall_timeout_s=1, linger_timeout_s=2, head_bytes=16 << 10)
    with edge_rig.running(tmp_path, http_limits=limits) as rig:
        yield rig


HEALTH = b"GET /_mooring/health HTTP/1.1\r\nHost: a\r\n\r\n"


def answer_to(rig: Rig, data: bytes) -> Heard:
    wire = rig.connect()
    wire.send(data)
    return wire.read()


# hostile ---------------------------------------------------------------------------------------------------------------
POST = b"POST /x HTTP/1.1\r\nHost: a\r\n"
BOTH_FRAMINGS = "Content-Length and Transfer-Encoding are both there: a body has a length or is chunked."


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (POST + b"Content-Length: +3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"X: a\r\n b\r\n\r\n", 400),
        (POST + b"X: a\0b\r\n\r\n", 400),
        (POST + b"X: a\rY: b\r\n\r\n", 400),
        (POST + b"X: a\nY: b\r\n\r\n", 400),
        (POST + b"X : a\r\n\r\n", 400),
        (POST + b": a\r\n\r\n", 400),
        (POST + b"Host: b\r\n\r\n", 400),
        (POST + b"Authorization: a\r\nAuthorization: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (POST + b"Expect: miracles\r\n\r\n", 417),
        (POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc", 400),
        (POST + b"X: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (POST + b"X: " + b"y" * 20_000, 431),
        (b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (POST + b"X: y\r\n" * 201 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"hello\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_a_request_that_two_readers_could_read_differently_is_refused_and_the_connection_closed(
    rig: Rig, data: bytes, status: int
) -> None:
    wire = rig.connect()
    wire.send(data)
    heard = wire.read()
    assert heard.status == status
    assert heard.field("connection") == "close"
    wire.sock.shutdown(socket.SHUT_WR)
    assert wire.at_end()
    assert rig.s3.requests == []


def test_fed_byte_by_byte_a_request_is_the_same(rig: Rig) -> None:
    instance = rig.serve()
    wire = rig.connect()
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request(b"abc", chunks=[b"ab", b"c"]):
        wire.send(bytes([byte]))
    assert wire.read().status == 200
    assert instance.requests[0].body == b"abc"


def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    def echo(wire: Wire, heard: Heard) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(heard.body) + heard.body)

    rig.serve(echo)
    wire = rig.connect()
    bodies = [b"%d" % index * 50 for index in range(12)]
    wire.send(b"".join(request(body) if index % 3 else HEALTH for index, body in enumerate(bodies)))
    for index, body in enumerate(bodies):
        assert wire.read().body == (body if index % 3 else b"ok\n")
    wire.send(HEALTH)
    assert wire.read().status == 200


def test_a_flood_of_pipelined_requests_is_cut_off(rig: Rig) -> None:
    go = threading.Event()

    def wait(wire: Wire, heard: Heard) -> None:
        go.wait(5)
        ok()(wire, heard)

    rig.serve(wait)
    wire = rig.connect()
    wire.send(request() + HEALTH * 500)
    with pytest.raises((Lost, ConnectionResetError)):
        wire.read()
    go.set()


def test_garbage_behind_a_request_does_not_spoil_its_answer(rig: Rig) -> None:
    rig.serve()
    wire = rig.connect()
    wire.send(request() + b"\0\0\0garbage\r\n\r\n")
    assert wire.read().status == 200
    assert wire.at_end()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BOTH_FRAMINGS),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", BOTH_FRAMINGS),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "The chunked body is not well formed: "),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n", "The chunked body is not well formed: "),
        (POST + b"Content-Length: +3\r\n\r\nabc", "The request is not HTTP: Invalid character in Content-Length."),
        (b"\x16\x03\x01\x02\x00\x01", "The request is not HTTP: "),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(rig: Rig, data: bytes, text: str) -> None:
    wire = rig.connect()
    wire.send(data)
    heard = wire.read()
    assert (heard.status, heard.field("connection")) == (400, "close")
    assert heard.body.decode().startswith(text)
    assert heard.body.endswith(b".")
    assert wire.at_end()


def test_slow_and_idle_clients_are_let_go(rig: Rig) -> None:
    rig.serve()
    slow, idle, stalled = rig.connect(), rig.connect(), rig.connect()
    slow.send(b"GET / HTTP/1.1\r\nHo")
    stalled.send(request(b"abc", declared=100))
    assert slow.read().status == 408
    assert idle.at_end()
    assert stalled.at_end()
    rig.settled()


# ordinary --------------------------------------------------------------------------------------------------------------
def test_health_follows_the_table_and_keeps_the_connection(rig: Rig) -> None:
    wire = rig.connect()
    wire.send(HEALTH)
    assert wire.read().status == 503
    rig.publish(variant([]), serving=True)
    wire.send(HEALTH)
    heard = wire.read()
    assert (heard.status, heard.field("connection")) == (200, None)
    wire.send(b"HEAD /_mooring/health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.read(no_body=True).status == 200
    wire.send(HEALTH)
    assert wire.read().body == b"ok\n"


def test_an_http_1_0_client_is_answered_and_closed(rig: Rig) -> None:
    rig.serve(
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n")
    )
    wire = rig.connect()
    wire.send(request().replace(b"HTTP/1.1", b"HTTP/1.0"))
    heard = wire.read()
    assert (heard.status, len(heard.body)) == (200, 100_000)
    assert heard.field("transfer-encoding") is None
    assert wire.at_end()


def test_connection_close_is_honoured(rig: Rig) -> None:
    wire = rig.connect()
    wire.send(HEALTH.replace(b"Host", b"Connection: close\r\nHost"))
    assert wire.read().field("connection") == "close"
    assert wire.at_end()


# forwarding ------------------------------------------------------------------------------------------------------------
def test_a_forwarded_request_keeps_target_and_values(rig: Rig) -> None:
    target = b"/bucket/a%2Fb//c%20d?x=1&y=%41"
    answer_to(
        rig,
        b"PUT " + target + b" HTTP/1.1\r\nHost: a:1\r\nX-Amz-Meta-A:  two  words \r\nConnection: keep-alive, x-hop\r\n"
        b"X-Hop: gone\r\nTE: trailers\r\nContent-Length: 3\r\n\r\nabc",
    )
    (seen,) = rig.s3.requests
    assert seen.start == b"PUT " + target + b" HTTP/1.1"
    assert seen.body == b"abc"
    assert dict(seen.fields) == {
        b"host": b"a:1",
        b"x-amz-meta-a": b"two  words",
        b"content-length": b"3",
    }


def test_bodies_are_streamed_both_ways_in_either_framing(rig: Rig) -> None:
    def echo(wire: Wire, heard: Heard) -> None:
        if heard.field("transfer-encoding"):
            wire.send(b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nX-A: 2\r\n\r\n")
            for start in range(0, len(heard.body), 70_000):
                part = heard.body[start : start + 70_000]
                wire.send(b"%x\r\n%b\r\n" % (len(part), part))
            wire.send(b"0\r\n\r\n")
        else:
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(heard.body) + heard.body)

    rig.s3.behave = echo
    body = os.urandom(3 << 20)
    wire = rig.connect()
    wire.send(b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert wire.read().body == body
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(body[i : i + 9999]), body[i : i + 9999]) for i in range(0, len(body), 9999)
    )
    wire.send(b"PUT /b/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    heard = wire.read()
    assert heard.body == body
    assert heard.start == b"HTTP/1.1 200 Fine"
    assert [value for name, value in heard.fields if name == b"x-a"] == [b"1", b"2"]
    assert rig.s3.connections == 1


def test_answers_without_a_body_are_framed_right(rig: Rig) -> None:
    wire = rig.connect()
    rig.s3.behave = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: x\r\n\r\n")
    wire.send(b"HEAD /b/k HTTP/1.1\r\nHost: a\r\n\r\n")
    heard = wire.read(no_body=True)
    assert (heard.field("content-length"), heard.field("etag")) == ("1000", "x")
    rig.s3.behave = raw(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n")
    wire.send(b"GET /b/k HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.read(no_body=True).status == 304
    rig.s3.behave = raw(b"HTTP/1.1 204 No Content\r\n\r\n")
    wire.send(b"DELETE /b/k HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.read(no_body=True).status == 204
    rig.s3.behave = ok(b"end")
    wire.send(b"GET /b/k HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.read().body == b"end"


def test_the_siblings_leave_to_continue_is_passed_on(rig: Rig) -> None:
    wire = rig.connect()
    listening = threading.Event()

    path = rig.directory / "s3.sock"
    rig.s3.close()
    path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        peer = Wire(listener.accept()[0])
        listening.set()
        peer.head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert peer.exactly(3) == b"abc"
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        peer.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    wire.send(b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert wire.read().status == 100
    wire.send(b"abc")
    assert wire.read().body == b"ok"
    thread.join()
    listener.close()


def test_an_early_answer_reaches_a_client_that_still_sends(rig: Rig) -> None:
    rig.s3.close()
    path = rig.directory / "s3.sock"
    path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        peer = Wire(listener.accept()[0])
        peer.head()
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        peer.at_end()
        peer.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    wire = rig.connect()
    wire.send(b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
    heard = wire.read()
    assert (heard.status, heard.body, heard.field("connection")) == (403, b"no", "close")
    wire.send(b"x" * 97)
    assert wire.at_end()
    thread.join()
    listener.close()


def test_a_sibling_that_is_away_is_503_in_the_services_own_form(rig: Rig) -> None:
    rig.api.close()
    rig.s3.close()
    json_form = answer_to(rig, request(path=b"/", service="sagemaker", fields=[(b"x-amz-target", b"SageMaker.X")]))
    assert (json_form.status, json_form.json()["__type"]) == (503, "ServiceUnavailable")
    xml_form = answer_to(rig, b"GET /bucket HTTP/1.1\r\nHost: a\r\n\r\n")
    assert xml_form.status == 503
    assert b"<Code>ServiceUnavailable</Code>" in xml_form.body
    rig.api.open()
    assert answer_to(rig, request(path=b"/")).status == 200


def test_a_sibling_that_dies_in_an_answer_breaks_the_connection(rig: Rig) -> None:
    rig.s3.behave = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", close=True)
    with pytest.raises((Lost, ConnectionResetError)):
        answer_to(rig, b"GET /b/k HTTP/1.1\r\nHost: a\r\n\r\n")


def test_a_slow_sibling_stops_the_client_from_being_read(rig: Rig) -> None:
    rig.s3.close()
    path = rig.directory / "s3.sock"
    path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    size, got = 64 << 20, []
    go = threading.Event()

    def serve() -> None:
        peer = Wire(listener.accept()[0])
        peer.head()
        go.wait(edge_rig.DEADLINE_S)
        count = len(peer.buffer)
        while count < size:
            count += len(peer.sock.recv(1 << 20))
        got.append(count)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        peer.close()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    wire = rig.connect()
    wire.send(b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    sent = []

    def send() -> None:
        for _ in range(size >> 20):
            wire.send(b"z" * (1 << 20))
            sent.append(1)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    before = -1
    while before != len(sent):
        before = len(sent)
        time.sleep(0.1)
    assert len(sent) < size >> 20
    go.set()
    assert wire.read().status == 200
    sender.join()
    server.join()
    assert got == [size]
    listener.close()


# the route channel -----------------------------------------------------------------------------------------------------
def test_nothing_is_accepted_before_the_first_table(tmp_path: Path) -> None:
    rig = Rig(tmp_path, serve=False)
    try:
        rig.control.close()
        rig.start()
        wire = rig.connect()  # the kernel queues it: the socket listens already
        wire.send(HEALTH)
        wire.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.read()
        wire.sock.settimeout(edge_rig.DEADLINE_S)
        rig.control.open()
        assert wire.read().status == 503
    finally:
        rig.close()


def test_the_last_table_serves_while_control_is_away_and_the_next_is_taken(rig: Rig) -> None:
    rig.serve(ok(b"old"))
    rig.control.close()
    assert rig.invoke().body == b"old"
    new = rig.instance(ok(b"new"))
    rig.control.acked.clear()
    rig.control.open()
    edge_rig.wait_for(lambda: rig.control.acked, "the worker to come back")
    assert rig.invoke().body == b"old"
    rig.generation = 0  # a restarted control counts afresh
    rig.control.acked.clear()
    rig.publish(variant([new]))
    assert rig.invoke().body == b"new"
    assert {hello.worker for hello in rig.control.hellos} == {0}


def test_what_was_acknowledged_is_true_on_every_connection(rig: Rig) -> None:
    wires = [rig.connect() for _ in range(4)]
    for turn in range(15):
        instance = rig.instance(ok(b"%d" % turn))
        rig.publish(variant([instance], first=turn))
        for wire in wires:
            wire.send(request())
            assert wire.read().body == b"%d" % turn


def test_the_worker_shows_signs_of_life(rig: Rig) -> None:
    edge_rig.wait_for(lambda: rig.counters.pid(0) == os.getpid(), "the worker to begin")
    before = rig.counters.beats(0)
    edge_rig.wait_for(lambda: rig.counters.beats(0) > before + 1, "two heartbeats")


# the end ---------------------------------------------------------------------------------------------------------------
def test_draining_answers_what_is_owed_and_closes_the_rest(rig: Rig) -> None:
    go = threading.Event()

    def wait(wire: Wire, heard: Heard) -> None:
        go.wait(edge_rig.DEADLINE_S)
        ok(b"whole")(wire, heard)

    instance = rig.serve(wait)
    idle, busy = rig.connect(), rig.connect()
    idle.send(HEALTH)
    assert idle.read().status == 200
    busy.send(request())
    edge_rig.wait_for(lambda: instance.requests, "the request to arrive")
    rig.begin_stop()
    assert idle.at_end()
    go.set()
    heard = busy.read()
    assert (heard.body, heard.field("connection")) == (b"whole", "close")
    assert busy.at_end()
    rig.join()
    assert rig.error is None


def test_sigterm_ends_a_worker_process_with_status_zero(tmp_path: Path) -> None:
    control = edge_rig.Control(tmp_path / "routes.sock")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    code = f"""
import asyncio, uvloop
from mooring.edge import worker
from mooring.kit import counters
layout = counters.Layout(workers=1, gauges=8, groups=2)
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    shared = counters.Counters(counters.create(layout), layout)
    sockets = dict(control_socket="c", s3_socket="s", routes_socket={str(control.path)!r})
    runner.run(worker.run(listen_fd={listener.fileno()}, worker=0, counters=shared, region="us-east-1", **sockets))
"""
    process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[listener.fileno()])
    try:
        port = listener.getsockname()[1]
        wire = Wire(socket.create_connection(("127.0.0.1", port), edge_rig.DEADLINE_S))
        wire.send(HEALTH)
        assert wire.read().status == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(edge_rig.DEADLINE_S) == 0
        assert wire.at_end()
        wire.close()
    finally:
        process.kill()
        process.wait()
        listener.close()
        control.close()


# a real client ---------------------------------------------------------------------------------------------------------
def client_of(rig: Rig) -> object:
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=f"http://127.0.0.1:{rig.port}",
        region_name=edge_rig.REGION,
        aws_access_key_id=edge_rig.KEY.access_key,
        aws_secret_access_key=edge_rig.KEY.secret_key,
        config=botocore.config.Config(retries={"max_attempts": 0}),
    )


def test_boto3_invokes_and_reads_its_errors(rig: Rig) -> None:
    rig.serve(ok(b"[1]", b"X-Amzn-SageMaker-Custom-Attributes: c=1\r\n"))
    client = client_of(rig)
    answer = client.invoke_endpoint(  # type: ignore[attr-defined]
        EndpointName="demo", Body=b"1,2", ContentType="text/csv", CustomAttributes="a=b", InferenceId="x", Accept="*/*"
    )
    assert answer["Body"].read() == b"[1]"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["CustomAttributes"] == "c=1"
    assert answer["ContentType"] == "application/json"
    assert answer["ResponseMetadata"]["RequestId"]
    big = b"z" * (3 << 20)
    assert client.invoke_endpoint(EndpointName="demo", Body=big)["Body"].read() == b"[1]"  # type: ignore[attr-defined]
    assert rig.instances[0].requests[-1].body == big
    with pytest.raises(client.exceptions.ValidationError) as caught:  # type: ignore[attr-defined]
        client.invoke_endpoint(EndpointName="nope", Body=b"")  # type: ignore[attr-defined]
    assert caught.value.response["Error"]["Message"] == "Endpoint nope of account 000000000000 not found."
    rig.instances[0].behave = raw(b"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\nbad")
    with pytest.raises(client.exceptions.ModelError) as failed:  # type: ignore[attr-defined]
        client.invoke_endpoint(EndpointName="demo", Body=b"")  # type: ignore[attr-defined]
    assert failed.value.response["OriginalStatusCode"] == 500
    assert failed.value.response["OriginalMessage"] == "bad"
    assert failed.value.response["LogStreamArn"].startswith("arn:aws:logs:us-east-1:000000000000:")
    with pytest.raises(botocore.exceptions.ClientError) as large:
        client.invoke_endpoint(EndpointName="demo", Body=b"x" * (26 << 20))  # type: ignore[attr-defined]
    assert large.value.response["Error"] == {"Code": "413", "Message": "HTTP content length exceeded 26214400 bytes."}
    client.close()  # type: ignore[attr-defined]
