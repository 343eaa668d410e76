"""Which front a request is for, told by its head alone."""

import pytest

from mooring.edge.classify import Front, Target, classify
from mooring.net.request import Request


def scope(service: str) -> bytes:
    credential = f"AK/20260101/us-east-1/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0".encode()


def front(
    method: str, target: str, *, service: str | None = None, host: str = "127.0.0.1:4747", **headers: str
) -> Target:
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    fields[b"host"] = host.encode()
    if service is not None:
        fields[b"authorization"] = scope(service)
    return classify(Request(method.encode(), target.encode(), fields))


@pytest.mark.parametrize(
    ("tail", "operation"),
    [
        ("invocations", None),
        ("invocations-response-stream", "InvokeEndpointWithResponseStream"),
        ("async-invocations", "InvokeEndpointAsync"),
    ],
)
@pytest.mark.parametrize("service", ["sagemaker", None])
def test_invocations_go_to_the_gateway_signed_or_not(tail: str, operation: str | None, service: str | None) -> None:
    assert front("POST", f"/endpoints/a-b/{tail}", service=service) == Target(Front.INVOKE, b"a-b", operation)


def test_a_bucket_called_endpoints_is_still_a_bucket() -> None:
    assert front("POST", "/endpoints/a/invocations", service="s3").front is Front.S3
    assert front("PUT", "/endpoints/a/invocations").front is Front.S3


@pytest.mark.parametrize("service", ["sagemaker", "sts", "iam", "logs", "monitoring", "kms"])
def test_every_other_service_is_controls(service: str) -> None:
    assert front("POST", "/", service=service).front is Front.CONTROL
    assert front("GET", "/anything", service=service).front is Front.CONTROL


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/_mooring/health", Front.HEALTH),
        ("HEAD", "/_mooring/health", Front.HEALTH),
        ("POST", "/_mooring/health", Front.CONTROL),
        ("GET", "/_mooring/metrics", Front.CONTROL),
        ("GET", "/_mooring/console/", Front.CONTROL),
        ("POST", "/", Front.CONTROL),
        ("GET", "/", Front.S3),
        ("GET", "/bucket/key", Front.S3),
        ("PUT", "/bucket", Front.S3),
        ("GET", "/b/k?X-Amz-Credential=AK%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Signature=0", Front.S3),
        ("GET", "/b/k?X-Amz-Credential=AK/20260101/us-east-1/s3/aws4_request", Front.S3),
        ("GET", "/?X-Amz-Credential=AK%2F20260101%2Fus-east-1%2Fsts%2Faws4_request", Front.CONTROL),
        ("POST", "/endpoints//invocations", Front.S3),
        ("POST", "/endpoints/a/b/invocations", Front.S3),
    ],
)
def test_unsigned_requests_are_told_apart_by_target(method: str, target: str, expected: Front) -> None:
    assert front(method, target).front is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("bucket.localhost:4747", Front.S3),
        ("bucket.s3.localhost", Front.S3),
        ("my.bucket.s3.us-east-1.amazonaws.com", Front.S3),
        ("s3.amazonaws.com", Front.S3),
        ("localhost:4747", Front.CONTROL),
        ("127.0.0.1", Front.CONTROL),
        ("sagemaker.us-east-1.amazonaws.com", Front.CONTROL),
    ],
)
def test_a_buckets_host_is_s3_whatever_the_path(host: str, expected: Front) -> None:
    assert front("GET", "/_mooring/metrics", host=host).front is expected


def test_a_target_header_is_controls_and_an_old_s3_signature_s3s() -> None:
    assert front("POST", "/x", x_amz_target="SageMaker.ListModels").front is Front.CONTROL
    assert front("GET", "/b", authorization="AWS AKID:sig").front is Front.S3
    assert front("GET", "/b", authorization="Bearer x").front is Front.S3
