"""Plain boto3, and plain sockets where boto3 would not do it, against the S3 process."""

import base64
import hashlib
import http.client
import io
import os
import socket
import time
import zlib

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.integration.objects_process import ACCESS_KEY, SECRET_KEY, objects_process, raw_head, signature

from mooring.protocol import sigv4

BUCKET = "wire-bucket"


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    with objects_process(tmp_path_factory.mktemp("objects") / "s3") as running:
        running.client().create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def s3(process):
    return process.client()


@pytest.fixture
def key(request):
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


def refusal(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    assert response["ResponseMetadata"]["RequestId"]
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def body(reply):
    return reply["Body"].read()


def signed(process, method, target, *, data=b"", headers=(), payload=None, region="us-east-1"):
    """One signed request over a connection of its own; the target goes out as it is."""
    own = [(b"host", f"127.0.0.1:{process.port}".encode()), *headers]
    own += signature(method, target, own, payload or hashlib.sha256(data).hexdigest(), region)
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in own:
        connection.putheader(name.decode(), value)
    if not any(name == b"content-length" for name, _ in own):
        connection.putheader("content-length", str(len(data)))
    connection.endheaders(data)
    reply = connection.getresponse()
    found = reply.status, dict(reply.getheaders()), reply.read()
    connection.close()
    return found


# objects
def test_an_object_comes_back_with_everything_that_was_said_of_it(s3, key):
    said = {
        "ContentType": "text/csv",
        "CacheControl": "max-age=5",
        "ContentEncoding": "gzip",
        "ContentDisposition": 'attachment; filename="a.csv"',
        "ContentLanguage": "de",
        "Metadata": {"owner": "me", "x-y": "1 2"},
    }
    put = s3.put_object(Bucket=BUCKET, Key=key, Body=b"1,2\n", **said)
    assert put["ETag"] == f'"{hashlib.md5(b"1,2" + chr(10).encode()).hexdigest()}"'
    for found in (s3.get_object(Bucket=BUCKET, Key=key), s3.head_object(Bucket=BUCKET, Key=key)):
        assert {name: found[name] for name in said} == said
        assert (found["ContentLength"], found["ETag"], found["AcceptRanges"]) == (4, put["ETag"], "bytes")


def test_response_parameters_change_the_reply_alone(s3, key):
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"x", ContentType="text/plain")
    other = s3.get_object(Bucket=BUCKET, Key=key, ResponseContentType="a/b", ResponseContentDisposition="inline")
    assert (other["ContentType"], other["ContentDisposition"]) == ("a/b", "inline")
    assert s3.get_object(Bucket=BUCKET, Key=key)["ContentType"] == "text/plain"


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 3_000_000])
def test_ranges_of_any_size_of_object(s3, key, size):
    data = os.urandom(size)
    s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    assert body(s3.get_object(Bucket=BUCKET, Key=key)) == data
    if size:
        part = s3.get_object(Bucket=BUCKET, Key=key, Range=f"bytes={size // 2}-")
        assert body(part) == data[size // 2 :]
        assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert part["ContentRange"] == f"bytes {size // 2}-{size - 1}/{size}"
        assert body(s3.get_object(Bucket=BUCKET, Key=key, Range="bytes=-1")) == data[-1:]
    assert refusal(s3.get_object, Bucket=BUCKET, Key=key, Range=f"bytes={size}-") == ("InvalidRange", 416)


def test_conditional_reads_and_writes(s3, key):
    etag = s3.put_object(Bucket=BUCKET, Key=key, Body=b"one", IfNoneMatch="*")["ETag"]
    assert refusal(s3.put_object, Bucket=BUCKET, Key=key, Body=b"x", IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert refusal(s3.get_object, Bucket=BUCKET, Key=key, IfNoneMatch=etag) == ("304", 304)
    assert refusal(s3.get_object, Bucket=BUCKET, Key=key, IfMatch='"no"') == ("PreconditionFailed", 412)
    assert body(s3.get_object(Bucket=BUCKET, Key=key, IfMatch=etag)) == b"one"


def test_deleting_twice_succeeds_twice(s3, key):
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    for _ in range(2):
        assert s3.delete_object(Bucket=BUCKET, Key=key)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refusal(s3.get_object, Bucket=BUCKET, Key=key) == ("NoSuchKey", 404)
    assert refusal(s3.head_object, Bucket=BUCKET, Key=key) == ("404", 404)


ODD_KEYS = [
    "../../etc/passwd",
    "a//b",
    ".",
    "..",
    "./x/../y",
    "/leading",
    "trailing/",
    "spaces and+plus",
    "%2F%252F",
    "üñï/\U0001f600",
    "k" * 1024,
    "quote\"'&<>;=?#",
    "line\nbreak\ttab",
    "\x01control",
]


@pytest.mark.parametrize("odd", ODD_KEYS)
def test_an_odd_key_is_just_a_key(s3, odd):
    bucket = "odd-keys"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key=odd, Body=odd.encode())
    assert body(s3.get_object(Bucket=bucket, Key=odd)) == odd.encode()
    assert odd in [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert odd in [item["Key"] for item in s3.list_objects(Bucket=bucket)["Contents"]]
    assert s3.list_objects_v2(Bucket=bucket, Prefix=odd)["KeyCount"] == 1
    if odd != "\x01control":  # no XML document can carry it
        deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": odd}]})
        assert [item["Key"] for item in deleted["Deleted"]] == [odd]
        assert refusal(s3.head_object, Bucket=bucket, Key=odd)[1] == 404


def test_nothing_outside_the_directory_was_touched_by_odd_keys(process):
    assert {path.name for path in process.root.parent.iterdir()} == {process.root.name, "keys"}
    assert {path.name for path in process.root.iterdir()} >= {"blobs", "staging", "index.db"}


def test_a_key_may_not_be_longer_than_1024_bytes(s3):
    assert refusal(s3.put_object, Bucket=BUCKET, Key="ü" * 513, Body=b"") == ("KeyTooLongError", 400)


def test_virtual_host_style_names_the_same_object(process, s3, key):
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"there")
    for host in (f"{BUCKET}.localhost", f"{BUCKET}.s3.localhost:1", f"{BUCKET}.s3.us-east-1.amazonaws.com"):
        own = [(b"host", host.encode())]
        own += signature("GET", f"/{key}", own, sigv4.EMPTY_SHA256)
        connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
        connection.putrequest("GET", f"/{key}", skip_host=True, skip_accept_encoding=True)
        for name, value in own:
            connection.putheader(name.decode(), value)
        connection.endheaders()
        assert connection.getresponse().read() == b"there"
        connection.close()


# integrity
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_every_checksum_is_kept_and_given_back(s3, key, algorithm):
    put = s3.put_object(Bucket=BUCKET, Key=key, Body=b"content", ChecksumAlgorithm=algorithm)
    found = s3.get_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    assert found[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert found["ChecksumType"] == "FULL_OBJECT"
    assert body(found) == b"content"  # boto3 has compared it
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"][0]["ChecksumAlgorithm"] == [algorithm]


def test_a_wrong_digest_is_refused_and_nothing_is_stored(s3, process, key):
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    assert refusal(s3.put_object, Bucket=BUCKET, Key=key, Body=b"x", ContentMD5=wrong) == ("BadDigest", 400)
    assert refusal(s3.put_object, Bucket=BUCKET, Key=key, Body=b"x", ChecksumCRC32="AAAAAA==") == ("BadDigest", 400)
    declared = hashlib.sha256(b"declared").hexdigest()
    status, _, text = signed(process, "PUT", f"/{BUCKET}/{key}", data=b"sent", payload=declared)
    assert (status, b"XAmzContentSHA256Mismatch" in text) == (400, True)
    assert refusal(s3.head_object, Bucket=BUCKET, Key=key)[1] == 404


@pytest.mark.parametrize("size", [0, 5, 20_000, 2_000_000])
def test_an_aws_chunked_body_is_stored_without_its_framing(process, s3, key, size):
    data = os.urandom(size)
    crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    pieces = [data[at : at + 65536] for at in range(0, size, 65536)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    framed += b"0\r\nx-amz-checksum-crc32:" + crc.encode() + b"\r\n\r\n"
    headers = [
        (b"content-encoding", b"aws-chunked"),
        (b"x-amz-decoded-content-length", str(size).encode()),
        (b"x-amz-trailer", b"x-amz-checksum-crc32"),
        (b"x-amz-sdk-checksum-algorithm", b"CRC32"),
    ]
    status, _, text = signed(
        process, "PUT", f"/{BUCKET}/{key}", data=framed, headers=headers, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    )
    assert (status, text) == (200, b"")
    found = s3.get_object(Bucket=BUCKET, Key=key)
    assert body(found) == data
    assert "ContentEncoding" not in found
    bad = framed.replace(crc.encode(), b"AAAAAQ==")
    status, _, text = signed(
        process, "PUT", f"/{BUCKET}/{key}", data=bad, headers=headers, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    )
    assert (status, b"BadDigest" in text) == (400, True)
    short = b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n" if size else b"1\r\nx\r\n0\r\n\r\n"
    status, _, text = signed(
        process, "PUT", f"/{BUCKET}/{key}", data=short, headers=headers, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    )
    assert (status, b"IncompleteBody" in text) == (400, True)
    assert body(s3.get_object(Bucket=BUCKET, Key=key)) == data


# uploads in parts
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC64NVME", "SHA256"])
def test_a_large_file_goes_through_the_transfer_manager(s3, key, tmp_path, algorithm):
    data = os.urandom(17_000_000)
    s3.upload_fileobj(io.BytesIO(data), BUCKET, key, ExtraArgs={"ChecksumAlgorithm": algorithm, "Metadata": {"a": "b"}})
    head = s3.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-3"')
    assert head["Metadata"] == {"a": "b"}
    assert head["ChecksumType"] == ("FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE")
    target = io.BytesIO()
    s3.download_fileobj(BUCKET, key, target)
    assert target.getvalue() == data
    second = s3.get_object(Bucket=BUCKET, Key=key, PartNumber=2)
    assert (second["PartsCount"], body(second)) == (3, data[8 << 20 : 16 << 20])
    across = s3.get_object(Bucket=BUCKET, Key=key, Range=f"bytes={(8 << 20) - 10}-{(8 << 20) + 9}")
    assert body(across) == data[(8 << 20) - 10 : (8 << 20) + 10]


def test_an_upload_by_hand_lists_completes_and_aborts(s3, key):
    made = s3.create_multipart_upload(Bucket=BUCKET, Key=key, ContentType="text/plain")
    upload = {"Bucket": BUCKET, "Key": key, "UploadId": made["UploadId"]}
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(PartNumber=number, Body=data, **upload)["ETag"]}
        for number, data in ((1, b"1" * (5 << 20)), (2, b"2"))
    ]
    listed = s3.list_parts(MaxParts=1, **upload)
    assert (listed["IsTruncated"], [part["Size"] for part in listed["Parts"]]) == (True, [5 << 20])
    listed = s3.list_parts(PartNumberMarker=listed["NextPartNumberMarker"], **upload)
    assert (listed["IsTruncated"], [part["Size"] for part in listed["Parts"]]) == (False, [1])
    found = s3.list_multipart_uploads(Bucket=BUCKET, Prefix=key)["Uploads"]
    assert [(item["Key"], item["UploadId"]) for item in found] == [(key, made["UploadId"])]
    swapped = {"Parts": list(reversed(parts))}
    assert refusal(s3.complete_multipart_upload, MultipartUpload=swapped, **upload) == ("InvalidPartOrder", 400)
    wrong = {"Parts": [{"PartNumber": 1, "ETag": "0" * 32}]}
    assert refusal(s3.complete_multipart_upload, MultipartUpload=wrong, **upload) == ("InvalidPart", 400)
    done = s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
    assert done["ETag"].endswith('-2"')
    found = s3.get_object(Bucket=BUCKET, Key=key)
    assert (found["ContentType"], body(found)) == ("text/plain", b"1" * (5 << 20) + b"2")
    assert refusal(s3.abort_multipart_upload, **upload) == ("NoSuchUpload", 404)
    other = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    s3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=other)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET, Prefix=key)


def test_a_copy_carries_bytes_and_attributes_or_new_ones(s3, key):
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"x" * 20_000, Metadata={"a": "1"}, ContentType="text/plain")
    source = {"Bucket": BUCKET, "Key": key}
    s3.copy_object(Bucket=BUCKET, Key=key + "/c", CopySource=source)
    same = s3.get_object(Bucket=BUCKET, Key=key + "/c")
    assert (same["Metadata"], same["ContentType"], body(same)) == ({"a": "1"}, "text/plain", b"x" * 20_000)
    s3.copy_object(Bucket=BUCKET, Key=key, CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=BUCKET, Key=key)["Metadata"] == {"b": "2"}
    assert refusal(s3.copy_object, Bucket=BUCKET, Key=key, CopySource=source) == ("InvalidRequest", 400)
    assert refusal(s3.copy_object, Bucket=BUCKET, Key=key, CopySource={**source, "Key": "no"}) == ("NoSuchKey", 404)


# listings
def test_listings_page_by_page_in_utf8_order_with_delimiters(s3):
    bucket = "listing-bucket"
    s3.create_bucket(Bucket=bucket)
    keys = [f"d{n % 4}/{n:02}" for n in range(30)] + ["top", "d1", "é", "\U0001f600", "\ufb01"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    ordered = sorted(keys, key=str.encode)
    for operation in ("list_objects_v2", "list_objects"):
        pages = s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
        assert [item["Key"] for page in pages for item in page.get("Contents", ())] == ordered
        entries = []
        for page in s3.get_paginator(operation).paginate(
            Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2}
        ):
            entries += [item["Key"] for item in page.get("Contents", ())]
            entries += [item["Prefix"] for item in page.get("CommonPrefixes", ())]
        assert sorted(entries, key=str.encode) == sorted(
            {k.partition("/")[0] + "/" if "/" in k else k for k in keys}, key=str.encode
        )
    later = s3.list_objects_v2(Bucket=bucket, StartAfter="d3/27", FetchOwner=True)
    assert [item["Key"] for item in later["Contents"]] == [key for key in ordered if key.encode() > b"d3/27"]
    assert later["Contents"][0]["Owner"]["ID"]
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["KeyCount"] == 0
    wrong = {"Bucket": bucket, "ContinuationToken": "wrong"}
    assert refusal(s3.list_objects_v2, **wrong) == ("InvalidArgument", 400)
    many = [{"Key": key} for key in keys]
    assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": many, "Quiet": True})
    s3.delete_bucket(Bucket=bucket)


# buckets
def test_the_life_of_a_bucket(s3):
    name = "life-of-a-bucket"
    assert refusal(s3.head_bucket, Bucket=name) == ("404", 404)
    s3.create_bucket(Bucket=name, ACL="private")
    s3.create_bucket(Bucket=name)  # us-east-1 forgives
    head = s3.head_bucket(Bucket=name, ExpectedBucketOwner="000000000000")
    assert head["BucketRegion"] == "us-east-1"
    assert refusal(s3.head_bucket, Bucket=name, ExpectedBucketOwner="111111111111") == ("403", 403)
    assert name in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] is None
    assert "Status" not in s3.get_bucket_versioning(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"")
    assert refusal(s3.delete_bucket, Bucket=name) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket=name, Key="k")
    s3.delete_bucket(Bucket=name)
    assert refusal(s3.list_objects_v2, Bucket=name) == ("NoSuchBucket", 404)


def test_buckets_that_cannot_be_are_refused(s3, process):
    assert refusal(s3.create_bucket, Bucket="Has_Capitals") == ("InvalidBucketName", 400)
    elsewhere = {"Bucket": "elsewhere", "CreateBucketConfiguration": {"LocationConstraint": "eu-west-1"}}
    assert refusal(s3.create_bucket, **elsewhere) == ("IllegalLocationConstraintException", 400)
    status, _, text = signed(process, "PUT", "/brokenxml", data=b"<CreateBucket")
    assert (status, b"MalformedXML" in text) == (400, True)


# refusals
def test_what_would_change_meaning_is_refused_by_name(s3, key):
    put = {"Bucket": BUCKET, "Key": key, "Body": b"x"}
    for extra in (
        {"ServerSideEncryption": "aws:kms:dsse"},
        {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32},
        {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True},
        {"ACL": "public-read"},
        {"StorageClass": "GLACIER"},
        {"Tagging": "a=b"},
        {"ObjectLockLegalHoldStatus": "ON"},
    ):
        assert refusal(s3.put_object, **put, **extra) == ("NotImplemented", 501)
    assert refusal(s3.get_object, Bucket=BUCKET, Key=key, VersionId="v1") == ("NotImplemented", 501)
    with pytest.raises(ClientError, match="GetBucketPolicy"):
        s3.get_bucket_policy(Bucket=BUCKET)
    assert refusal(s3.head_object, Bucket=BUCKET, Key=key)[1] == 404


def test_signatures_are_checked_before_anything_else(process, s3, key):
    def client(access_key, secret_key, region="us-east-1"):
        return boto3.client(
            "s3",
            endpoint_url=process.url,
            region_name=region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    put = {"Bucket": BUCKET, "Key": key, "Body": b"x"}
    assert refusal(client(ACCESS_KEY, "wrong").put_object, **put) == ("SignatureDoesNotMatch", 403)
    assert refusal(client("AKIANOBODY", "wrong").put_object, **put) == ("InvalidAccessKeyId", 403)
    # boto3 reads the right region from the refusal and signs anew
    elsewhere = client(ACCESS_KEY, SECRET_KEY, "eu-west-1")
    assert refusal(elsewhere.list_objects_v2, Bucket="x-y-z") == ("NoSuchBucket", 404)
    status, _, text = signed(process, "GET", "/", region="eu-west-1")
    assert (status, b"<Region>us-east-1</Region>" in text) == (400, True)
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
    connection.request("GET", f"/{BUCKET}")
    reply = connection.getresponse()
    assert (reply.status, b"<Code>AccessDenied</Code>" in reply.read()) == (403, True)
    connection.close()
    assert refusal(s3.head_object, Bucket=BUCKET, Key=key)[1] == 404


def test_a_body_that_is_too_large_or_of_no_length_is_refused_before_it_is_read(process, key):
    huge = [(b"content-length", str((5 << 30) + 1).encode())]
    status, headers, text = signed(process, "PUT", f"/{BUCKET}/{key}", headers=huge, payload="UNSIGNED-PAYLOAD")
    assert (status, b"EntityTooLarge" in text, headers["connection"]) == (400, True, "close")
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as raw:
        own = [(b"transfer-encoding", b"chunked")]
        head = raw_head("PUT", f"/{BUCKET}/{key}", own, "UNSIGNED-PAYLOAD")
        raw.sendall(head + b"1\r\nx\r\n0\r\n\r\n")
        assert raw.recv(65536).startswith(b"HTTP/1.1 411 ")


def test_a_client_that_expects_100_continue_is_told_to_go_on(process, s3, key):
    data = os.urandom(40_000)
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as raw:
        own = [(b"content-length", b"40000"), (b"expect", b"100-continue")]
        head = raw_head("PUT", f"/{BUCKET}/{key}", own, hashlib.sha256(data).hexdigest())
        raw.sendall(head)
        assert raw.recv(65536).startswith(b"HTTP/1.1 100 ")
        raw.sendall(data)
        assert raw.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert body(s3.get_object(Bucket=BUCKET, Key=key)) == data


def files_of(process):
    return sorted(
        path.name for folder in ("staging", "blobs") for path in (process.root / folder).rglob("*") if path.is_file()
    )


def test_an_upload_broken_off_leaves_nothing(process, key, wait_until):
    before = files_of(process)
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as raw:
        own = [(b"content-length", b"9000000")]
        head = raw_head("PUT", f"/{BUCKET}/{key}", own, "UNSIGNED-PAYLOAD")
        raw.sendall(head)
        raw.sendall(b"x" * 3_000_000)
        wait_until(lambda: len(files_of(process)) == len(before) + 1)
    wait_until(lambda: files_of(process) == before)


@pytest.fixture
def wait_until():
    def wait(condition, limit_s=20):
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, "the condition did not come true"
            time.sleep(0.02)

    return wait
