"""Answers: what is unset is left out, what is not of the model is a bug."""

import datetime
import json

import pytest

from mooring.protocol import model, serialize

DESCRIBE = model.load("sagemaker").operation("DescribeEndpoint")
LIST = model.load("sagemaker").operation("ListEndpoints")
DELETE = model.load("sagemaker").operation("DeleteEndpoint")
GET_ROLE = model.load("iam").operation("GetRole")


def test_unset_members_are_left_out_and_empty_lists_kept():
    body = serialize.serialize_json(LIST, {"Endpoints": [], "NextToken": None})
    assert body == b'{"Endpoints":[]}'


def test_members_come_in_the_models_order_and_times_as_numbers():
    body = serialize.serialize_json(
        DESCRIBE, {"CreationTime": 1700000000.1234567, "EndpointStatus": "InService", "EndpointName": "é"}
    )
    assert body == '{"EndpointName":"é","EndpointStatus":"InService","CreationTime":1700000000.123}'.encode()
    moment = datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=datetime.UTC)
    assert json.loads(serialize.serialize_json(DESCRIBE, {"CreationTime": moment})) == {"CreationTime": 1700000000.0}


def test_an_operation_without_output_answers_nothing():
    assert serialize.serialize_json(DELETE, {}) == b""
    with pytest.raises(TypeError):
        serialize.serialize_json(DELETE, {"x": 1})


@pytest.mark.parametrize(
    "output",
    [
        {"Unknown": 1},
        {"EndpointName": 1},
        {"EndpointName": b"bytes"},
        {"CreationTime": "yesterday"},
        {"CreationTime": True},
        {"ProductionVariants": {}},
        {"ProductionVariants": [{"VariantName": "A", "Unknown": 1}]},
        {"ProductionVariants": [None]},
    ],
)
def test_what_the_model_has_not_is_a_bug(output):
    with pytest.raises(TypeError):
        serialize.serialize_json(DESCRIBE, output)


def test_a_query_answer_wraps_its_result():
    body = serialize.serialize_query(
        GET_ROLE, {"Role": {"RoleName": "a<b", "CreateDate": 0.0, "Tags": []}}, "request-1"
    )
    assert body.decode() == (
        '<GetRoleResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetRoleResult><Role>'
        "<RoleName>a&lt;b</RoleName><CreateDate>1970-01-01T00:00:00Z</CreateDate><Tags></Tags></Role></GetRoleResult>"
        "<ResponseMetadata><RequestId>request-1</RequestId></ResponseMetadata></GetRoleResponse>"
    )
