"""Refusals that come before the body does reach their client: presigned requests, early answers over raw sockets."""

import http.client
import re
import socket
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError
from tests.integration.objects_process import objects_process, raw_head

BUCKET = "refusals-bucket"
MEBI = 1 << 20


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    with objects_process(tmp_path_factory.mktemp("objects") / "s3") as running:
        running.client().create_bucket(Bucket=BUCKET)
        yield running


def fetched(url, **request):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, **request), timeout=30)
    with caught.value as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("version", ["s3", "s3v4"])
@pytest.mark.parametrize(("operation", "method"), [("get_object", "GET"), ("put_object", "PUT")])
def test_a_presigned_url_of_either_kind_is_refused_in_words(process, version, operation, method):
    s3 = process.client(signature_version=version)
    url = s3.generate_presigned_url(operation, Params={"Bucket": BUCKET, "Key": "k"})
    assert ("AWSAccessKeyId=" in url) == (version == "s3")
    status, text = fetched(url, method=method, data=b"x" if method == "PUT" else None)
    assert (status, "<Code>NotImplemented</Code>" in text) == (501, True)
    assert "Presigned URLs are not offered by this version" in text


def test_a_presigned_form_is_refused_in_words(process):
    form = process.client().generate_presigned_post(BUCKET, "k")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    status, text = fetched(form["url"], method="POST", data=b"--b--\r\n", headers=headers)
    assert (status, "Presigned POST forms are not offered by this version" in text) == (501, True)


def connected(process):
    return socket.create_connection(("127.0.0.1", process.port), timeout=30)


def answer(connection):
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    return reply.status, reply.read(), reply.getheader("connection")


def put_head(length, *headers, target="/no-such-bucket-here/k"):
    return raw_head("PUT", target, [(b"content-length", b"%d" % length), *headers], "UNSIGNED-PAYLOAD")


def test_the_connection_goes_on_behind_a_refusal_with_a_small_body(process):
    with connected(process) as connection:
        for _ in range(20):
            connection.sendall(put_head(MEBI))
            connection.sendall(bytes(MEBI))
            status, text, close = answer(connection)
            assert (status, b"NoSuchBucket" in text, close) == (404, True, None)


def test_a_small_chunked_body_is_read_as_well(process):
    head = raw_head("PUT", "/no-such-bucket-here/k", [(b"transfer-encoding", b"chunked")], "UNSIGNED-PAYLOAD")
    with connected(process) as connection:
        for _ in range(2):
            connection.sendall(head)
            connection.sendall(b"3\r\nabc\r\n0\r\n\r\n")
            status, _, close = answer(connection)
            assert (status, close) == (404, None)


@pytest.mark.parametrize("mebis", [2, 8])
def test_a_client_that_writes_all_of_a_large_body_first_gets_the_answer(process, mebis):
    for _ in range(20):
        with connected(process) as connection:
            connection.sendall(put_head(mebis * MEBI))
            connection.sendall(bytes(mebis * MEBI))
            status, text, close = answer(connection)
            assert (status, b"NoSuchBucket" in text, close) == (404, True, "close")
            assert connection.recv(1) == b""


def test_of_a_body_without_end_only_so_much_is_read(process):
    with connected(process) as connection:
        connection.sendall(put_head(1 << 32))
        assert answer(connection)[0] == 404
        with pytest.raises(OSError, match=r"reset|pipe"):
            for _ in range(1000):
                connection.sendall(bytes(MEBI))


def test_a_small_body_that_does_not_come_holds_the_answer_for_a_moment_alone(process):
    with connected(process) as connection:
        connection.sendall(put_head(10))
        status, _, close = answer(connection)
        assert (status, close) == (404, "close")
        assert connection.recv(1) == b""


def test_who_waits_for_leave_to_send_is_refused_without_it(process):
    with connected(process) as connection:
        connection.sendall(put_head(10, (b"expect", b"100-continue")))
        assert re.match(rb"HTTP/1.1 404 ", connection.recv(13, socket.MSG_PEEK))
        assert answer(connection)[::2] == (404, "close")


def test_many_refused_writes_in_a_row_are_all_told_why(process):
    s3 = process.client()
    for _ in range(60):
        with pytest.raises(ClientError, match="PutObjectTagging") as caught:
            s3.put_object_tagging(Bucket=BUCKET, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
