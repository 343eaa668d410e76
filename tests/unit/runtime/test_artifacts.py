"""The cache of model data: fetched once, published whole, collected by age."""

import asyncio
import io
import os
import tarfile
from pathlib import Path

import pytest

from mooring.kit.clock import SystemClock
from mooring.runtime.archive import Bounds
from mooring.runtime.artifacts import ArtifactCache
from mooring.runtime.driver import DriverError
from mooring.s3.base import DeniedError, ObjectStat, ObjectStoreError
from mooring.s3.memory import MemoryObjectStore

URI = "s3://models/demo/model.tar.gz"
AWS_TEXT = (
    'Failed to download model data for container "container_1" from URL: "s3://models/demo/model.tar.gz". Please ensure '
    "that there is an object located at the URL and that the role passed to CreateModel has permissions to download the "
    "object."
)


class Objects(MemoryObjectStore):
    """Counts downloads, and fails when told to."""

    def __init__(self) -> None:
        super().__init__("models")
        self.fetched = 0
        self.failure: ObjectStoreError | None = None

    async def stat(self, uri: str, *, deadline_s: float = 30.0) -> ObjectStat | None:
        if self.failure is not None:
            raise self.failure
        return await super().stat(uri, deadline_s=deadline_s)

    async def get_to_file(self, uri: str, path: Path, *, max_bytes: int, deadline_s: float) -> str:
        self.fetched += 1
        await asyncio.sleep(0)
        return await super().get_to_file(uri, path, max_bytes=max_bytes, deadline_s=deadline_s)


class Clock(SystemClock):
    def __init__(self) -> None:
        self.s = 1_000_000.0

    def now_s(self) -> float:
        return self.s


def model(content: bytes = b"weights") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        member = tarfile.TarInfo("sub/model.bin")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(tmp_path: Path, objects: Objects, clock: Clock, *, max_bytes: int = 1 << 30) -> ArtifactCache:
    cache = ArtifactCache(
        str(tmp_path / "cache"), objects, clock, bounds=Bounds(packed_bytes=1 << 20), max_bytes=max_bytes
    )
    cache.start()
    return cache


@pytest.fixture
def cache(tmp_path: Path, objects: Objects, clock: Clock) -> ArtifactCache:
    return opened(tmp_path, objects, clock)


async def ensure(cache: ArtifactCache, uri: str = URI) -> str:
    return (await cache.ensure(uri, lambda _: None, deadline_s=10)).directory


async def test_model_data_is_unpacked_read_only_and_open_to_other_users(cache: ArtifactCache, objects: Objects) -> None:
    await objects.put_bytes(URI, model())
    directory = Path(await ensure(cache))
    assert (directory / "sub/model.bin").read_bytes() == b"weights"
    assert {oct(path.stat().st_mode & 0o777) for path in (directory, directory / "sub")} == {"0o555"}


async def test_the_same_data_is_fetched_once_however_many_ask_at_once(cache: ArtifactCache, objects: Objects) -> None:
    await objects.put_bytes(URI, model())
    directories = await asyncio.gather(*(ensure(cache) for _ in range(20)))
    assert len(set(directories)) == 1
    assert objects.fetched == 1


async def test_a_later_life_uses_what_is_there_and_clears_what_is_half_done(
    cache: ArtifactCache, objects: Objects, clock: Clock, tmp_path: Path
) -> None:
    await objects.put_bytes(URI, model())
    directory = await ensure(cache)
    (tmp_path / "cache/tmp/half").mkdir()
    successor = opened(tmp_path, objects, clock)
    assert await ensure(successor) == directory
    assert objects.fetched == 1
    assert os.listdir(tmp_path / "cache/tmp") == []


async def test_new_content_under_the_same_name_is_fetched(cache: ArtifactCache, objects: Objects) -> None:
    await objects.put_bytes(URI, model(b"one"))
    first = await ensure(cache)
    await objects.put_bytes(URI, model(b"two"))
    second = await ensure(cache)
    assert Path(first, "sub/model.bin").read_bytes() == b"one"
    assert Path(second, "sub/model.bin").read_bytes() == b"two"


async def test_the_same_content_under_two_names_is_kept_once(cache: ArtifactCache, objects: Objects) -> None:
    for uri in (URI, "s3://models/other.tar.gz"):
        await objects.put_bytes(uri, model())
    assert await ensure(cache) == await ensure(cache, "s3://models/other.tar.gz")


async def test_an_entry_without_its_marker_is_made_again(cache: ArtifactCache, objects: Objects) -> None:
    await objects.put_bytes(URI, model())
    directory = Path(await ensure(cache))
    (directory.parent / "complete.json").unlink()
    assert Path(await ensure(cache), "sub/model.bin").read_bytes() == b"weights"
    assert objects.fetched == 2


async def test_a_missing_object_is_told_in_the_words_of_the_service(cache: ArtifactCache) -> None:
    with pytest.raises(DriverError) as caught:
        await ensure(cache)
    assert caught.value.reason.startswith(AWS_TEXT)
    assert "404" in caught.value.reason
    assert not caught.value.retryable


async def test_a_forbidden_object_is_told_apart(cache: ArtifactCache, objects: Objects) -> None:
    objects.failure = DeniedError("forbidden", uri=URI)
    with pytest.raises(DriverError) as caught:
        await ensure(cache)
    assert caught.value.reason.startswith(AWS_TEXT)
    assert "403" in caught.value.reason
    assert not caught.value.retryable


async def test_storage_that_fails_may_be_asked_again(cache: ArtifactCache, objects: Objects) -> None:
    objects.failure = ObjectStoreError("timed out", uri=URI)
    with pytest.raises(DriverError) as caught:
        await ensure(cache)
    assert caught.value.retryable
    objects.failure = None
    await objects.put_bytes(URI, model())
    assert os.path.isdir(await ensure(cache))


@pytest.mark.parametrize("data", [b"not an archive", bytes(2 << 20)])
async def test_data_that_cannot_be_used_leaves_nothing_behind(
    cache: ArtifactCache, objects: Objects, tmp_path: Path, data: bytes
) -> None:
    await objects.put_bytes(URI, data)
    with pytest.raises(DriverError) as caught:
        await ensure(cache)
    assert not caught.value.retryable
    assert URI in caught.value.reason
    assert sorted(os.listdir(tmp_path / "cache")) == ["by-source", "empty", "tmp"]
    assert os.listdir(tmp_path / "cache/tmp") == []


@pytest.mark.parametrize("uri", ["https://example.com/model.tar.gz", "s3://models", "/etc/passwd"])
async def test_only_objects_are_fetched(cache: ArtifactCache, uri: str) -> None:
    with pytest.raises(DriverError) as caught:
        await ensure(cache, uri)
    assert not caught.value.retryable


async def test_the_longest_unused_goes_first_and_what_is_in_use_stays(
    tmp_path: Path, objects: Objects, clock: Clock
) -> None:
    cache = opened(tmp_path, objects, clock, max_bytes=2500)
    directories = []
    for number in range(4):
        await objects.put_bytes(f"s3://models/{number}", model(bytes([number]) * 1000))
        directories.append(Path(await ensure(cache, f"s3://models/{number}")))
        clock.s += 100
    digests = [directory.parent.name for directory in directories]
    assert cache.collect(set()) == 0  # all of them were used just now
    clock.s += 10_000
    assert cache.collect({digests[0]}) == 2000
    assert [directory.exists() for directory in directories] == [True, False, False, True]
    assert (await ensure(cache, "s3://models/1")) == str(directories[1])
    assert objects.fetched == 5


async def test_a_model_without_data_has_an_empty_directory(cache: ArtifactCache) -> None:
    assert os.listdir(cache.empty.directory) == []
