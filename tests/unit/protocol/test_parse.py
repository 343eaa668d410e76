"""Request bodies: types as AWS's parser tells them apart, bounds, members nobody knows."""

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain import errors
from mooring.protocol import model, parse

CREATE_MODEL = model.load("sagemaker").operation("CreateModel")
LIST_ENDPOINTS = model.load("sagemaker").operation("ListEndpoints")
CREATE_CONFIG = model.load("sagemaker").operation("CreateEndpointConfig")
GET_ROLE = model.load("iam").operation("GetRole")


def parsed(operation, document):
    return parse.parse_json(operation, json.dumps(document).encode())


def refusal(operation, document, error=errors.SerializationException):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(error) as caught:
        parse.parse_json(operation, body)
    return str(caught.value)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"MaxResults": "1"}, "STRING_VALUE can not be converted to an Integer"),
        ({"MaxResults": True}, "TRUE_VALUE can not be converted to an Integer"),
        ({"MaxResults": False}, "FALSE_VALUE can not be converted to an Integer"),
        ({"MaxResults": 1.5}, "DECIMAL_VALUE can not be converted to an Integer"),
        ({"MaxResults": 2**63}, "NUMBER_VALUE can not be converted to an Integer"),
        ({"MaxResults": [1]}, "Start of list found where not expected"),
        ({"MaxResults": {"a": 1}}, "Start of structure or map found where not expected."),
        ({"NextToken": 1}, "NUMBER_VALUE can not be converted to a String"),
        ({"NextToken": True}, "TRUE_VALUE can not be converted to a String"),
        ({"CreationTimeAfter": "2023-01-01"}, "STRING_VALUE can not be converted to milliseconds since epoch"),
        ({"CreationTimeAfter": 1e300}, "DECIMAL_VALUE can not be converted to milliseconds since epoch"),
    ],
)
def test_wrong_types_are_refused_in_awss_words(document, text):
    assert refusal(LIST_ENDPOINTS, document) == text


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"Tags": "x"}, "Expected list or null"),
        ({"Tags": {}}, "Start of structure or map found where not expected."),
        ({"Tags": ["x"]}, "Expected null"),
        ({"PrimaryContainer": "x"}, "Expected null"),
        ({"PrimaryContainer": []}, "Start of list found where not expected"),
        ({"PrimaryContainer": {"Environment": "x"}}, "Expected map or null"),
        ({"PrimaryContainer": {"Environment": {"A": 1}}}, "NUMBER_VALUE can not be converted to a String"),
        ({"EnableNetworkIsolation": "true"}, "STRING_VALUE can not be converted to a Boolean"),
        ({"EnableNetworkIsolation": 1}, "NUMBER_VALUE can not be converted to a Boolean"),
        ([], "Start of list found where not expected"),
        ("x", "The body must be a JSON object."),
        (None, "The body must be a JSON object."),
        (1, "The body must be a JSON object."),
    ],
)
def test_wrong_forms_are_refused_in_awss_words(document, text):
    assert refusal(CREATE_MODEL, document) == text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}{}",
        b'{"ModelName": "a",}',
        b'{"ModelName": "\xff"}',
        b'{"ModelName": "\\ud800"}',
        b'{"MaxResults": NaN}',
        b"[" * 100_000,
        b'{"PrimaryContainer":' * 5_000 + b"1" + b"}" * 5_000,
        b" " * (parse.MAX_BODY_BYTES + 1),
    ],
)
def test_a_body_that_is_not_json_is_a_serialization_error(body):
    refusal(CREATE_MODEL, body)


def test_null_members_are_absent_at_every_level():
    assert parsed(
        CREATE_MODEL, {"ModelName": "a", "Tags": None, "PrimaryContainer": {"Image": None}, "Unknown": None}
    ) == {
        "ModelName": "a",
        "PrimaryContainer": {},
    }


def test_nulls_inside_lists_and_maps_are_kept_for_validation():
    assert parsed(CREATE_MODEL, {"Tags": [None], "PrimaryContainer": {"Environment": {"A": None}}}) == {
        "Tags": [None],
        "PrimaryContainer": {"Environment": {"A": None}},
    }


def test_the_last_of_two_equal_keys_counts():
    assert parse.parse_json(CREATE_MODEL, b'{"ModelName":"a","ModelName":"b"}') == {"ModelName": "b"}


def test_unknown_members_are_refused_by_name_and_place():
    text = refusal(
        CREATE_CONFIG,
        {"EndpointConfigName": "a", "Foo": 1, "ProductionVariants": [{"Bar": 1}, {"Bar": 2}]},
        errors.ValidationException,
    )
    assert text == "Unknown members of CreateEndpointConfig: 'Foo', 'ProductionVariants.Bar'."


def test_numbers_keep_their_kind():
    assert parsed(LIST_ENDPOINTS, {"MaxResults": 5.0, "CreationTimeAfter": 1}) == {
        "MaxResults": 5,
        "CreationTimeAfter": 1.0,
    }
    assert isinstance(parsed(LIST_ENDPOINTS, {"MaxResults": 5.0})["MaxResults"], int)
    weight = parsed(CREATE_CONFIG, {"ProductionVariants": [{"InitialVariantWeight": 1}]})
    assert isinstance(weight["ProductionVariants"][0]["InitialVariantWeight"], float)
    huge = b'{"ProductionVariants":[{"InitialVariantWeight":1' + b"0" * 400 + b"}]}"
    assert "can not be converted to a Float" in refusal(CREATE_CONFIG, huge)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ModelName", "PrimaryContainer", "Environment", "Image", "Tags", "Key", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_document_is_parsed_or_refused(document):
    try:
        result = parse.parse_json(CREATE_MODEL, json.dumps(document).encode())
    except (errors.SerializationException, errors.ValidationException):
        return
    assert set(result) <= set(CREATE_MODEL.input.members)


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused(body):
    for read in (lambda: parse.parse_json(CREATE_MODEL, body), lambda: parse.parse_query(GET_ROLE, body)):
        try:
            read()
        except (errors.SerializationException, errors.ValidationException):
            continue


def test_query_members_and_action_are_read():
    body = urlencode({"Action": "GetRole", "Version": "2010-05-08", "RoleName": "a+b c"}).encode()
    assert parse.action_of(body) == "GetRole"
    assert parse.parse_query(GET_ROLE, body) == {"RoleName": "a+b c"}
    assert parse.action_of(b"Version=1") is None


def test_unknown_query_members_are_refused_by_name():
    with pytest.raises(errors.ValidationException, match="Unknown member of GetRole: 'Foo'"):
        parse.parse_query(GET_ROLE, b"Action=GetRole&RoleName=a&Foo=1")


def query_operation():
    """A request with every kind of member, of which no query operation on offer has one yet."""
    shape, member = model.Shape, model.Member
    text, number = shape("T", "string"), shape("N", "integer")
    inner = shape("S", "structure", members={"A": member(shape=text, wire="A")})
    listed = shape("L", "list", element=member(shape=inner, wire="member"))
    flat = shape("F", "list", element=member(shape=number, wire="member"), flattened=True)
    mapped = shape("M", "map", key=member(shape=text, wire="key"), element=member(shape=text, wire="value"))
    kinds = {
        "Listed": listed,
        "Flat": flat,
        "Mapped": mapped,
        "Inner": inner,
        "Yes": shape("B", "boolean"),
        "At": shape("D", "timestamp"),
        "Share": shape("R", "double"),
    }
    members = {name: member(shape=kind, wire=name) for name, kind in kinds.items()}
    return model.Operation(
        service="iam",
        name="Everything",
        protocol="query",
        uri="/",
        namespace="",
        input=shape("E", "structure", members=members),
        output=None,
    )


def test_query_lists_maps_and_structures_are_read():
    fields = {
        "Listed.member.2.A": "second",
        "Listed.member.1.A": "first",
        "Flat.1": "5",
        "Flat.10": "6",
        "Mapped.entry.1.key": "k",
        "Mapped.entry.1.value": "v",
        "Inner.A": "a",
        "Yes": "true",
        "At": "1970-01-01T00:01:00Z",
        "Share": "0.5",
    }
    assert parse.parse_query(query_operation(), urlencode(fields).encode()) == {
        "Listed": [{"A": "first"}, {"A": "second"}],
        "Flat": [5, 6],
        "Mapped": {"k": "v"},
        "Inner": {"A": "a"},
        "Yes": True,
        "At": 60.0,
        "Share": 0.5,
    }


@pytest.mark.parametrize("field", ["Flat.1=x", "Yes=maybe", "At=yesterday", "Share=much", "Share=nan", "Flat.1=1e3"])
def test_query_values_of_a_wrong_type_are_refused(field):
    with pytest.raises(errors.SerializationException, match=r"_VALUE can not be converted to"):
        parse.parse_query(query_operation(), field.encode())
