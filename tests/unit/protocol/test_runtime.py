"""The invocation boundary: its table is botocore's model, its refusals have AWS's words."""

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain import errors
from mooring.protocol import runtime


@pytest.fixture(scope="module")
def invoke_input():
    model = ServiceModel(Loader().load_service_model("sagemaker-runtime", "service-2"), "sagemaker-runtime")
    return model.operation_model("InvokeEndpoint").input_shape


def test_the_table_of_headers_is_the_models(invoke_input):
    modelled = {
        name: (
            shape.serialization.get("name", name).lower() if shape.serialization.get("location") == "header" else "",
            shape.metadata.get("max"),
            shape.metadata.get("min", 0),
            shape.metadata.get("pattern"),
            bool(shape.metadata.get("sensitive")),
        )
        for name, shape in invoke_input.members.items()
        if name != "Body"
    }
    ours = {
        rule.member: (rule.header.decode(), rule.max, rule.min, rule.pattern, rule.sensitive)
        for rule in (runtime.ENDPOINT_RULE, *runtime.RULES)
    }
    assert ours == modelled
    assert [rule.member for rule in runtime.RULES] == [name for name in modelled if name != "EndpointName"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/endpoints/demo/invocations", b"demo"),
        (b"/endpoints/de%6Do/invocations", b"demo"),
        (b"/endpoints//invocations", None),
        (b"/endpoints/invocations", None),
        (b"/endpoints/a/b/invocations", None),
        (b"/endpoints/demo/invocations-response-stream", None),
        (b"/endpoints/demo/async-invocations", None),
        (b"/", None),
        (b"/endpoints/demo/invocations/", None),
    ],
)
def test_the_endpoint_is_read_from_the_path(path, name):
    assert runtime.endpoint_of(path) == name


def test_members_are_read_from_headers_of_any_case():
    call = runtime.parse_invocation(
        b"Demo-1",
        [
            (b"CONTENT-TYPE", b"text/csv"),
            (b"accept", b"application/json"),
            (b"X-Amzn-SageMaker-Custom-Attributes", b"a=1;b=2"),
            (b"x-amzn-sagemaker-target-variant", b"B"),
            (b"X-Amzn-SageMaker-Inference-Id", b"id 1"),
            (b"User-Agent", b"x"),
        ],
    )
    assert call == runtime.Invocation(
        endpoint_name="Demo-1",
        content_type=b"text/csv",
        accept=b"application/json",
        custom_attributes=b"a=1;b=2",
        target_variant="B",
        inference_id=b"id 1",
    )


def refusal(name=b"demo", *headers):
    with pytest.raises(errors.ValidationError) as caught:
        runtime.parse_invocation(name, headers)
    return str(caught.value)


def test_a_bad_name_is_refused_in_awss_words():
    assert refusal(b"demo_1") == (
        "1 validation error detected: Value 'demo_1' at 'endpointName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9])*"
    )
    assert refusal(b"a" * 64) == (
        f"1 validation error detected: Value '{'a' * 64}' at 'endpointName' failed to satisfy constraint: "
        "Member must have length less than or equal to 63"
    )


def test_all_violations_are_listed_in_the_models_order():
    text = refusal(
        b"-",
        (b"X-Amzn-SageMaker-Inference-Id", b""),
        (b"X-Amzn-SageMaker-Target-Variant", b"a-"),
        (b"Accept", "é".encode()),
    )
    assert text.startswith("5 validation errors detected: Value '-' at 'endpointName'")
    order = ["'endpointName'", "'accept'", "'targetVariant'", "'inferenceId'"]
    assert [text.index(path) for path in order] == sorted(text.index(path) for path in order)
    assert (
        "Value '' at 'inferenceId' failed to satisfy constraint: Member must have length greater than or equal to 1"
        in text
    )


def test_custom_attributes_are_never_echoed():
    text = refusal(b"demo", (b"X-Amzn-SageMaker-Custom-Attributes", b"s3cr3t" * 200))
    assert text == (
        "1 validation error detected: Value at 'customAttributes' failed to satisfy constraint: "
        "Member must have length less than or equal to 1024"
    )


@pytest.mark.parametrize(
    ("header", "good", "bad"),
    [
        (b"X-Amzn-SageMaker-Target-Model", [b"a.tar.gz", b"x/y z.tar.gz"], [b" a", b"a\tb", b"a" * 1025]),
        (b"X-Amzn-SageMaker-Session-Id", [b"NEW_SESSION", b"a-1"], [b"NEW_SESSIONS", b"a_1", b"-", b"a" * 257]),
        (b"X-Amzn-SageMaker-Inference-Component", [b"a", b"a--b"], [b"", b"a-", b"a_b"]),
        (b"X-Amzn-SageMaker-Prefix-Aware-Id", [b"p q"], [b"", b" p", b"p" * 65]),
        (b"X-Amzn-SageMaker-Enable-Explanations", [b"`true`"], [b"", b"x" * 65]),
        (b"X-Amzn-SageMaker-Target-Container-Hostname", [b"c1"], [b"c_1", b"c" * 64]),
    ],
)
def test_each_header_is_held_to_its_pattern_as_a_whole(header, good, bad):
    for value in good:
        runtime.parse_invocation(b"demo", [(header, value)])
    for value in bad:
        with pytest.raises(errors.ValidationError):
            runtime.parse_invocation(b"demo", [(header, value)])


@given(st.binary(max_size=80), st.sampled_from(runtime.RULES), st.binary(max_size=80))
def test_any_bytes_give_an_invocation_or_a_validation_error(name, rule, value):
    try:
        call = runtime.parse_invocation(name, [(rule.header, value)])
    except errors.ValidationError as error:
        assert "validation error" in str(error)
        str(error).encode()
    else:
        assert call.endpoint_name.encode() == name
