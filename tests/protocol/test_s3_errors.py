"""Refused signatures and other errors in S3's form, read by botocore's parser."""

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser

from mooring.domain import errors
from mooring.protocol import forms

SHAPE = ServiceModel(Loader().load_service_model("s3", "service-2"), "s3").operation_model("ListBuckets").output_shape


def read(reply):
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    return create_parser("rest-xml").parse({"status_code": reply.status, "headers": headers, "body": reply.body}, SHAPE)


@pytest.mark.parametrize(
    ("error", "code", "status", "extra"),
    [
        (errors.MissingAuthenticationToken("x"), "AccessDenied", 403, {}),
        (errors.UnrecognizedClient("x"), "InvalidAccessKeyId", 403, {"AWSAccessKeyId": "AKID"}),
        (errors.InvalidToken("x"), "InvalidToken", 400, {}),
        (errors.InvalidSignature("x"), "SignatureDoesNotMatch", 403, {"AWSAccessKeyId": "AKID"}),
        (errors.RequestExpired("x"), "RequestTimeTooSkewed", 403, {"MaxAllowedSkewMilliseconds": "900000"}),
        (errors.HeadersNotSigned("x", names=("x-amz-acl",)), "AccessDenied", 403, {"HeadersNotSigned": "x-amz-acl"}),
        (errors.WrongRegion("x", given="a", expected="b"), "AuthorizationHeaderMalformed", 400, {"Region": "b"}),
        (errors.PayloadNotDeclared("x"), "InvalidRequest", 400, {}),
        (errors.PresignedNotOffered("x"), "NotImplemented", 501, {}),
        (errors.IncompleteSignature("x"), "AuthorizationHeaderMalformed", 400, {}),
        (errors.ExpiredToken("x"), "ExpiredToken", 400, {}),
    ],
)
def test_refused_signatures_have_s3s_own_codes(error, code, status, extra):
    reply = forms.s3_auth_reply(error, "/bucket/key", "request-1", access_key="AKID")
    assert reply.status == status
    parsed = read(reply)
    assert parsed["Error"]["Code"] == code
    assert {name: parsed["Error"][name] for name in extra} == extra
    assert parsed["Error"]["Resource"] == "/bucket/key"
    assert parsed["ResponseMetadata"]["RequestId"] == "request-1"


def test_text_is_escaped_and_what_xml_cannot_hold_is_replaced():
    reply = forms.s3_error_reply("NoSuchKey", "a<&>\x00b", 404, "/b/\ud800\x1f", "request-1", {"Key": "k<"})
    parsed = read(reply)
    assert parsed["Error"]["Message"] == "a<&>\ufffdb"
    assert parsed["Error"]["Resource"] == "/b/\ufffd\ufffd"
    assert parsed["Error"]["Key"] == "k<"
