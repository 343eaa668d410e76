"""A disk that really is full: what the S3 process says, that deleting works, and what stays. Needs the right to mount."""

import os
import subprocess

import pytest
from botocore.exceptions import ClientError
from tests.integration.objects_process import objects_process

BUCKET = "full-bucket"


@pytest.fixture
def disk(tmp_path):
    """An empty file system of 24 MiB."""
    made = tmp_path / "disk"
    made.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(made)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield made
    subprocess.run(["umount", "-l", str(made)], check=True)


def occupy(path):
    """Take all that is free, as a neighbour on the disk would."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, bytes(4096))
    except OSError:
        pass
    finally:
        os.close(fd)


def fill(s3, prefix, size):
    """Put until there is no room; the keys that were acknowledged, and the refusal."""
    keys = []
    while True:
        key = f"{prefix}/{len(keys):05d}"
        try:
            s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode() * (size // len(key)))
        except ClientError as error:
            return keys, error.response
        keys.append(key)


def delete(s3, keys):
    for key in keys:
        s3.delete_object(Bucket=BUCKET, Key=key)


def listed(s3):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


@pytest.mark.parametrize("size", [200_000, 14_000])  # in files, in the index
def test_on_a_full_disk_puts_are_refused_in_words_and_deletes_make_room(disk, size):
    (disk / "ballast").write_bytes(bytes(12 << 20))  # fewer objects fill what is left
    with objects_process(disk / "s3") as process:
        s3 = process.client(retries={"mode": "standard", "max_attempts": 3})
        s3.create_bucket(Bucket=BUCKET)
        keys, refused = fill(s3, "a", size)
        assert refused["Error"]["Code"] == "InsufficientStorage"
        assert "No space is left on the data directory" in refused["Error"]["Message"]
        assert refused["ResponseMetadata"]["HTTPStatusCode"] == 507
        assert refused["ResponseMetadata"]["RetryAttempts"] == 0
        occupy(disk / "neighbour")

        half = len(keys) // 2
        delete(s3, keys[:half])
        more, _ = fill(s3, "b", size)
        assert len(more) > half // 2
        kept = [*keys[half:], *more]
        assert listed(s3) == kept
        for key in (kept[0], kept[-1]):
            assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode() * (size // len(key))

        occupy(disk / "another")
        process.kill()
        process.restart()
        s3 = process.client()
        assert listed(s3) == kept
        delete(s3, kept)
        assert listed(s3) == []
        s3.put_object(Bucket=BUCKET, Key="again", Body=b"x" * 1000)
    blobs = [path for part in ("staging", "blobs") for path in (disk / "s3" / part).rglob("*") if path.is_file()]
    assert blobs == []


def test_one_upload_that_fills_the_disk_leaves_nothing_behind_and_no_traceback(disk, capfd):
    with objects_process(disk / "s3", "--log-warnings") as process:
        s3 = process.client()
        s3.create_bucket(Bucket=BUCKET)
        for _ in range(3):
            with pytest.raises(ClientError, match="InsufficientStorage"):
                s3.put_object(Bucket=BUCKET, Key="large", Body=bytes(30 << 20))
            s3.put_object(Bucket=BUCKET, Key="fits", Body=bytes(10 << 20))
            s3.delete_object(Bucket=BUCKET, Key="fits")
        assert listed(s3) == []
        assert list((disk / "s3" / "staging").iterdir()) == []
    said = capfd.readouterr().err
    assert said.count("no space is left on the data directory") == 3
    assert "Traceback" not in said


def test_an_upload_in_parts_can_be_given_up_on_a_full_disk(disk):
    with objects_process(disk / "s3") as process:
        s3 = process.client()
        s3.create_bucket(Bucket=BUCKET)
        upload = {
            "Bucket": BUCKET,
            "Key": "k",
            "UploadId": s3.create_multipart_upload(Bucket=BUCKET, Key="k")["UploadId"],
        }
        s3.upload_part(**upload, PartNumber=1, Body=bytes(5 << 20))
        fill(s3, "a", 200_000)
        occupy(disk / "neighbour")
        s3.abort_multipart_upload(**upload)
        s3.put_object(Bucket=BUCKET, Key="b", Body=bytes(4 << 20))
