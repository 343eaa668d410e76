"""botocore serializes, we parse; we serialize, botocore parses: for every operation on offer."""

import datetime
from urllib.parse import urlencode

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mooring.domain import errors
from mooring.protocol import model, parse, serialize
from mooring.protocol.offered import OFFERED

OPERATIONS = [(service, name) for service, names in OFFERED.items() for name in names]
MODELS = {service: ServiceModel(Loader().load_service_model(service, "service-2"), service) for service in OFFERED}

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufffe\uffff"), max_size=8)
xml_texts = st.text(st.sampled_from("ab <>&\"'é世\n\r\t"), max_size=8).map(lambda text: text.strip())
moments = st.integers(0, 4_000_000_000).map(lambda epoch_s: datetime.datetime.fromtimestamp(epoch_s, datetime.UTC))


def values(shape, strings, seen=()):
    """Values of a botocore shape; constraints apart, which are not the concern here."""
    match shape.type_name:
        case "structure":
            if seen.count(shape.name) > 1 or not shape.members:
                return st.just({})
            inner = {name: values(member, strings, (*seen, shape.name)) for name, member in shape.members.items()}
            return st.lists(st.sampled_from(sorted(inner)), unique=True, max_size=4).flatmap(
                lambda names: st.fixed_dictionaries({name: inner[name] for name in names})
            )
        case "list":
            return st.lists(values(shape.member, strings, seen), max_size=2)
        case "map":
            return st.dictionaries(strings, values(shape.value, strings, seen), max_size=2)
        case "string":
            return strings
        case "integer" | "long":
            return st.integers(-(2**31), 2**31 - 1)
        case "float" | "double":
            return st.floats(allow_nan=False, allow_infinity=False, width=32)
        case "boolean":
            return st.booleans()
        case "timestamp":
            return moments
        case "blob":
            return st.binary(max_size=8)
    raise AssertionError(shape.type_name)


def as_parsed(value):
    """Timestamps as our parser gives them."""
    match value:
        case datetime.datetime():
            return value.timestamp()
        case dict():
            return {name: as_parsed(item) for name, item in value.items()}
        case list():
            return [as_parsed(item) for item in value]
    return value


def without_empty_lists(value):
    """The query protocol cannot tell an empty list, map or structure from none."""
    if isinstance(value, dict):
        kept = {name: without_empty_lists(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item not in ({}, [])}
    return [without_empty_lists(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_what_botocore_serializes_is_parsed_to_the_same(service, name, data):
    theirs = MODELS[service].operation_model(name)
    params = data.draw(values(theirs.input_shape, texts)) if theirs.input_shape else {}
    request = create_serializer(
        theirs.service_model.metadata["protocol"], include_validation=False
    ).serialize_to_request(params, theirs)
    operation = model.load(service).operation(name)
    if operation.protocol == "query":
        assert request["body"]["Action"] == name
        body = urlencode(request["body"]).encode()
        assert parse.action_of(body) == name
        assert without_empty_lists(parse.parse_query(operation, body)) == without_empty_lists(as_parsed(params))
    else:
        assert model.operation_of_target(request["headers"]["X-Amz-Target"]) is operation
        assert parse.parse_json(operation, request["body"]) == as_parsed(params)


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_what_we_serialize_botocore_parses_to_the_same(service, name, data):
    theirs = MODELS[service].operation_model(name)
    operation = model.load(service).operation(name)
    query = operation.protocol == "query"
    output = data.draw(values(theirs.output_shape, xml_texts if query else texts)) if theirs.output_shape else {}
    if query:
        body = serialize.serialize_query(operation, output, "request-1")
    else:
        body = serialize.serialize_json(operation, output)
    parsed = create_parser(operation.protocol).parse(
        {"status_code": 200, "headers": {}, "body": body}, theirs.output_shape
    )
    metadata = parsed.pop("ResponseMetadata")
    if query:
        assert metadata["RequestId"] == "request-1"
        assert without_empty_lists(as_parsed(parsed)) == without_empty_lists(as_parsed(output))
    else:
        assert as_parsed(parsed) == as_parsed(output)


@pytest.mark.parametrize(
    "code", ["ValidationException", "ResourceNotFound", "ResourceLimitExceeded", "InvalidSignatureException"]
)
@pytest.mark.parametrize("service", ["sagemaker", "logs"])
def test_json_errors_are_read_by_botocore(service, code):
    error = errors.ServiceError("What é went wrong.")
    error.code = code
    reply = serialize.error_reply("json", error, "request-1")
    parsed = create_parser("json").parse(
        {
            "status_code": reply.status,
            "headers": {k.decode(): v.decode() for k, v in reply.headers},
            "body": reply.body,
        },
        MODELS[service].operation_model(OFFERED[service][0]).output_shape,
    )
    assert parsed["Error"] == {"Code": code, "Message": "What é went wrong."}
    assert parsed["ResponseMetadata"]["RequestId"] == "request-1"
    assert parsed["ResponseMetadata"]["HTTPStatusCode"] == (403 if code == "InvalidSignatureException" else 400)


def test_a_modelled_error_fills_the_typed_exceptions_members():
    reply = serialize.error_reply("json", errors.ResourceLimitExceeded("Too many."), "request-1")
    shape = MODELS["sagemaker"].shape_for("ResourceLimitExceeded")
    parsed = create_parser("json").parse({"status_code": 400, "headers": {}, "body": reply.body}, shape)
    assert parsed["Message"] == "Too many."


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.UnrecognizedClient("x"), "InvalidClientTokenId", 403),
        (errors.InvalidToken("x"), "InvalidClientTokenId", 403),
        (errors.InvalidSignature("x"), "SignatureDoesNotMatch", 403),
        (errors.RequestExpired("x"), "SignatureDoesNotMatch", 403),
        (errors.IncompleteSignature("x"), "IncompleteSignature", 403),
        (errors.MissingAuthenticationToken("x"), "MissingAuthenticationToken", 403),
        (errors.ValidationException("x"), "ValidationError", 400),
        (errors.UnknownOperationException("x"), "InvalidAction", 400),
        (errors.InternalFailure("x"), "InternalFailure", 500),
    ],
)
def test_query_errors_are_read_by_botocore(error, code, status):
    reply = serialize.error_reply("query", error, "request-1", namespace=model.load("sts").namespace)
    assert reply.status == status
    parsed = create_parser("query").parse(
        {"status_code": reply.status, "headers": {}, "body": reply.body},
        MODELS["sts"].operation_model("GetCallerIdentity").output_shape,
    )
    assert parsed["Error"]["Code"] == code
    assert parsed["Error"]["Type"] == ("Receiver" if status >= 500 else "Sender")
    assert parsed["ResponseMetadata"]["RequestId"] == "request-1"
