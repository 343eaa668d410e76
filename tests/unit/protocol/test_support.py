"""What is not supported is refused by name, never ignored."""

import pytest

from mooring.domain import errors
from mooring.protocol import support

SUPPORTED = {
    "ModelName",
    "PrimaryContainer.Image",
    "PrimaryContainer.Environment",
    "ProductionVariants.VariantName",
    "Tags",
}


def refusal(params):
    with pytest.raises(errors.ValidationException) as caught:
        support.refuse_unsupported("CreateModel", params, SUPPORTED)
    return str(caught.value)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"ModelName": "a", "PrimaryContainer": {"Image": "i", "Environment": {"ANY": "thing"}}},
        {"Tags": [{"Key": "a", "Value": "b"}]},
        {"ProductionVariants": [{"VariantName": "A"}, {"VariantName": "B"}], "VpcConfig": None},
        {"ProductionVariants": []},
        {"PrimaryContainer": {}},
    ],
)
def test_supported_members_pass(params):
    support.refuse_unsupported("CreateModel", params, SUPPORTED)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"VpcConfig": {"Subnets": ["a"]}}, "VpcConfig"),
        ({"VpcConfig": {}}, "VpcConfig"),
        ({"EnableNetworkIsolation": False}, "EnableNetworkIsolation"),
        ({"Containers": []}, "Containers"),
        ({"PrimaryContainer": {"Image": "i", "ImageConfig": {}}}, "PrimaryContainer.ImageConfig"),
        (
            {"ProductionVariants": [{"VariantName": "A"}, {"ServerlessConfig": {}}]},
            "ProductionVariants.ServerlessConfig",
        ),
    ],
)
def test_a_member_that_is_not_supported_is_named_with_the_page_that_says_why(params, name):
    assert refusal(params) == (
        f"Member '{name}' of CreateModel is not supported by this server: see docs/coverage.md#createmodel."
    )


def test_all_members_that_are_not_supported_are_named_once():
    text = refusal({"A": 1, "ProductionVariants": [{"B": 1}, {"B": 2}]})
    assert text.startswith("Members 'A', 'ProductionVariants.B' of CreateModel are not supported")
    many = refusal({f"M{n}": 1 for n in range(30)})
    assert "and 20 more" in many
