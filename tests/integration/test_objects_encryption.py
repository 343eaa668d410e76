"""Encryption at rest over the wire, with plain boto3: what clients see, and what lies on the disk."""

import base64
import hashlib
import http.client
import json
import os
import socket
import sqlite3
import time

import pytest
from botocore.exceptions import ClientError
from tests.integration.objects_process import objects_process, raw_head

from mooring.kit.sealing import CHUNK_BYTES

BUCKET = "sealed-bucket"
ARN = "arn:aws:kms:us-east-1:000000000000:key/"
PART_BYTES = 5 << 20
SIZES = {"empty": 0, "small": 300, "large": 3 * CHUNK_BYTES + 11}
MODES = ("AES256", "aws:kms")
HEADERS = "x-amz-server-side-encryption"


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


def body(reply):
    return reply["Body"].read()


def said(reply):
    """What a reply says of encryption, without the part of the ARN that differs by directory."""
    arn = reply.get("SSEKMSKeyId")
    assert arn is None or (arn.startswith(ARN) and len(arn) == len(ARN) + 36)
    return reply.get("ServerSideEncryption"), arn is not None


def expected(mode):
    return mode, mode == "aws:kms"


def upload_in_parts(s3, key, parts, **more):
    made = s3.create_multipart_upload(Bucket=BUCKET, Key=key, **more)
    upload = {"Bucket": BUCKET, "Key": key, "UploadId": made["UploadId"]}
    put = [s3.upload_part(PartNumber=number, Body=data, **upload) for number, data in enumerate(parts, 1)]
    chosen = [{"PartNumber": number, "ETag": one["ETag"]} for number, one in enumerate(put, 1)]
    return made, put, s3.complete_multipart_upload(MultipartUpload={"Parts": chosen}, **upload)


def refusal(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"], error["Message"]


def found_on_disk(root, sentinel):
    """Files under the data directory (keys, index, WAL, blobs, staging) that hold these bytes."""
    files = [path for path in root.parent.rglob("*") if path.is_file()]
    assert len(files) > 3
    return [str(path.relative_to(root.parent)) for path in files if sentinel in path.read_bytes()]


# what clients see
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_an_encrypted_object_comes_back_whole_and_in_ranges(s3, key, mode, size):
    data = os.urandom(SIZES[size])
    put = s3.put_object(Bucket=BUCKET, Key=key, Body=data, ServerSideEncryption=mode)
    got = s3.get_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    head = s3.head_object(Bucket=BUCKET, Key=key)
    assert body(got) == data
    assert [said(reply) for reply in (put, got, head)] == [expected(mode)] * 3
    assert got["ContentLength"] == head["ContentLength"] == len(data)
    assert put["ChecksumCRC32"] == got["ChecksumCRC32"]
    assert put["ETag"] == got["ETag"] == head["ETag"]
    is_md5 = put["ETag"].strip('"') == hashlib.md5(data).hexdigest()
    assert is_md5 == (mode == "AES256")
    for start, end in ((0, 0), (7, 90), (CHUNK_BYTES - 1, CHUNK_BYTES), (CHUNK_BYTES, 3 * CHUNK_BYTES + 5), (5, 10**9)):
        if start < len(data):
            reply = s3.get_object(Bucket=BUCKET, Key=key, Range=f"bytes={start}-{end}")
            assert body(reply) == data[start : end + 1]
            assert said(reply) == expected(mode)
    if data:
        assert body(s3.get_object(Bucket=BUCKET, Key=key, Range="bytes=-5")) == data[-5:]
    [row] = s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"]
    assert (row["Size"], row["ETag"]) == (len(data), put["ETag"])


def test_an_object_without_encryption_says_nothing_of_it(s3, key):
    put = s3.put_object(Bucket=BUCKET, Key=key, Body=b"plain")
    assert said(put) == said(s3.head_object(Bucket=BUCKET, Key=key)) == (None, False)


@pytest.mark.parametrize("mode", MODES)
def test_a_multipart_upload_is_encrypted_in_every_part(s3, key, mode):
    parts = [os.urandom(PART_BYTES), os.urandom(PART_BYTES + 77), os.urandom(5)]
    made, put, done = upload_in_parts(s3, key, parts, ServerSideEncryption=mode)
    got = s3.get_object(Bucket=BUCKET, Key=key)
    data = b"".join(parts)
    assert body(got) == data
    assert [said(reply) for reply in (made, *put, done, got)] == [expected(mode)] * 6
    assert done["ETag"].endswith('-3"')
    assert (put[2]["ETag"].strip('"') == hashlib.md5(parts[2]).hexdigest()) == (mode == "AES256")
    edge = f"bytes={PART_BYTES - 3}-{2 * PART_BYTES + 79}"
    assert body(s3.get_object(Bucket=BUCKET, Key=key, Range=edge)) == data[PART_BYTES - 3 : 2 * PART_BYTES + 80]
    assert body(s3.get_object(Bucket=BUCKET, Key=key, PartNumber=3)) == parts[2]
    [row] = s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"]
    assert row["Size"] == len(data)


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("before", [None, *MODES])
@pytest.mark.parametrize("after", [None, *MODES])
def test_a_copy_is_encrypted_as_it_asks_and_never_less_than_its_source(s3, key, before, after, size):
    data = os.urandom(SIZES[size])
    source = {"Bucket": BUCKET, "Key": key + "/from"}
    put = s3.put_object(**source, Body=data, **({"ServerSideEncryption": before} if before else {}))
    asked = {"ServerSideEncryption": after} if after else {}
    copied = s3.copy_object(Bucket=BUCKET, Key=key, CopySource=source, **asked)
    s3.delete_object(**source)
    got = s3.get_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    mode = after or ("AES256" if before else None)
    assert body(got) == data
    assert said(copied) == said(got) == expected(mode)
    assert got["ETag"] == copied["CopyObjectResult"]["ETag"]
    assert (got["ETag"].strip('"') == hashlib.md5(data).hexdigest()) == (mode != "aws:kms")
    assert got["ChecksumCRC32"] == put["ChecksumCRC32"]


@pytest.mark.parametrize("after", MODES)
def test_an_encrypted_multipart_object_is_copied_as_one(s3, key, after):
    parts = [os.urandom(PART_BYTES), os.urandom(9)]
    upload_in_parts(s3, key + "/from", parts, ServerSideEncryption="aws:kms")
    s3.copy_object(
        Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": key + "/from"}, ServerSideEncryption=after
    )
    got = s3.get_object(Bucket=BUCKET, Key=key)
    assert body(got) == b"".join(parts)
    assert said(got) == expected(after)
    assert "-" not in got["ETag"]


def test_an_object_is_encrypted_in_place_by_copying_it_onto_itself(process, s3, key):
    sentinel = os.urandom(SIZES["large"])
    at = {"Bucket": BUCKET, "Key": key}
    s3.put_object(**at, Body=sentinel, Metadata={"a": "b"})
    assert found_on_disk(process.root, sentinel[:64]) != []
    s3.copy_object(**at, CopySource=at, ServerSideEncryption="aws:kms")
    got = s3.get_object(**at)
    assert (body(got), got["Metadata"], said(got)) == (sentinel, {"a": "b"}, expected("aws:kms"))
    assert found_on_disk(process.root, sentinel[:64]) == []


def test_the_default_key_has_four_names_and_any_other_is_not_found(s3, key):
    at = {"Bucket": BUCKET, "Key": key, "Body": b"x", "ServerSideEncryption": "aws:kms"}
    arn = s3.put_object(**at)["SSEKMSKeyId"]
    names = (arn, arn.rpartition("/")[2], "alias/aws/s3", "arn:aws:kms:us-east-1:000000000000:alias/aws/s3")
    assert {s3.put_object(**at, SSEKMSKeyId=name)["SSEKMSKeyId"] for name in names} == {arn}
    unknown = ARN + "12345678-1234-1234-1234-123456789012"
    for name, message in (
        (unknown, f"Key '{unknown}' does not exist"),
        ("alias/mine", "Alias arn:aws:kms:us-east-1:000000000000:alias/mine is not found."),
        ("aws/s3", "Invalid keyId 'aws/s3'"),
    ):
        assert refusal(s3.put_object, **at, SSEKMSKeyId=name) == ("KMS.NotFoundException", 400, message)
        begin = {"Bucket": BUCKET, "Key": key, "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": name}
        assert refusal(s3.create_multipart_upload, **begin)[0] == "KMS.NotFoundException"
        assert refusal(s3.copy_object, **begin, CopySource=f"{BUCKET}/{key}")[0] == "KMS.NotFoundException"


def test_an_encryption_context_is_bound_to_the_object(s3, key):
    context = base64.b64encode(json.dumps({"team": "ü", "a": "1"}).encode()).decode()
    at = {"Bucket": BUCKET, "Key": key, "ServerSideEncryption": "aws:kms"}
    put = s3.put_object(**at, Body=b"x" * 100_000, SSEKMSEncryptionContext=context)
    assert json.loads(base64.b64decode(put["SSEKMSEncryptionContext"])) == {"team": "ü", "a": "1"}
    assert body(s3.get_object(Bucket=BUCKET, Key=key)) == b"x" * 100_000
    s3.copy_object(**{**at, "Key": key + "/copy"}, CopySource={"Bucket": BUCKET, "Key": key})
    assert body(s3.get_object(Bucket=BUCKET, Key=key + "/copy")) == b"x" * 100_000


@pytest.mark.parametrize("context", ["!", "bm90IGpzb24=", base64.b64encode(b'["a"]').decode(), "eyJhIjoxfQ=="])
def test_an_encryption_context_that_is_none_is_refused(s3, key, context):
    at = {"Bucket": BUCKET, "Key": key, "Body": b"", "ServerSideEncryption": "aws:kms"}
    assert refusal(s3.put_object, **at, SSEKMSEncryptionContext=context)[:2] == ("InvalidArgument", 400)


def test_what_encryption_cannot_mean_is_refused(s3, key):
    put = {"Bucket": BUCKET, "Key": key, "Body": b"x"}
    for extra, code in (
        ({"ServerSideEncryption": "AES-128"}, "InvalidArgument"),
        ({"ServerSideEncryption": "aws:kms:dsse"}, "NotImplemented"),
        ({"ServerSideEncryption": "AES256", "SSEKMSKeyId": "alias/aws/s3"}, "InvalidArgument"),
        ({"SSEKMSKeyId": "alias/aws/s3"}, "InvalidArgument"),
        ({"SSEKMSEncryptionContext": "e30="}, "InvalidArgument"),
        ({"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True}, "NotImplemented"),
        ({"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}, "NotImplemented"),
    ):
        assert refusal(s3.put_object, **put, **extra)[0] == code
    assert refusal(s3.head_object, Bucket=BUCKET, Key=key)[1] == 404
    s3.put_object(**put, ServerSideEncryption="aws:kms", BucketKeyEnabled=False)


# what lies on the disk
@pytest.mark.parametrize("mode", MODES)
def test_what_was_encrypted_is_nowhere_on_the_disk(process, s3, key, mode):
    sealed = {"ServerSideEncryption": mode}
    sentinel = os.urandom(64)
    bodies = {"small": sentinel + b"s", "large": os.urandom(100_000) + sentinel + os.urandom(100_000)}
    for name, data in bodies.items():
        s3.put_object(Bucket=BUCKET, Key=f"{key}/{name}", Body=data, **sealed)
    upload_in_parts(s3, key, [sentinel * (PART_BYTES // 64), sentinel], **sealed)
    begun = s3.create_multipart_upload(Bucket=BUCKET, Key=key + "/open", **sealed)["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key=key + "/open", UploadId=begun, PartNumber=1, Body=sentinel)
    source = {"Bucket": BUCKET, "Key": key + "/small"}
    for number, more in enumerate(({}, sealed, {"ServerSideEncryption": "AES256"})):
        s3.copy_object(Bucket=BUCKET, Key=f"{key}/copy{number}", CopySource=source, **more)
    assert found_on_disk(process.root, sentinel) == []
    s3.put_object(Bucket=BUCKET, Key=key + "/plain", Body=sentinel)
    assert found_on_disk(process.root, sentinel) != []  # the search does find


def test_a_killed_upload_leaves_nothing_readable_and_what_was_acknowledged_can_be_read(tmp_path):
    sentinel = os.urandom(64)
    data = sentinel * ((3 << 20) // 64)
    with objects_process(tmp_path / "s3") as process:
        s3 = process.client()
        s3.create_bucket(Bucket=BUCKET)
        kept = {"small": sentinel, "large": data}
        for name, content in kept.items():
            s3.put_object(Bucket=BUCKET, Key=name, Body=content, ServerSideEncryption="aws:kms")
        headers = [(b"content-length", b"%d" % (2 * len(data))), (HEADERS.encode(), b"aws:kms")]
        with socket.create_connection(("127.0.0.1", process.port), timeout=30) as raw:
            raw.sendall(raw_head("PUT", f"/{BUCKET}/k", headers, hashlib.sha256(data + data).hexdigest()))
            raw.sendall(data)
            end = time.monotonic() + 30
            while not any(path.stat().st_size > 1 << 20 for path in (process.root / "staging").iterdir()):
                assert time.monotonic() < end, "the upload did not begin"
                time.sleep(0.01)
            assert found_on_disk(process.root, sentinel) == []
            process.kill()
        assert found_on_disk(process.root, sentinel) == []
        process.restart()
        for name, content in kept.items():
            assert body(s3.get_object(Bucket=BUCKET, Key=name)) == content
        assert refusal(s3.head_object, Bucket=BUCKET, Key="k")[1] == 404
        assert found_on_disk(process.root, sentinel) == []


# damage
@pytest.fixture
def damaged(tmp_path):
    """A server with one encrypted object of 20 chunks, and its blob's path."""
    data = os.urandom(20 * CHUNK_BYTES)
    with objects_process(tmp_path / "s3") as process:
        s3 = process.client(retries={"total_max_attempts": 1})
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="k", Body=data, ServerSideEncryption="aws:kms")
        [blob] = [path for path in (process.root / "blobs").rglob("*") if path.is_file()]
        yield process, s3, blob, data


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


STEP = CHUNK_BYTES + 16


def swap_chunks(path):
    content = path.read_bytes()
    path.write_bytes(content[STEP : 2 * STEP] + content[:STEP] + content[2 * STEP :])


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: flip(path, 5),
        swap_chunks,
        lambda path: path.write_bytes(b""),
        lambda path: os.truncate(path, STEP - 1),
    ],
    ids=["changed", "reordered", "emptied", "cut"],
)
def test_damage_at_the_beginning_is_an_error(damaged, harm):
    _, s3, blob, _ = damaged
    harm(blob)
    assert refusal(s3.get_object, Bucket=BUCKET, Key="k")[:2] == ("InternalError", 500)
    assert refusal(s3.get_object, Bucket=BUCKET, Key="k", Range="bytes=0-9")[:2] == ("InternalError", 500)
    assert s3.head_object(Bucket=BUCKET, Key="k")["ContentLength"] == 20 * CHUNK_BYTES
    copy = {"Bucket": BUCKET, "Key": "copy", "CopySource": f"{BUCKET}/k", "ServerSideEncryption": "AES256"}
    assert refusal(s3.copy_object, **copy)[:2] == ("InternalError", 500)


def test_ranges_beside_the_damage_are_still_right(damaged):
    _, s3, blob, data = damaged
    flip(blob, 5)
    assert body(s3.get_object(Bucket=BUCKET, Key="k", Range=f"bytes={CHUNK_BYTES}-")) == data[CHUNK_BYTES:]


@pytest.mark.parametrize("harm", [lambda path: flip(path, -1), lambda path: os.truncate(path, 19 * STEP)])
def test_damage_further_on_breaks_the_answer_off_before_any_wrong_byte(damaged, harm):
    process, _, blob, data = damaged
    harm(blob)
    connection = socket.create_connection(("127.0.0.1", process.port), timeout=30)
    with connection:
        connection.sendall(raw_head("GET", f"/{BUCKET}/k", [], hashlib.sha256(b"").hexdigest()))
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        assert reply.status == 200
        with pytest.raises(http.client.IncompleteRead) as caught:
            reply.read()
    got = caught.value.partial
    assert data.startswith(got)
    assert len(got) < len(data)


def test_a_blob_in_anothers_place_is_an_error(damaged):
    process, s3, blob, data = damaged
    s3.put_object(Bucket=BUCKET, Key="other", Body=data[::-1], ServerSideEncryption="aws:kms")
    [other] = [path for path in (process.root / "blobs").rglob("*") if path.is_file() and path != blob]
    blob.write_bytes(other.read_bytes())
    assert refusal(s3.get_object, Bucket=BUCKET, Key="k")[:2] == ("InternalError", 500)
    assert body(s3.get_object(Bucket=BUCKET, Key="other")) == data[::-1]


def test_a_changed_body_in_the_index_is_an_error(damaged):
    process, s3, _, _ = damaged
    s3.put_object(Bucket=BUCKET, Key="small", Body=b"small", ServerSideEncryption="AES256")
    process.kill()
    with sqlite3.connect(process.root / "index.db") as index:
        [(row, sealed)] = index.execute("SELECT id, data FROM inline").fetchall()
        index.execute("UPDATE inline SET data = ? WHERE id = ?", (bytes([sealed[0] ^ 1]) + sealed[1:], row))
    index.close()
    process.restart()
    assert refusal(s3.get_object, Bucket=BUCKET, Key="small")[:2] == ("InternalError", 500)
