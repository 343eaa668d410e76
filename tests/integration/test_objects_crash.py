"""kill -9 of the S3 process under load: what was acknowledged is there, nothing is torn, nothing is left over."""

import asyncio
import hashlib
import json
import os
import random
import socket
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from tests.integration.objects_process import ACCESS_KEY, SECRET_KEY, objects_process, raw_head

from mooring.domain.ids import Scope
from mooring.domain.routing import Credential
from mooring.kms.root import RootKeys
from mooring.objects import serve
from mooring.objects.credentials import CredentialSource
from mooring.protocol import sigv4

BUCKET = "crash-bucket"
KILLS = int(os.environ.get("TEST_OBJECTS_KILLS", "6"))
PART_BYTES = 5 << 20


def content(name, version, size):
    """Bytes that say which version they are and prove that they are whole."""
    filler = hashlib.sha256(f"{name}/{version}".encode()).digest()
    head = json.dumps({"name": name, "version": version, "size": size}).encode() + b"\n"
    return (head + filler * (size // 32 + 1))[:size]


def version_of(name, data):
    said = json.loads(data.partition(b"\n")[0])
    assert said["name"] == name
    assert data == content(name, said["version"], said["size"]), "torn"
    return said["version"]


class Writer(threading.Thread):
    """Puts ever newer versions of its own keys; remembers which were acknowledged and which are in doubt."""

    def __init__(self, process, number, stop):
        super().__init__()
        self.acknowledged = {}
        self.doubtful = {}
        self.failure = None
        self._s3 = process.client()
        self._number = number
        self._stop_it = stop

    def run(self):
        try:
            self._write()
        except BaseException as error:
            self.failure = error
            raise

    def _write(self):
        chance = random.Random(self._number)
        version = 0
        while not self._stop_it.is_set():
            version += 1
            name = f"w{self._number}/{chance.randrange(4)}"
            size = chance.choice([200, 5_000, 40_000, 300_000])
            self.doubtful.setdefault(name, set()).add(version)
            try:
                self.put(name, version, size)
            except (BotoCoreError, ClientError):
                time.sleep(0.02)  # the process is being killed
                continue
            self.acknowledged[name] = version
            self.doubtful[name] = set()

    def put(self, name, version, size):
        sealed = {"ServerSideEncryption": "AES256"} if version % 2 else {}
        self._s3.put_object(Bucket=BUCKET, Key=name, Body=content(name, version, size), **sealed)


class PartsWriter(Writer):
    def put(self, name, version, size):
        data = content(name, version, PART_BYTES + size)
        sealed = {"ServerSideEncryption": "aws:kms"} if version % 2 else {}
        made = self._s3.create_multipart_upload(Bucket=BUCKET, Key=name, **sealed)
        upload = {"Bucket": BUCKET, "Key": name, "UploadId": made["UploadId"]}
        parts = [
            {"PartNumber": number, "ETag": self._s3.upload_part(PartNumber=number, Body=body, **upload)["ETag"]}
            for number, body in ((1, data[:PART_BYTES]), (2, data[PART_BYTES:]))
        ]
        self._s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)


class Reader(threading.Thread):
    """Reads whatever there is: each must be whole, and its ETag must be that of its bytes."""

    def __init__(self, process, stop):
        super().__init__()
        self.read = 0
        self.failure = None
        self._s3 = process.client()
        self._stop_it = stop

    def run(self):
        while not self._stop_it.is_set() and self.failure is None:
            try:
                for item in self._s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
                    self._check(item["Key"])
            except (BotoCoreError, ClientError):
                time.sleep(0.02)
            except BaseException as error:
                self.failure = error

    def _check(self, key):
        reply = self._s3.get_object(Bucket=BUCKET, Key=key)
        data = reply["Body"].read()
        version_of(key, data)
        if "-" not in reply["ETag"]:
            assert reply["ETag"].strip('"') == hashlib.md5(data).hexdigest()
        self.read += 1


def test_kill_9_under_load_loses_nothing_acknowledged_and_tears_nothing(tmp_path):
    with objects_process(tmp_path / "s3") as process:
        process.client().create_bucket(Bucket=BUCKET)
        stop = threading.Event()
        writers = [Writer(process, number, stop) for number in range(4)] + [PartsWriter(process, 9, stop)]
        readers = [Reader(process, stop) for _ in range(2)]
        for thread in (*writers, *readers):
            thread.start()
        chance = random.Random(1)
        try:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.1, 0.6))  # a random instant is the point
                process.kill()
                process.restart()
        finally:
            time.sleep(0.3)
            stop.set()
            for thread in (*writers, *readers):
                thread.join(60)
        assert [thread.failure for thread in (*writers, *readers)] == [None] * 7
        assert sum(reader.read for reader in readers) > 0
        process.kill()
        process.restart()
        check_what_is_there(process.client(), writers)
        check_nothing_is_left_over(process)


def check_what_is_there(s3, writers):
    acknowledged = 0
    for writer in writers:
        for name, possible in writer.doubtful.items():
            last = writer.acknowledged.get(name)
            try:
                found = version_of(name, s3.get_object(Bucket=BUCKET, Key=name)["Body"].read())
            except ClientError:
                assert last is None, f"{name} is lost"
                continue
            acknowledged += last is not None
            # in doubt since the last acknowledged one: each may have been committed before the kill
            assert found == last or found in possible, f"{name}: {found} is neither {last} nor one of {possible}"
    assert acknowledged > 0


def check_nothing_is_left_over(process):
    s3 = process.client()
    for upload in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        s3.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    page = s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": item["Key"]} for item in page]})
    s3.delete_bucket(Bucket=BUCKET)
    left = [path for folder in ("staging", "blobs") for path in (process.root / folder).rglob("*") if path.is_file()]
    assert left == []


def test_the_process_refuses_until_it_has_credentials_and_stops_cleanly(tmp_path):
    with objects_process(tmp_path / "s3", "--no-credentials") as process:
        with pytest.raises(ClientError) as caught:
            process.client().list_buckets()
        assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
        reply = caught.value.response["ResponseMetadata"]
        assert (reply["HTTPStatusCode"], reply["HTTPHeaders"]["retry-after"]) == (503, "1")
        assert process.stop() == 0


def test_a_disk_that_is_full_costs_the_request_and_nothing_else(tmp_path):
    with objects_process(tmp_path / "s3", "--small-files") as process:
        s3 = process.client(retries={"total_max_attempts": 1})
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"old")
        with pytest.raises(ClientError) as caught:
            s3.put_object(Bucket=BUCKET, Key="k", Body=b"x" * (3 << 20))
        assert caught.value.response["Error"]["Code"] == "InternalError"
        assert list((process.root / "staging").iterdir()) == []
        assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"old"
        failed, kept = 0, []
        for number in range(100):  # until the index itself has no room
            try:
                s3.put_object(Bucket=BUCKET, Key=f"n{number}", Body=b"y" * 16_000)
                kept.append(f"n{number}")
            except ClientError:
                failed += 1
        assert failed
        assert kept
        process.kill()
    with objects_process(tmp_path / "s3") as process:
        s3 = process.client()
        assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"old"
        for key in kept:
            assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"y" * 16_000
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"new" * (1 << 20))


def test_a_stop_lets_an_upload_in_flight_end(tmp_path):
    with objects_process(tmp_path / "s3") as process:
        process.client().create_bucket(Bucket=BUCKET)
        data = os.urandom(5 << 20)
        headers = [(b"content-length", str(len(data)).encode())]
        with socket.create_connection(("127.0.0.1", process.port), timeout=30) as raw:
            raw.sendall(raw_head("PUT", f"/{BUCKET}/k", headers, hashlib.sha256(data).hexdigest()))
            raw.sendall(data[: 3 << 20])
            end = time.monotonic() + 30
            while not list((process.root / "staging").iterdir()):
                assert time.monotonic() < end, "the upload did not begin"
                time.sleep(0.01)
            process.process.terminate()
            raw.sendall(data[3 << 20 :])
            assert raw.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert process.stop() == 0
        process.restart()
        assert process.client().get_object(Bucket=BUCKET, Key="k")["Body"].read() == data


async def test_it_serves_a_unix_socket_in_virtual_host_style(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s3.sock"))
    listener.listen(16)
    credentials = CredentialSource("us-east-1")
    arn = "arn:aws:iam::000000000000:root"
    key = Credential(access_key=ACCESS_KEY, secret_key=SECRET_KEY, account="000000000000", arn=arn)
    credentials.replace([key])
    ready = asyncio.Event()
    serving = asyncio.ensure_future(
        serve.run(
            listener.detach(),
            tmp_path / "s3",
            region="us-east-1",
            account="000000000000",
            credentials=credentials,
            keys=RootKeys(tmp_path / "keys", Scope(account="000000000000", region="us-east-1")),
            ready=ready.set,
        )
    )
    try:
        async with asyncio.timeout(30):
            await ready.wait()
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s3.sock"))
            for method, target, expected in (
                ("PUT", "/", b"200"),
                ("GET", "/?list-type=2", b"200"),
                ("GET", "/k", b"404"),
            ):
                writer.write(raw_head(method, target, [], sigv4.EMPTY_SHA256, host=b"unix-bucket.localhost"))
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.split()[1] == expected
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
            writer.close()
    finally:
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
