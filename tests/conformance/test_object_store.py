"""What every ObjectStore does: the one in memory, and the boto3 client against a real S3 process."""

import hashlib
import os

import pytest
from tests.integration.objects_process import ACCESS_KEY, SECRET_KEY, objects_process

from mooring.s3.base import (
    BadUriError,
    DeniedError,
    NotFoundError,
    ObjectStore,
    ObjectStoreError,
    TooLargeError,
)
from mooring.s3.client import S3Access, S3ObjectStore
from mooring.s3.memory import MemoryObjectStore

BUCKET = "conformance-bucket"


@pytest.fixture(scope="module")
def s3_url(tmp_path_factory):
    with objects_process(tmp_path_factory.mktemp("objects") / "s3") as process:
        process.client().create_bucket(Bucket=BUCKET)
        yield process.url


def access(url, **changes):
    given = {
        "endpoint_url": url,
        "region": "us-east-1",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "attempts": 1,
    }
    return S3Access(**{**given, **changes})


@pytest.fixture(params=["memory", "boto3"])
async def store(request):
    if request.param == "memory":
        made = MemoryObjectStore(BUCKET)
    else:
        made = S3ObjectStore(access(request.getfixturevalue("s3_url")))
    yield made
    await made.aclose()


@pytest.fixture
def at(request):
    """A prefix of this test's own: the real server is shared by all of them."""
    return f"s3://{BUCKET}/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}/"


async def test_what_was_put_comes_back(store: ObjectStore, at):
    await store.put_bytes(at + "a b/ü+%2F", b"content")
    assert await store.get_bytes(at + "a b/ü+%2F", max_bytes=7) == b"content"


async def test_a_file_goes_in_and_comes_out_whole(store, at, tmp_path):
    data = os.urandom(300_000)
    (tmp_path / "in").write_bytes(data)
    await store.put_file(at + "file", tmp_path / "in", deadline_s=30)
    etag = await store.get_to_file(at + "file", tmp_path / "out", max_bytes=len(data), deadline_s=30)
    assert (tmp_path / "out").read_bytes() == data
    assert etag == hashlib.md5(data).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


async def test_an_empty_object_is_an_object(store, at, tmp_path):
    await store.put_bytes(at + "empty", b"")
    await store.get_to_file(at + "empty", tmp_path / "out", max_bytes=0, deadline_s=30)
    assert (tmp_path / "out").read_bytes() == b""
    stat = await store.stat(at + "empty")
    assert stat is not None
    assert stat.size == 0


async def test_a_second_put_replaces_the_first_and_changes_the_etag(store, at):
    await store.put_bytes(at + "k", b"old")
    old = await store.stat(at + "k")
    await store.put_bytes(at + "k", b"newer")
    new = await store.stat(at + "k")
    assert (old.size, new.size) == (3, 5)
    assert old.etag != new.etag
    assert new.uri == at + "k"


async def test_a_missing_object_is_told_apart_from_a_failure(store, at, tmp_path):
    assert await store.stat(at + "missing") is None
    with pytest.raises(NotFoundError) as caught:
        await store.get_bytes(at + "missing", max_bytes=10)
    assert not caught.value.retryable
    with pytest.raises(NotFoundError):
        await store.get_to_file(at + "missing", tmp_path / "out", max_bytes=10, deadline_s=30)
    assert list(tmp_path.iterdir()) == []


async def test_a_missing_bucket_is_not_found(store, tmp_path):
    assert await store.stat("s3://no-such-bucket-here/k") is None
    (tmp_path / "in").write_bytes(b"x")
    with pytest.raises(NotFoundError):
        await store.put_bytes("s3://no-such-bucket-here/k", b"x")
    with pytest.raises(NotFoundError):
        await store.put_file("s3://no-such-bucket-here/k", tmp_path / "in", deadline_s=30)
    with pytest.raises(NotFoundError):
        [item async for item in store.list("s3://no-such-bucket-here/")]


async def test_an_object_larger_than_allowed_leaves_no_file(store, at, tmp_path):
    await store.put_bytes(at + "large", b"x" * 11)
    with pytest.raises(TooLargeError):
        await store.get_to_file(at + "large", tmp_path / "out", max_bytes=10, deadline_s=30)
    with pytest.raises(TooLargeError):
        await store.get_bytes(at + "large", max_bytes=10)
    assert list(tmp_path.iterdir()) == []


async def test_an_existing_file_is_never_overwritten(store, at, tmp_path):
    await store.put_bytes(at + "k", b"new")
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        await store.get_to_file(at + "k", tmp_path / "out", max_bytes=10, deadline_s=30)
    assert (tmp_path / "out").read_bytes() == b"mine"


async def test_a_listing_is_in_utf8_order_and_holds_the_prefix_only(store, at):
    keys = ["a/2", "a/10", "a/\U0001f600", "a/\ufb01", "b/1", "a"]
    for key in keys:
        await store.put_bytes(at + key, key.encode())
    found = [(item.uri, item.size) async for item in store.list(at + "a/")]
    wanted = sorted((key for key in keys if key.startswith("a/")), key=str.encode)
    assert found == [(at + key, len(key.encode())) for key in wanted]
    assert [item async for item in store.list(at + "nothing")] == []


@pytest.mark.parametrize(
    "uri", ["http://bucket/key", "s3:/bucket/key", "s3://Bad_Bucket/key", "s3://bucket-without-key", ""]
)
async def test_what_is_no_object_uri_is_refused(store, uri):
    with pytest.raises(BadUriError):
        await store.get_bytes(uri, max_bytes=1)
    with pytest.raises(BadUriError):
        await store.put_bytes(uri, b"")


# What only the client can meet
async def test_wrong_keys_are_denied_and_not_worth_a_retry(s3_url):
    store = S3ObjectStore(access(s3_url, secret_key="wrong"))
    with pytest.raises(DeniedError) as caught:
        await store.get_bytes(f"s3://{BUCKET}/k", max_bytes=1)
    assert not caught.value.retryable
    assert "wrong" not in str(caught.value)
    await store.aclose()


async def test_a_server_that_is_not_there_is_worth_a_retry(tmp_path):
    with objects_process(tmp_path / "s3") as process:
        url = process.url
    store = S3ObjectStore(access(url))
    with pytest.raises(ObjectStoreError) as caught:
        await store.get_bytes(f"s3://{BUCKET}/k", max_bytes=1)
    assert caught.value.retryable
    await store.aclose()


async def test_the_deadline_bounds_a_server_that_does_not_answer():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = S3ObjectStore(access(f"http://127.0.0.1:{silent.getsockname()[1]}", read_timeout_s=1.0))
        with pytest.raises(ObjectStoreError, match="no answer within") as caught:
            await store.get_bytes(f"s3://{BUCKET}/k", max_bytes=1, deadline_s=0.2)
        assert caught.value.retryable
        await store.aclose()


async def test_many_pages_are_listed_as_one(s3_url):
    store = S3ObjectStore(access(s3_url))
    import mooring.s3.client as client_module

    assert client_module._PAGE == 1000
    keys = [f"s3://{BUCKET}/pages/{number:05}" for number in range(1005)]
    import asyncio

    gate = asyncio.Semaphore(8)

    async def put(uri):
        async with gate:
            await store.put_bytes(uri, b"")

    await asyncio.gather(*(put(uri) for uri in keys))
    assert [item.uri async for item in store.list(f"s3://{BUCKET}/pages/")] == keys
    await store.aclose()
