"""What failed invocations say."""

import re

from hypothesis import given
from hypothesis import strategies as st

from mooring.gateway import texts
from mooring.protocol import runtime

SEE = texts.see("/aws/sagemaker/Endpoints/demo", "000000000000")


@given(st.sampled_from([400, 404, 499, 500, 503, 302]), st.binary(max_size=5000))
def test_a_model_errors_message_fits_and_keeps_its_frame(status: int, body: bytes) -> None:
    error = texts.model_answered(status, body, whole=True, container="primary", tail=SEE, log_arn="arn")
    side = "client" if 400 <= status < 500 else "server"
    match = re.fullmatch(
        rf'Received {side} error \({status}\) from \S+ with message "(.*)"\. See .* in account \d+ for more information\.',
        error.message,
        re.DOTALL,
    )
    assert match is not None
    assert len(error.message) <= 2048
    assert len(error.original_message) <= 2048
    text = body.decode("utf-8", "replace")
    assert text.startswith(match[1])
    assert text[:2048] == error.original_message


def test_the_texts_that_users_match_on_are_verbatim() -> None:
    slow = texts.timed_out(container="primary", tail=SEE, log_arn="arn")
    assert slow.message.startswith(
        'Received server error (0) from primary with message "Your invocation timed out while waiting for a response from '
        "container primary. Review the latency metrics for each container in Amazon CloudWatch, resolve the issue, and try "
        'again.". See '
    )
    gone = texts.no_answer(endpoint="demo", log_arn="arn")
    assert gone.message == (
        'Received server error (0) from model with message "Amazon SageMaker could not get a response from the demo '
        "endpoint. This can occur when CPU or memory utilization is high. To check your utilization, see Amazon CloudWatch. "
        'To fix this problem, use an instance type with more CPU capacity or memory."'
    )
    assert (slow.original_status_code, gone.original_status_code) == (0, 0)


def test_every_member_beyond_a_plain_endpoints_is_refused() -> None:
    plain = {"endpoint_name", "content_type", "accept", "custom_attributes", "inference_id", "target_variant"}
    for member in runtime.Invocation._fields:
        value = "demo" if member == "endpoint_name" else b"x"
        invocation = runtime.Invocation(**{"endpoint_name": "demo", member: value})
        assert (texts.refused_member(invocation) is None) == (member in plain), member
