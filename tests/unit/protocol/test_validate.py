"""Constraints: all violations at once, in AWS's words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain import errors
from mooring.protocol import model, validate


def operation(name):
    return model.load("sagemaker").operation(name)


def refusal(name, params):
    with pytest.raises(errors.ValidationException) as caught:
        validate.validate(operation(name), params)
    return str(caught.value)


VARIANT = {"VariantName": "A", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}


def config(**variant):
    return {"EndpointConfigName": "c", "ProductionVariants": [{**VARIANT, **variant}]}


def test_valid_requests_pass():
    validate.validate(operation("CreateEndpointConfig"), config(InitialVariantWeight=0.0))
    validate.validate(operation("ListEndpoints"), {})
    validate.validate(
        operation("CreateModel"),
        {"ModelName": "m", "PrimaryContainer": {"Image": "i", "Environment": {"A_1": "any\nthing"}}},
    )
    validate.validate(
        operation("AddTags"),
        {"ResourceArn": "arn:aws:sagemaker:r:000000000000:model/m", "Tags": [{"Key": "ключ", "Value": ""}]},
    )


@pytest.mark.parametrize(
    ("name", "params", "text"),
    [
        (
            "DescribeEndpoint",
            {},
            "1 validation error detected: Value null at 'endpointName' failed to satisfy constraint: "
            "Member must not be null",
        ),
        (
            "CreateEndpointConfig",
            config(ModelName="a_b"),
            "1 validation error detected: Value 'a_b' at 'productionVariants.1.member.modelName' failed to satisfy "
            "constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9]([\\-a-zA-Z0-9]*[a-zA-Z0-9])?",
        ),
        (
            "ListEndpoints",
            {"MaxResults": 500},
            "1 validation error detected: Value '500' at 'maxResults' failed to satisfy constraint: "
            "Member must have value less than or equal to 100",
        ),
        (
            "ListEndpoints",
            {"MaxResults": 0},
            "1 validation error detected: Value '0' at 'maxResults' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1",
        ),
        (
            "ListEndpoints",
            {"SortOrder": "Up"},
            "1 validation error detected: Value 'Up' at 'sortOrder' failed to satisfy constraint: "
            "Member must satisfy enum value set: [Ascending, Descending]",
        ),
        (
            "CreateEndpointConfig",
            {"EndpointConfigName": "c", "ProductionVariants": []},
            "1 validation error detected: Value '[]' at 'productionVariants' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1",
        ),
        (
            "CreateEndpointConfig",
            config(InitialVariantWeight=-0.5),
            "1 validation error detected: Value '-0.5' at 'productionVariants.1.member.initialVariantWeight' failed to "
            "satisfy constraint: Member must have value greater than or equal to 0",
        ),
        (
            "DeleteTags",
            {"ResourceArn": "arn:aws:sagemaker:r:000000000000:model/m", "TagKeys": ["ok", "k" * 129]},
            f"1 validation error detected: Value '[ok, {'k' * 129}]' at 'tagKeys' failed to satisfy constraint: Member must "
            "satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than "
            "or equal to 1, Member must satisfy regular expression pattern: ([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)]",
        ),
        (
            "CreateModel",
            {"ModelName": "m", "PrimaryContainer": {"Environment": {"1A": "x", "B": "y"}}},
            "1 validation error detected: Value '{1A=x, B=y}' at 'primaryContainer.environment' failed to satisfy "
            "constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 1024, "
            "Member must have length greater than or equal to 0, Member must satisfy regular "
            "expression pattern: [a-zA-Z_][a-zA-Z0-9_]*]",
        ),
        (
            "AddTags",
            {"ResourceArn": "arn:aws:sagemaker:r:000000000000:model/m", "Tags": [{"Key": "a", "Value": "b"}, None]},
            "1 validation error detected: Value null at 'tags.2.member' failed to satisfy constraint: "
            "Member must not be null",
        ),
    ],
)
def test_violations_read_as_awss(name, params, text):
    assert refusal(name, params) == text


def test_a_name_that_is_too_long_and_ill_formed_is_two_violations():
    text = refusal("DescribeEndpoint", {"EndpointName": "_" * 64})
    assert text.startswith("2 validation errors detected: ")
    assert "Member must have length less than or equal to 63; Value '" in text


def test_all_violations_of_a_request_are_listed_in_the_models_order():
    text = refusal(
        "CreateEndpointConfig", {"ProductionVariants": [{"InstanceType": "ml.none"}, dict(VARIANT, VariantName="")]}
    )
    assert text.startswith("4 validation errors detected: Value null at 'endpointConfigName'")
    for path in (
        "productionVariants.1.member.variantName",
        "productionVariants.1.member.instanceType",
        "productionVariants.2.member.variantName",
    ):
        assert f"at '{path}'" in text or f"null at '{path}'" in text


def test_long_values_are_cut_in_the_text():
    assert len(refusal("DescribeEndpoint", {"EndpointName": "a" * 1_000_000})) < 5_000


def test_many_violations_are_counted_and_the_text_stays_bounded():
    params = {"EndpointConfigName": "c", "ProductionVariants": [{}] * 1000}
    text = refusal("CreateEndpointConfig", params)
    assert text.startswith("1001 validation errors detected")
    assert len(text) < 50_000


def test_sensitive_values_are_never_echoed():
    secret = model.Shape("Secret", "string", max=3, sensitive=True)
    inner = model.Shape(
        "Inner",
        "map",
        max=0,
        key=model.Member(shape=secret, wire="key"),
        element=model.Member(shape=secret, wire="value"),
    )
    shape = model.Shape(
        "Input",
        "structure",
        members={"Password": model.Member(shape=secret, wire="p"), "Many": model.Member(shape=inner, wire="m")},
    )
    made = model.Operation(service="x", name="X", protocol="json", uri="/", namespace="", input=shape, output=None)
    with pytest.raises(errors.ValidationException) as caught:
        validate.validate(made, {"Password": "hunter2", "Many": {"hunter3": "hunter4"}})
    assert "hunter" not in str(caught.value)
    assert "Value at 'password' failed to satisfy constraint: Member must have length less than or equal to 3" in str(
        caught.value
    )


def test_a_value_far_over_its_maximum_is_not_run_through_its_pattern():
    url = "s3://" + "x" * 300_000 + "\n"
    text = refusal("CreateModel", {"ModelName": "m", "PrimaryContainer": {"ModelDataUrl": url}})
    assert "less than or equal to 1024" in text


@given(st.text(max_size=70))
def test_names_are_held_to_length_and_pattern(name):
    allowed = len(name) <= 63 and re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name) is not None
    try:
        validate.validate(operation("DescribeEndpoint"), {"EndpointName": name})
    except errors.ValidationException as error:
        assert not allowed
        assert "detected: Value '" in str(error)
    else:
        assert allowed
