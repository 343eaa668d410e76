"""InvokeEndpoint through a running worker: what reaches the model, what comes back, and what happens when it goes wrong."""

import socket
import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest
from tests.integration import edge_rig
from tests.integration.edge_rig import Heard, Rig, Wire, ok, raw, request, variant

from mooring.gateway.server import GatewayLimits
from mooring.invoke import counts


@pytest.fixture
def rig(tmp_path: Path):
    with edge_rig.running(
        tmp_path, gateway_limits=GatewayLimits(invocation_timeout_s=0.4, admission_wait_s=0.6, max_body_bytes=2 << 20)
    ) as rig:
        yield rig


def error_of(heard: Heard) -> tuple[int, str | None, str]:
    return heard.status, heard.field("x-amzn-errortype"), str(heard.json().get("Message"))


# what crosses the boundary ---------------------------------------------------------------------------------------------
def test_the_model_sees_the_body_and_only_the_headers_that_the_api_knows(rig: Rig) -> None:
    instance = rig.serve()
    heard = rig.invoke(
        b"1,2,3",
        fields=[
            (b"content-type", b"text/csv"),
            (b"accept", b"application/json"),
            (b"x-amzn-sagemaker-custom-attributes", b"trace=1"),
            (b"x-amzn-sagemaker-inference-id", b"abc"),
        ],
        unsigned=[(b"x-mine", b"dropped"), (b"user-agent", b"me")],
    )
    assert heard.status == 200
    (seen,) = instance.requests
    assert seen.start == b"POST /invocations HTTP/1.1"
    assert seen.body == b"1,2,3"
    assert {name.lower(): value for name, value in seen.fields} == {
        b"host": b"localhost:8080",
        b"content-length": b"5",
        b"content-type": b"text/csv",
        b"accept": b"application/json",
        b"x-amzn-sagemaker-custom-attributes": b"trace=1",
        b"x-amzn-sagemaker-inference-id": b"abc",
    }


def test_no_content_type_or_accept_is_invented(rig: Rig) -> None:
    instance = rig.serve()
    rig.invoke(b"x")
    assert {name.lower() for name, _ in instance.requests[0].fields} == {b"host", b"content-length"}


def test_the_client_gets_the_body_the_known_headers_and_the_variant(rig: Rig) -> None:
    rig.serve(ok(b"\x00\xff", b"X-Amzn-SageMaker-Custom-Attributes: a=b\r\nServer: secret\r\nSet-Cookie: x\r\n"))
    heard = rig.invoke()
    assert (heard.status, heard.body) == (200, b"\x00\xff")
    names = {name.lower() for name, _ in heard.fields}
    assert names == {
        b"date",
        b"x-amzn-requestid",
        b"x-amzn-invoked-production-variant",
        b"content-type",
        b"x-amzn-sagemaker-custom-attributes",
        b"content-length",
    }
    assert heard.field("x-amzn-invoked-production-variant") == "AllTraffic"


def test_any_2xx_of_the_model_is_a_success(rig: Rig) -> None:
    rig.serve(raw(b"HTTP/1.1 204 No Content\r\n\r\n"))
    heard = rig.invoke()
    assert (heard.status, heard.body) == (200, b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
    ],
)
def test_every_framing_of_an_answer_is_understood(rig: Rig, answer: bytes) -> None:
    rig.serve(raw(answer))
    for _ in range(3):
        assert rig.invoke().body == b"abcde"


def test_an_answer_without_length_ends_with_the_connection(rig: Rig) -> None:
    instance = rig.serve(raw(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\nabcde", close=True))
    assert [rig.invoke().body for _ in range(3)] == [b"abcde"] * 3
    assert instance.connections == 3


def test_connections_to_an_instance_are_kept(rig: Rig) -> None:
    instance = rig.serve()
    wire = rig.connect()
    for _ in range(20):
        wire.send(request())
        assert wire.read().status == 200
    assert instance.connections == 1


def test_a_chunked_request_is_taken_and_measured(rig: Rig) -> None:
    instance = rig.serve()
    assert rig.invoke(chunks=[b"ab", b"cde"]).status == 200
    assert instance.requests[0].body == b"abcde"
    heard = rig.invoke(chunks=[b"x" * (1 << 20)] * 3)
    assert (heard.status, heard.body) == (413, b"HTTP content length exceeded 2097152 bytes.")


def test_a_large_body_and_a_large_answer_arrive_byte_for_byte(rig: Rig) -> None:
    def echo(wire: Wire, heard: Heard) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(heard.body) + heard.body)

    rig.serve(echo)
    body = b"".join(sha256(b"%d" % index).digest() for index in range(60_000))
    assert rig.invoke(body).body == body


def test_a_large_chunked_answer_is_streamed_chunked(rig: Rig) -> None:
    def many(wire: Wire, _: Heard) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for index in range(40):
            wire.send(b"2710\r\n" + b"%d" % (index % 10) * 10_000 + b"\r\n")
        wire.send(b"0\r\n\r\n")

    rig.serve(many)
    heard = rig.invoke()
    assert heard.field("transfer-encoding") == "chunked"
    assert heard.body == b"".join(b"%d" % (index % 10) * 10_000 for index in range(40))


def test_a_slow_client_stops_the_model_from_being_read(rig: Rig) -> None:
    size = 64 << 20
    sent = []

    def big(wire: Wire, _: Heard) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = b"z" * (1 << 20)
        for _ in range(size >> 20):
            wire.send(block)
            sent.append(1)

    rig.serve(big)
    wire = rig.connect()
    wire.send(request())
    heard = wire.head()
    assert heard.status == 200
    edge_rig.wait_for(lambda: sent, "the model to begin")
    before = -1
    while before != len(sent):  # until nothing moves any more
        before = len(sent)
        time.sleep(0.1)
    assert len(sent) < size >> 20
    got = len(wire.buffer)
    while got < size:
        got += len(wire.sock.recv(1 << 20))
    assert got == size


# who may --------------------------------------------------------------------------------------------------------------
def test_a_wrong_signature_reaches_no_model(rig: Rig) -> None:
    instance = rig.serve()
    assert error_of(rig.invoke(secret="wrong"))[:2] == (403, "InvalidSignatureException")
    assert error_of(rig.invoke(b"tampered", signed_body=b"original"))[:2] == (403, "InvalidSignatureException")
    assert error_of(rig.invoke(access_key="AKIDNOBODY"))[:2] == (403, "UnrecognizedClientException")
    assert error_of(rig.invoke(service="sts"))[:2] == (403, "InvalidSignatureException")
    assert error_of(rig.invoke(now_s=time.time() - 1200))[:2] == (403, "InvalidSignatureException")
    assert instance.requests == []


def test_what_the_head_tells_is_refused_before_the_body_is_read(rig: Rig) -> None:
    rig.serve()
    for kwargs in ({"access_key": "AKIDNOBODY"}, {"now_s": 1e9}, {"declared": 3 << 20}):
        wire = rig.connect()
        wire.send(request(b"", **{"declared": 100, **kwargs}))
        heard = wire.read()
        assert heard.status == (413 if "declared" in kwargs else 403)
        assert heard.field("connection") == "close"


def test_a_body_over_the_limit_gets_the_plain_text_answer_while_it_is_sent(rig: Rig) -> None:
    rig.serve()
    heard = rig.invoke(b"x" * (5 << 20))
    assert (heard.status, heard.body) == (413, b"HTTP content length exceeded 2097152 bytes.")
    assert heard.field("x-amzn-errortype") is None


def test_an_unsigned_request_is_refused(rig: Rig) -> None:
    rig.serve()
    wire = rig.connect()
    wire.send(b"POST /endpoints/demo/invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
    assert error_of(wire.read())[:2] == (403, "MissingAuthenticationTokenException")


def test_leave_to_send_the_body_is_given_after_the_head_is_proved(rig: Rig) -> None:
    rig.serve()
    wire = rig.connect()
    whole = request(b"abc", unsigned=[(b"expect", b"100-continue")])
    wire.send(whole[:-3])
    assert wire.read().start == b"HTTP/1.1 100 Continue"
    wire.send(whole[-3:])
    assert wire.read().status == 200
    refused = rig.connect()
    refused.send(request(b"abc", unsigned=[(b"expect", b"100-continue")], access_key="AKIDNOBODY")[:-3])
    assert refused.read().status == 403


# which endpoint, variant, member ----------------------------------------------------------------------------------------
def test_names_are_case_sensitive_and_unknown_ones_named(rig: Rig) -> None:
    rig.serve()
    status, code, message = error_of(rig.invoke(path=b"/endpoints/Demo/invocations"))
    assert (status, code) == (400, "ValidationError")
    assert message == "Endpoint Demo of account 000000000000 not found."


def test_a_target_variant_wins_over_weights(rig: Rig) -> None:
    a, b = rig.instance(ok(b"a")), rig.instance(ok(b"b"))
    rig.publish(variant([a], name="a", weight=1.0), variant([b], name="b", slot=1, weight=0.0, first=1))
    assert rig.invoke().body == b"a"
    heard = rig.invoke(fields=[(b"x-amzn-sagemaker-target-variant", b"b")])
    assert (heard.body, heard.field("x-amzn-invoked-production-variant")) == (b"b", "b")
    status, code, message = error_of(rig.invoke(fields=[(b"x-amzn-sagemaker-target-variant", b"c")]))
    assert (status, code) == (400, "ValidationError")
    assert message == "Variant c not found for endpoint demo of account 000000000000."


def test_weights_that_are_all_zero_are_said(rig: Rig) -> None:
    rig.publish(variant([rig.instance()], weight=0.0))
    assert error_of(rig.invoke())[:2] == (400, "ValidationError")


@pytest.mark.parametrize(
    ("header", "value", "words"),
    [
        (b"x-amzn-sagemaker-target-model", b"m.tar.gz", "Endpoint demo is not a multi-model endpoint"),
        (b"x-amzn-sagemaker-target-container-hostname", b"c2", "TargetContainerHostname is not allowed"),
        (b"x-amzn-sagemaker-session-id", b"NEW_SESSION", "SessionId is not allowed"),
        (b"x-amzn-sagemaker-inference-component", b"ic", "Inference Component Name header is not allowed"),
        (b"x-amzn-sagemaker-enable-explanations", b"`true`", "EnableExplanations is not allowed"),
        (b"x-amzn-sagemaker-prefix-aware-id", b"p", "PrefixAwareId is not allowed"),
        (b"x-amzn-sagemaker-target-variant", b"-bad-", "1 validation error detected"),
    ],
)
def test_members_that_are_not_there_yet_are_refused_in_words(rig: Rig, header: bytes, value: bytes, words: str) -> None:
    instance = rig.serve()
    status, code, message = error_of(rig.invoke(fields=[(header, value)]))
    assert (status, code) == (400, "ValidationError")
    assert words in message
    assert instance.requests == []


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        (b"invocations-response-stream", "InvokeEndpointWithResponseStream"),
        (b"async-invocations", "InvokeEndpointAsync"),
    ],
)
def test_operations_that_are_not_there_yet_are_refused_by_name(rig: Rig, path: bytes, operation: str) -> None:
    rig.serve()
    status, code, message = error_of(rig.invoke(path=b"/endpoints/demo/" + path))
    assert (status, code) == (400, "ValidationError")
    assert operation in message
    assert rig.invoke(path=b"/endpoints/demo/" + path, secret="wrong").status == 403


# when the model fails --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "side", "code"),
    [
        (404, "client", "CLIENT_ERROR_FROM_MODEL"),
        (503, "server", "INTERNAL_FAILURE_FROM_MODEL"),
        (302, "server", "INTERNAL_FAILURE_FROM_MODEL"),
    ],
)
def test_an_answer_that_is_no_2xx_is_a_model_error(rig: Rig, status: int, side: str, code: str) -> None:
    rig.serve(raw(b"HTTP/1.1 %d X\r\nContent-Length: 3\r\n\r\nbad" % status))
    heard = rig.invoke()
    assert heard.status == 424
    assert heard.field("x-amzn-errortype") == "ModelError"
    assert heard.json() == {
        "ErrorCode": code,
        "LogStreamArn": "arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/Endpoints/demo",
        "Message": f'Received {side} error ({status}) from primary with message "bad". See log group '
        "/aws/sagemaker/Endpoints/demo in account 000000000000 for more information.",
        "OriginalMessage": "bad",
        "OriginalStatusCode": status,
    }
    rig.settled()
    assert rig.counted(counts.INVOCATION_MODEL_ERRORS) == 1


def test_a_long_error_is_cut_and_its_frame_kept(rig: Rig) -> None:
    rig.serve(raw(b"HTTP/1.1 500 X\r\nContent-Length: 100000\r\n\r\n" + b"e" * 100_000))
    answer = rig.invoke().json()
    assert len(str(answer["Message"])) == 2048
    assert str(answer["Message"]).endswith(
        '". See log group /aws/sagemaker/Endpoints/demo in account 000000000000 for more information.'
    )
    assert answer["OriginalMessage"] == "e" * 2048


def test_an_error_whose_body_never_comes_keeps_its_status(rig: Rig) -> None:
    rig.serve(raw(b"HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\nhalf", close=True))
    answer = rig.invoke().json()
    assert (answer["OriginalStatusCode"], answer["OriginalMessage"]) == (500, "half")
    assert "could not load the entire response body" in str(answer["Message"])


def test_a_model_that_is_too_slow_times_out_and_its_connection_is_closed(rig: Rig) -> None:
    closed = threading.Event()

    def sleep(wire: Wire, _: Heard) -> None:
        if wire.at_end():
            closed.set()

    rig.serve(sleep)
    heard = rig.invoke()
    answer = heard.json()
    assert (heard.status, answer["OriginalStatusCode"]) == (424, 0)
    assert str(answer["Message"]).startswith(
        'Received server error (0) from primary with message "Your invocation timed out while waiting for a response '
    )
    assert closed.wait(edge_rig.DEADLINE_S)


@pytest.mark.parametrize(
    "behave",
    [
        edge_rig.hang_up,
        raw(b"this is not HTTP\r\n\r\n", close=True),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", close=True),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n"),
        raw(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 1_000_000),
    ],
    ids=["hang-up", "garbage", "crash in the body", "two lengths", "bad chunk", "upgrade", "endless head"],
)
def test_a_model_that_breaks_off_is_a_model_error_without_status(rig: Rig, behave: edge_rig.Behaviour) -> None:
    instance = rig.serve(behave)
    for _ in range(2):
        heard = rig.invoke()
        assert (heard.status, heard.json()["OriginalStatusCode"]) == (424, 0)
        assert "could not get a response from the demo endpoint" in str(heard.json()["Message"])
    assert len(instance.requests) == 2, "a request that may have run is never sent again"
    rig.settled()
    assert rig.counted(counts.INVOCATION_MODEL_ERRORS) == 2


def test_bytes_behind_an_answer_never_become_the_next_answer(rig: Rig) -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    rig.serve(raw(one + b"a" + one + b"b"))
    assert [rig.invoke().body for _ in range(5)] == [b"a"] * 5


def test_a_crash_behind_the_first_part_of_a_long_answer_breaks_the_clients_connection(rig: Rig) -> None:
    rig.serve(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000, close=True))
    wire = rig.connect()
    wire.send(request())
    with pytest.raises((edge_rig.Lost, ConnectionResetError)):
        wire.read()
    rig.settled()
    assert rig.counted(counts.INVOCATION_MODEL_ERRORS) == 1


def test_a_client_that_leaves_lets_the_instance_go(rig: Rig) -> None:
    closed = threading.Event()
    begun = threading.Event()

    def wait(wire: Wire, _: Heard) -> None:
        begun.set()
        if wire.at_end():
            closed.set()

    rig.serve(wait)
    wire = rig.connect()
    wire.send(request())
    assert begun.wait(edge_rig.DEADLINE_S)
    assert rig.in_flight() == 1
    wire.close()
    assert closed.wait(edge_rig.DEADLINE_S)
    rig.settled()


# when there is no instance ----------------------------------------------------------------------------------------------
def test_a_dead_instance_is_passed_over(rig: Rig) -> None:
    rig.serve(ok(b"a"), ok(b"b"))
    rig.instances[0].close()
    assert {rig.invoke().body for _ in range(8)} == {b"b"}


def test_without_an_instance_a_request_waits_for_one(rig: Rig) -> None:
    rig.publish(variant([]))
    wire = rig.connect()
    wire.send(request())
    rig.publish(variant([rig.instance(ok(b"late"))]))
    assert wire.read().body == b"late"


def test_an_instance_that_comes_back_at_its_address_takes_what_waits(rig: Rig) -> None:
    instance = rig.serve(ok(b"back"))
    instance.close()
    wire = rig.connect()
    wire.send(request())
    instance.open()
    assert wire.read().body == b"back"


def test_without_an_instance_for_long_it_is_unavailable(rig: Rig) -> None:
    rig.publish(variant([]))
    assert error_of(rig.invoke())[:2] == (503, "ServiceUnavailable")
    assert rig.counted(counts.REFUSED) == 1
    assert rig.counted(counts.INVOCATIONS) == 0


def test_a_waiting_request_learns_that_its_endpoint_is_gone(rig: Rig) -> None:
    rig.publish(variant([]))
    wire = rig.connect()
    wire.send(request())
    rig.publish(wait=True)
    assert error_of(wire.read())[2] == "Endpoint demo of account 000000000000 not found."


def test_an_idle_connection_that_the_instance_closed_costs_no_request(rig: Rig) -> None:
    instance = rig.serve()
    for _ in range(10):
        assert rig.invoke().status == 200
        instance.drop()
    assert len(instance.requests) == 10


def test_the_instance_with_the_fewest_requests_of_all_workers_is_chosen(rig: Rig) -> None:
    rig.serve(ok(b"a"), ok(b"b"))
    other = rig.counters.gauge(1, 0)  # the other worker has three requests at the first instance
    rig.counters.word[other] = 3
    assert {rig.invoke().body for _ in range(6)} == {b"b"}
    rig.counters.word[other] = 0


# tables ----------------------------------------------------------------------------------------------------------------
def test_requests_in_flight_survive_a_table_without_their_instance(rig: Rig) -> None:
    go = threading.Event()

    def wait(wire: Wire, heard: Heard) -> None:
        go.wait(0.3)
        ok(b"old")(wire, heard)

    old = rig.serve(wait)
    wire = rig.connect()
    wire.send(request())
    edge_rig.wait_for(lambda: old.requests, "the request to arrive")
    new = rig.instance(ok(b"new"))
    rig.publish(variant([new], first=5))
    assert rig.in_flight() == 1
    assert rig.invoke().body == b"new"
    go.set()
    assert wire.read().body == b"old"
    rig.settled()
    assert len(old.requests) == 1


def test_connections_of_instances_that_stay_survive_a_swap_and_others_are_closed(rig: Rig) -> None:
    stays, goes = rig.instance(ok(b"a"), "stays.sock"), rig.instance(ok(b"b"), "goes.sock")
    rig.publish(variant([stays, goes]))
    while not (stays.requests and goes.requests):
        assert rig.invoke().status == 200
    before = stays.connections
    goes_wire = goes.wires[0]
    rig.publish(variant([stays]))
    edge_rig.wait_for(lambda: goes_wire.sock.fileno() == -1, "the idle connection to be closed")
    assert rig.invoke().body == b"a"
    assert stays.connections == before


# counts ----------------------------------------------------------------------------------------------------------------
def test_invocations_and_latencies_are_counted(rig: Rig) -> None:
    rig.serve()
    for _ in range(5):
        rig.invoke()
    edge_rig.wait_for(lambda: rig.counted(counts.INVOCATIONS) == 5)
    assert rig.counted(counts.INVOCATION_MODEL_ERRORS) == 0
    for histogram in (counts.MODEL_LATENCY, counts.OVERHEAD_LATENCY):
        assert sum(rig.counters.histogram_total(0, histogram)) == 5


def test_many_clients_at_once_each_get_their_own_answer(rig: Rig) -> None:
    def echo(wire: Wire, heard: Heard) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(heard.body) + heard.body)

    rig.serve(echo, echo)
    wrong: list[object] = []

    def client(number: int) -> None:
        wire = rig.connect()
        for turn in range(25):
            body = b"%d/%d" % (number, turn) * (1 + turn * 20)
            wire.send(request(body))
            heard = wire.read()
            if (heard.status, heard.body) != (200, body):
                wrong.append((number, turn, heard.start))
        wire.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_instance_is_reached_through_its_shim(rig: Rig, tmp_path: Path) -> None:
    inner = rig.instance(ok(b"inside"))
    path = tmp_path / "shim.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    lines: list[bytes] = []

    def shim() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, socket.socket(socket.AF_UNIX) as inside:
                lines.append(peer.recv(100))
                inside.connect(str(inner.path))
                socket.send_fds(peer, [b"+"], [inside.fileno()])

    thread = threading.Thread(target=shim, daemon=True)
    thread.start()
    rig.publish(
        edge_rig.routing.VariantRoute(
            name="AllTraffic",
            slot=0,
            weight=1.0,
            instances=(edge_rig.routing.InstanceRoute(instance_id="i", slot=0, address=f"dial:{path}"),),
        )
    )
    assert [rig.invoke().body for _ in range(3)] == [b"inside"] * 3
    assert lines == [b'{"op":"dial"}\n']
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
