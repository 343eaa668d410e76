"""Error replies of the runtime, read by a real sagemaker-runtime client."""

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from mooring.domain import errors
from mooring.protocol import forms, runtime

REQUEST_ID = "6f1c6f0e-5a3e-4d1b-9a63-000000000001"


class Raw:
    """What AWSResponse reads a body from."""

    def __init__(self, body):
        self._body = body

    def stream(self, **_):
        yield self._body

    def read(self, *_):
        body, self._body = self._body, b""
        return body


def answered(service: str, reply: forms.Reply):
    """A client whose every request gets `reply`."""
    client = boto3.client(
        service,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        endpoint_url="http://127.0.0.1:1",
        config=Config(retries={"total_max_attempts": 1}),
    )
    headers = {name.decode(): value.decode() for name, value in reply.headers}

    def send(request, **_):
        return AWSResponse(request.url, reply.status, headers, Raw(reply.body))

    client.meta.events.register("before-send", send)
    return client


def invoke(reply):
    client = answered("sagemaker-runtime", reply)
    with pytest.raises(ClientError) as caught:
        client.invoke_endpoint(EndpointName="demo", Body=b"x")
    return client, caught.value


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ValidationError("Endpoint demo of account 000000000000 not found."), 400),
        (errors.ServiceUnavailable("Nothing ran."), 503),
        (errors.InternalFailure("Ours."), 500),
    ],
)
def test_modelled_errors_become_typed_exceptions(error, status):
    client, raised = invoke(runtime.error_reply(error, REQUEST_ID))
    assert type(raised) is getattr(client.exceptions, error.code)
    assert raised.response["Error"] == {"Code": error.code, "Message": error.message}
    assert raised.response["Message"] == error.message
    assert raised.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert raised.response["ResponseMetadata"]["RequestId"] == REQUEST_ID


def test_a_model_error_carries_what_the_container_said():
    error = errors.ModelError(
        'Received client error (404) from primary with message "<body>".',
        original_status_code=404,
        original_message="<body> é",
        log_stream_arn="arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/Endpoints/demo",
    )
    reply = runtime.error_reply(error, REQUEST_ID)
    assert reply.body.decode() == (
        '{"ErrorCode":"CLIENT_ERROR_FROM_MODEL",'
        '"LogStreamArn":"arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/Endpoints/demo",'
        '"Message":"Received client error (404) from primary with message \\"<body>\\".",'
        '"OriginalMessage":"<body> é","OriginalStatusCode":404}'
    )
    client, raised = invoke(reply)
    assert type(raised) is client.exceptions.ModelError
    assert raised.response["OriginalStatusCode"] == 404
    assert raised.response["OriginalMessage"] == "<body> é"
    assert raised.response["LogStreamArn"] == error.log_stream_arn
    assert raised.response["Error"] == {"Code": "ModelError", "Message": error.message}
    assert raised.response["ResponseMetadata"]["HTTPStatusCode"] == 424


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "INTERNAL_FAILURE_FROM_MODEL"), (0, "INTERNAL_FAILURE_FROM_MODEL"), (499, "CLIENT_ERROR_FROM_MODEL")],
)
def test_long_texts_are_cut_and_the_error_code_follows_the_containers_status(status, code):
    error = errors.ModelError(
        "m" * 5000, original_status_code=status, original_message="o" * 5000, log_stream_arn="arn"
    )
    _, raised = invoke(runtime.error_reply(error, REQUEST_ID))
    assert len(raised.response["Error"]["Message"]) == 2048
    assert len(raised.response["OriginalMessage"]) == 2048
    assert code.encode() in runtime.error_reply(error, REQUEST_ID).body


def test_text_that_utf8_cannot_hold_is_still_answered():
    reply = runtime.error_reply(errors.ValidationError("lone \ud800 surrogate"), REQUEST_ID)
    assert "lone \ufffd surrogate" in reply.body.decode()


@pytest.mark.parametrize(
    "error",
    [
        errors.MissingAuthenticationToken("Missing Authentication Token"),
        errors.IncompleteSignature("Authorization header requires 'Signature' parameter."),
        errors.UnrecognizedClient("The security token included in the request is invalid."),
        errors.InvalidToken("The security token included in the request is invalid."),
        errors.InvalidSignature("The request signature we calculated does not match"),
        errors.RequestExpired("Signature expired"),
    ],
)
def test_refused_signatures_are_403_with_their_code(error):
    _, raised = invoke(runtime.error_reply(error, REQUEST_ID))
    assert raised.response["Error"] == {"Code": error.code, "Message": error.message}
    assert raised.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_body_over_the_limit_reads_as_the_real_service_answers():
    _, raised = invoke(runtime.too_large_reply(5246976, REQUEST_ID))
    assert raised.response["Error"] == {"Code": "413", "Message": "HTTP content length exceeded 5246976 bytes."}
