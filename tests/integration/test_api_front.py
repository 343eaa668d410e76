"""The API's front: authentication, routing between services, error forms, bounds."""

import contextlib
import hashlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from tests.integration.api_server import ACCOUNT, KEY, REGION, SECRET, ApiServer, running

from mooring.domain.call import Caller, Params
from mooring.kit.clock import SystemClock
from mooring.protocol import sigv4
from mooring.store.base import StoreError


async def _broken(caller: Caller, params: Params) -> Params:
    raise RuntimeError("a secret of the implementation")


async def _no_store(caller: Caller, params: Params) -> Params:
    raise StoreError("no space is left for the database", retryable=True)


async def _wrong_answer(caller: Caller, params: Params) -> Params:
    return {"NoSuchMember": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    extra = {"DescribeModel": _broken, "DescribeEndpoint": _no_store, "DescribeEndpointConfig": _wrong_answer}
    with running(tmp_path_factory.mktemp("api"), extra) as server:
        yield server


def raw(
    server: ApiServer,
    body: bytes = b"{}",
    *,
    method: str = "POST",
    path: str = "/",
    service: str = "sagemaker",
    signed: bytes | None = None,
    headers: dict[str, str] | None = None,
    sign: bool = True,
) -> tuple[int, dict[str, str], bytes]:
    """One request made by hand; `signed` is the body that the signature covers."""
    target = urlsplit(server.url)
    assert target.hostname is not None
    lines = {"host": target.netloc, "x-amz-target": "SageMaker.ListModels", **(headers or {})}
    named = [(name.encode(), value.encode()) for name, value in lines.items()]
    if sign:
        named += sigv4.sign(
            method=method.encode(),
            path=path.encode(),
            query=b"",
            headers=named,
            payload_sha256=hashlib.sha256(body if signed is None else signed).hexdigest(),
            access_key=KEY,
            secret_key=SECRET,
            region=REGION,
            service=service,
            now_s=SystemClock().now_s(),
        )
    connection = http.client.HTTPConnection(target.hostname, target.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in named:
            connection.putheader(name.decode(), value)
        connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the answer may come before the body's end
            connection.send(body)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def error_of(call: Any, **members: Any) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    response = caught.value.response
    return response["Error"]["Code"], response["Error"]["Message"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_an_empty_body_is_an_empty_request_and_every_answer_has_its_id(server: ApiServer) -> None:
    status, headers, body = raw(server, b"")
    assert (status, json.loads(body)) == (200, {"Models": []})
    assert headers["content-type"] == "application/x-amz-json-1.1"
    assert len(headers["x-amzn-requestid"]) == 36
    _, again, _ = raw(server, b"")
    assert again["x-amzn-requestid"] != headers["x-amzn-requestid"]


def test_an_unsigned_request_is_refused(server: ApiServer) -> None:
    status, headers, body = raw(server, sign=False)
    assert status == 403
    assert json.loads(body)["__type"] == "MissingAuthenticationTokenException"
    assert "x-amzn-requestid" in headers


def test_wrong_keys_secrets_and_regions_are_refused(server: ApiServer) -> None:
    for members, code in (
        ({"key": "MOORNOBODY"}, "UnrecognizedClientException"),
        ({"secret": "wrong"}, "InvalidSignatureException"),
        ({"region": "us-west-2"}, "InvalidSignatureException"),
    ):
        client = server.client("sagemaker", **members)
        assert error_of(client.list_models)[::2] == (code, 403)
        client.close()


def test_a_body_that_was_changed_on_the_way_is_refused(server: ApiServer) -> None:
    status, _, body = raw(server, b'{"MaxResults": 2}', signed=b'{"MaxResults": 1}')
    assert (status, json.loads(body)["__type"]) == (403, "InvalidSignatureException")


def test_query_services_answer_in_xml_by_the_scope_of_the_signature(server: ApiServer) -> None:
    sts, iam = server.client("sts"), server.client("iam", region="us-east-1")
    assert sts.get_caller_identity()["Account"] == ACCOUNT
    code, _, status = error_of(iam.get_role, RoleName="nobody")
    assert (code, status) == ("NoSuchEntity", 404)
    code, _, status = error_of(iam.list_roles)
    assert (code, status) == ("InvalidAction", 400)
    stranger = server.client("sts", secret="wrong")
    assert error_of(stranger.get_caller_identity)[::2] == ("SignatureDoesNotMatch", 403)
    for client in (sts, iam, stranger):
        client.close()


def test_a_service_that_is_not_served_is_refused(server: ApiServer) -> None:
    client = server.client("dynamodb")
    code, text, status = error_of(client.list_tables)
    assert (code, status) == ("InvalidSignatureException", 403)
    assert "Credential should be scoped to correct service" in text
    client.close()


def test_broken_json_a_wrong_target_and_a_wrong_path_are_refused_in_words(server: ApiServer) -> None:
    status, _, body = raw(server, b"{")
    assert (status, json.loads(body)["__type"]) == (400, "SerializationException")
    status, _, body = raw(server, headers={"x-amz-target": "Logs_20140328.GetLogEvents"})
    assert (status, json.loads(body)["__type"]) == (400, "UnknownOperationException")
    assert "SageMaker.<Operation>; 'Logs_20140328.GetLogEvents' is not one of them" in json.loads(body)["message"]
    status, _, body = raw(server, headers={"x-amz-target": "SageMaker.Nonsense"})
    assert "The operation Nonsense does not exist" in json.loads(body)["message"]
    status, _, body = raw(server, path="/elsewhere")
    assert "POST /elsewhere" in json.loads(body)["message"]


def test_a_body_over_one_mebibyte_is_refused(server: ApiServer) -> None:
    status, headers, body = raw(server, b" " * (1 << 20))
    assert (status, json.loads(body)["__type"]) == (400, "SerializationException")
    status, headers, body = raw(server, b" " * ((1 << 20) + 1))
    assert (status, json.loads(body)["__type"]) == (413, "RequestEntityTooLargeException")
    assert headers["connection"] == "close"


def test_a_bug_is_an_internal_failure_with_nothing_of_the_inside(
    server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = server.client("sagemaker")
    code, text, status = error_of(client.describe_model, ModelName="m")
    assert (code, status) == ("InternalFailure", 500)
    assert "secret" not in text
    assert "a secret of the implementation" in caplog.text  # the log has the traceback
    assert text.removesuffix(".").split()[-1] in caplog.text  # and the request's id
    code, text, status = error_of(client.describe_endpoint_config, EndpointConfigName="m")
    assert (code, status) == ("InternalFailure", 500)
    client.close()


def test_a_store_that_is_full_says_so_and_may_be_tried_again(server: ApiServer) -> None:
    client = server.client("sagemaker")
    code, text, status = error_of(client.describe_endpoint, EndpointName="m")
    assert (code, status) == ("ServiceUnavailable", 503)
    assert "no space is left for the database" in text
    client.close()


def test_handlers_that_the_model_does_not_know_end_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="handlers and model disagree about Nonsense"),
        running(tmp_path, {"Nonsense": _broken}),
    ):
        pass
