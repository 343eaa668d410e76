"""Ranges, checksums, integrity, XML, operations, conditions, tokens."""

import base64
import hashlib
import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.objects import checksums, conditions, integrity, preconditions, ranges, tokens, xml
from mooring.objects.attributes import attributes_of, check_plain
from mooring.objects.errors import S3Error
from mooring.objects.handlers import HANDLERS
from mooring.objects.names import Target
from mooring.objects.operations import OPERATIONS, operation_of
from mooring.objects.records import Attributes, ObjectHead


def code_of(call, *arguments, **named):
    with pytest.raises(S3Error) as caught:
        call(*arguments, **named)
    return caught.value.code


# ranges
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-4", b"01234"),
        ("bytes=5-", b"56789"),
        ("bytes=-3", b"789"),
        ("bytes=-30", b"0123456789"),
        ("bytes=9-9", b"9"),
        ("bytes=8-100", b"89"),
    ],
)
def test_a_range_is_what_it_names(header, expected):
    span = ranges.span_of(header, 10)
    assert b"0123456789"[span.start : span.start + span.length] == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=100-200", "bytes=-0"])
def test_a_range_outside_is_not_satisfiable_and_says_how_large_the_object_is(header):
    with pytest.raises(S3Error) as caught:
        ranges.span_of(header, 10)
    assert (caught.value.status, caught.value.headers) == (416, {"content-range": "bytes */10"})


@pytest.mark.parametrize(
    "header", ["bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b", "bytes=1"]
)
def test_a_range_that_cannot_be_read_is_passed_over(header):
    assert ranges.span_of(header, 10) is None


# checksums
@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [("CRC32", "cbf43926"), ("CRC32C", "e3069283"), ("CRC64NVME", "ae8b14860a799888")],
)
def test_the_crcs_give_their_published_check_values(algorithm, expected):
    assert base64.b64decode(checksums.of(algorithm, b"123456789")).hex() == expected


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.sampled_from(checksums.CRCS))
def test_parts_combine_into_the_checksum_of_the_whole(parts, algorithm):
    named = [(checksums.of(algorithm, part), len(part)) for part in parts]
    assert checksums.full_object(algorithm, named) == checksums.of(algorithm, b"".join(parts))


def test_composites_are_over_the_parts_and_count_them():
    parts = [b"one", b"two"]
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    named = [checksums.of("SHA256", part) for part in parts]
    assert checksums.composite("SHA256", named) == base64.b64encode(hashlib.sha256(digests).digest()).decode() + "-2"
    etags = [hashlib.md5(part).hexdigest() for part in parts]
    whole = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    assert checksums.multipart_etag(etags) == f"{whole}-2"


# integrity
def settle(headers, body, *, sha256=None, trailers=None):
    guards = integrity.Guards(integrity.stated_by(headers, sha256=sha256))
    for at in range(0, len(body), 7):
        guards.update(body[at : at + 7])
    return guards.settle(trailers or {})


@pytest.mark.parametrize("algorithm", checksums.ALGORITHMS)
def test_a_stated_checksum_is_compared_and_kept(algorithm):
    body = os.urandom(100)
    header = f"x-amz-checksum-{algorithm.lower()}"
    good = checksums.of(algorithm, body)
    seal = settle({header: good, "x-amz-sdk-checksum-algorithm": algorithm}, body)
    assert seal.stored().value == good
    assert code_of(settle, {header: good}, body + b"x") == "BadDigest"
    assert settle({"x-amz-trailer": header}, body, trailers={header: good}).checksum == good
    assert code_of(settle, {"x-amz-trailer": header}, body + b"x", trailers={header: good}) == "BadDigest"
    assert code_of(settle, {"x-amz-trailer": header}, body) == "InvalidRequest"


def test_md5_and_the_signed_digest_are_compared():
    body = b"body"
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    digest = hashlib.sha256(body).hexdigest()
    assert settle({"content-md5": md5}, body, sha256=digest).etag == hashlib.md5(body).hexdigest()
    assert code_of(settle, {"content-md5": md5}, b"other") == "BadDigest"
    assert code_of(settle, {}, b"other", sha256=digest) == "XAmzContentSHA256Mismatch"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-md5": "nonsense"}, "InvalidDigest"),
        ({"x-amz-checksum-crc32": "AAAAAAAA"}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-sha1": "x"}, "InvalidRequest"),
        ({"x-amz-checksum-xxhash3": "AAAAAA=="}, "NotImplemented"),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, "InvalidRequest"),
        ({"x-amz-sdk-checksum-algorithm": "MD5"}, "NotImplemented"),
        ({"x-amz-sdk-checksum-algorithm": "SHA1", "x-amz-checksum-crc32": "AAAAAA=="}, "InvalidArgument"),
        ({"x-amz-trailer": "x-other"}, "InvalidRequest"),
    ],
)
def test_statements_that_cannot_be_kept_are_refused(headers, code):
    assert code_of(integrity.stated_by, headers, sha256=None) == code


@given(st.binary(max_size=300))
def test_the_computed_checksum_is_of_all_bytes(body):
    assert (
        settle(
            {"x-amz-trailer": "x-amz-checksum-crc32"},
            body,
            trailers={"x-amz-checksum-crc32": base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()},
        ).etag
        == hashlib.md5(body).hexdigest()
    )


# XML
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")))
def test_text_survives_xml(text):
    element = xml.parse(xml.document("Root", [("Key", text)]), "Root")
    assert (element.findtext("Key") or "") == text


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<Other/>",
        b"<Root>",
        b'<!DOCTYPE Root [<!ENTITY a "b">]><Root>&a;</Root>',
        b'<!DOCTYPE Root SYSTEM "file:///etc/passwd"><Root/>',
        b"\xff\xfe",
    ],
)
def test_documents_that_are_not_plain_are_malformed(document):
    assert code_of(xml.parse, document, "Root") == "MalformedXML"


# operations
def resolve(method, bucket="", key=b"", parameters=None, headers=None):
    return operation_of(method, Target(bucket=bucket, key=key), parameters or {}, headers or {}).name


@pytest.mark.parametrize(
    ("method", "bucket", "key", "parameters", "name"),
    [
        ("GET", "", b"", {}, "ListBuckets"),
        ("GET", "b", b"", {}, "ListObjects"),
        ("GET", "b", b"", {"list-type": "2"}, "ListObjectsV2"),
        ("GET", "b", b"", {"location": ""}, "GetBucketLocation"),
        ("POST", "b", b"", {"delete": ""}, "DeleteObjects"),
        ("PUT", "b", b"k", {"x-id": "PutObject"}, "PutObject"),
        ("PUT", "b", b"k", {"partNumber": "1", "uploadId": "u"}, "UploadPart"),
        ("POST", "b", b"k", {"uploads": ""}, "CreateMultipartUpload"),
        ("POST", "b", b"k", {"uploadId": "u"}, "CompleteMultipartUpload"),
        ("DELETE", "b", b"k", {"uploadId": "u"}, "AbortMultipartUpload"),
        ("GET", "b", b"k", {"uploadId": "u"}, "ListParts"),
        ("HEAD", "b", b"k", {}, "HeadObject"),
    ],
)
def test_a_request_is_its_operation(method, bucket, key, parameters, name):
    assert resolve(method, bucket, key, parameters) == name


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("GET", "b", b"", {"acl": ""}), "GetBucketAcl"),
        (("PUT", "b", b"k", {"tagging": ""}), "PutObjectTagging"),
        (("GET", "b", b"", {"versions": ""}), "ListObjectVersions"),
        (("PUT", "b", b"k", {"uploadId": "u", "partNumber": "1"}, {"x-amz-copy-source": "/b/k"}), "UploadPartCopy"),
        (("GET", "b", b"k", {"versionId": "v"}), "versionId"),
        (("PUT", "b", b"k", {}, {"x-amz-server-side-encryption-customer-key": "k"}), "customer-key"),
        (("GET", "b", b"k", {}, {"x-amz-server-side-encryption": "aws:kms"}), "x-amz-server-side-encryption"),
        (("PUT", "b", b"k", {}, {"x-amz-grant-read": "id=1"}), "x-amz-grant-read"),
        (("PUT", "b", b"k", {}, {"x-amz-tagging": "a=b"}), "x-amz-tagging"),
        (("PUT", "b", b"k", {}, {"x-amz-object-lock-mode": "COMPLIANCE"}), "x-amz-object-lock-mode"),
        (("GET", "b", b"k", {}, {"x-amz-server-side-encryption-customer-key": "k"}), "customer-key"),
        (("DELETE", "b", b"k", {}, {"if-match": "e"}), "if-match"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(arguments, named):
    with pytest.raises(S3Error, match=named) as caught:
        resolve(*arguments)
    assert caught.value.code == "NotImplemented"


def test_every_operation_has_its_handler():
    assert set(OPERATIONS) == set(HANDLERS)


@pytest.mark.parametrize(
    "headers",
    [{"x-amz-acl": "public-read"}, {"x-amz-storage-class": "GLACIER"}, {"x-amz-object-ownership": "ObjectWriter"}],
)
def test_plain_values_only(headers):
    assert code_of(check_plain, headers) == "NotImplemented"
    check_plain({"x-amz-acl": "private", "x-amz-storage-class": "STANDARD"})


# attributes
def test_aws_chunked_is_no_content_encoding_of_the_object():
    kept = attributes_of({"content-encoding": "aws-chunked,gzip", "x-amz-meta-a": "b", "host": "h"})
    assert kept.headers == {"content-encoding": "gzip", "content-type": "binary/octet-stream"}
    assert kept.metadata == {"a": "b"}
    assert "content-encoding" not in attributes_of({"content-encoding": "aws-chunked"}).headers


def test_too_much_metadata_is_refused():
    attributes_of({"x-amz-meta-k": "v" * 2047})
    assert code_of(attributes_of, {"x-amz-meta-k": "v" * 2048}) == "MetadataTooLarge"


# conditions
HEAD = ObjectHead(key=b"k", size=1, etag="abc", modified_s=1_000_000_000, attributes=Attributes())
BEFORE, AFTER = "Sun, 09 Sep 2001 01:46:39 GMT", "Sun, 09 Sep 2001 01:46:40 GMT"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"if-match": '"abc"'}, None),
        ({"if-match": "*"}, None),
        ({"if-match": '"other"'}, "PreconditionFailed"),
        ({"if-none-match": '"abc"'}, "NotModified"),
        ({"if-none-match": '"x", "y"'}, None),
        ({"if-modified-since": AFTER}, "NotModified"),
        ({"if-modified-since": BEFORE}, None),
        ({"if-unmodified-since": BEFORE}, "PreconditionFailed"),
        ({"if-unmodified-since": AFTER}, None),
        ({"if-match": '"abc"', "if-unmodified-since": BEFORE}, None),
        ({"if-none-match": '"x"', "if-modified-since": AFTER}, None),
        ({"if-modified-since": "nonsense"}, None),
    ],
)
def test_reads_are_conditional_as_http_says(headers, code):
    precondition = conditions.precondition_of(headers)
    if code is None:
        preconditions.check_read(precondition, HEAD)
    else:
        assert code_of(preconditions.check_read, precondition, HEAD) == code


@pytest.mark.parametrize(
    ("headers", "present", "code"),
    [
        ({}, HEAD, None),
        ({"if-none-match": "*"}, None, None),
        ({"if-none-match": "*"}, HEAD, "PreconditionFailed"),
        ({"if-match": '"abc"'}, HEAD, None),
        ({"if-match": '"x"'}, HEAD, "PreconditionFailed"),
        ({"if-match": '"x"'}, None, "NoSuchKey"),
    ],
)
def test_writes_are_conditional_on_what_is_there(headers, present, code):
    precondition = conditions.precondition_of(headers)
    if code is None:
        preconditions.check_write(precondition, present, b"k")
    else:
        assert code_of(preconditions.check_write, precondition, present, b"k") == code


# tokens
@given(st.text())
def test_a_token_leads_back(text):
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return
    assert tokens.decode_token(tokens.encode_token(raw), "continuation-token") == raw


@pytest.mark.parametrize("token", ["", "nonsense!", "MA==", "Mf8=", "ü"])
def test_a_token_of_somebody_elses_is_refused(token):
    assert code_of(tokens.decode_token, token, "continuation-token") == "InvalidArgument"
