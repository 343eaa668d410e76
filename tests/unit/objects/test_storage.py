"""The engine over a real directory: what it keeps, what it removes, what it finds after a crash."""

import hashlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mooring.domain.ids import Scope
from mooring.kms.root import RootKeys
from mooring.objects import checksums
from mooring.objects.blobs import Blobs, DirectorySync
from mooring.objects.errors import S3Error, StorageError
from mooring.objects.index import Index
from mooring.objects.intake import INLINE_MAX_BYTES
from mooring.objects.records import Attributes, PartChoice, Precondition
from mooring.objects.reserve import Reserve
from mooring.objects.storage import Storage
from mooring.objects.uploads import MIN_PART_BYTES, UploadMark, Uploads

SCOPE = Scope(account="000000000000", region="us-east-1")
SMALL, LARGE = b"small", b"L" * (INLINE_MAX_BYTES + 1)


class StillClock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def now_s(self):
        return self.now

    def monotonic_s(self):
        return self.now


def opened(root, scope=SCOPE):
    storage = Storage(root, scope, StillClock(), RootKeys(root.with_name("keys"), scope))
    storage.start()
    return storage


@pytest.fixture
def storage(tmp_path):
    made = opened(tmp_path / "s3")
    made.create_bucket("bkt")
    yield made
    made.close()


@pytest.fixture
def bucket(storage):
    return storage.bucket("bkt")


def put(storage, bucket, key, data, **more):
    intake = storage.intake()
    intake.write(data)
    etag = hashlib.md5(data).hexdigest()
    return storage.put_object(bucket, key, intake.finish(), etag=etag, attributes=Attributes(), **more)


def get(storage, bucket, key):
    reader = storage.open_object(bucket, key)
    try:
        return read_all(reader)
    finally:
        reader.close()


def read_all(reader, block=1 << 20):
    data = b""
    while len(data) < reader.head.size:
        data += reader.read(len(data), block)
    return data


def files(storage):
    root = storage.blobs._staging.parent
    return sorted(path.name for folder in ("staging", "blobs") for path in (root / folder).rglob("*") if path.is_file())


def code_of(call, *arguments, **named):
    with pytest.raises(S3Error) as caught:
        call(*arguments, **named)
    return caught.value.code


@pytest.mark.parametrize("data", [b"", SMALL, LARGE])
def test_what_was_put_comes_back_after_a_restart(storage, bucket, tmp_path, data):
    put(storage, bucket, b"k", data)
    storage.close()
    again = opened(tmp_path / "s3")
    assert get(again, again.bucket("bkt"), b"k") == data
    again.close()


@pytest.mark.parametrize(("old", "new"), [(SMALL, LARGE), (LARGE, SMALL), (LARGE, LARGE), (SMALL, SMALL)])
def test_an_object_replaced_leaves_nothing_of_the_old_one(storage, bucket, old, new):
    put(storage, bucket, b"k", old)
    put(storage, bucket, b"k", new)
    assert get(storage, bucket, b"k") == new
    assert len(files(storage)) == (new is LARGE)
    assert storage.index.read(lambda c: c.execute("SELECT count(*) FROM inline").fetchone()[0]) == (new is SMALL)


def test_a_deleted_object_leaves_nothing(storage, bucket):
    put(storage, bucket, b"a", SMALL)
    put(storage, bucket, b"b", LARGE)
    storage.delete_objects(bucket, [b"a", b"b", b"never-there"])
    assert files(storage) == []
    assert code_of(storage.head_object, bucket, b"a") == "NoSuchKey"
    storage.index.write(lambda c: None)  # behind the clean-up that the delete has queued
    assert storage.index.read(lambda c: c.execute("SELECT count(*) FROM blobs").fetchone()[0]) == 0


def test_a_reader_keeps_its_object_while_it_is_replaced_and_removed(storage, bucket):
    put(storage, bucket, b"k", LARGE)
    reader = storage.open_object(bucket, b"k")
    put(storage, bucket, b"k", SMALL)
    assert read_all(reader) == LARGE
    reader.close()
    assert files(storage) == []


def test_odd_keys_are_only_rows(storage, bucket, tmp_path):
    keys = [b"../../etc/passwd", b"a//b", b".", b"/", b"k/", "ü\U0001f600".encode(), b"k" * 1024, b"\x01\x7f"]
    for key in keys:
        put(storage, bucket, key, LARGE + key)
    for key in keys:
        assert get(storage, bucket, key) == LARGE + key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "s3"]
    assert all(len(name) == 32 for name in files(storage))
    page = storage.list_objects(bucket, prefix=b"", delimiter=b"", after=b"", limit=100)
    assert [row.key for row in page.rows] == sorted(keys)


def test_an_aborted_intake_leaves_nothing(storage):
    intake = storage.intake()
    intake.write(LARGE)
    intake.abort()
    intake.abort()
    assert files(storage) == []


def test_a_refused_write_leaves_nothing_and_changes_nothing(storage, bucket):
    put(storage, bucket, b"k", LARGE)
    precondition = Precondition(if_none_match=("*",))
    assert code_of(put, storage, bucket, b"k", LARGE + b"x", precondition=precondition) == "PreconditionFailed"
    assert get(storage, bucket, b"k") == LARGE
    assert len(files(storage)) == 1


def test_of_many_conditional_creates_one_wins(storage, bucket):
    precondition = Precondition(if_none_match=("*",))

    def attempt(number):
        try:
            put(storage, bucket, b"k", b"%d" % number, precondition=precondition)
        except S3Error as error:
            assert error.code == "PreconditionFailed"
            return None
        return b"%d" % number

    with ThreadPoolExecutor(8) as pool:
        winners = [won for won in pool.map(attempt, range(32)) if won is not None]
    assert winners == [get(storage, bucket, b"k")]


# buckets
def test_a_bucket_that_holds_something_stays(storage, bucket):
    put(storage, bucket, b"k", SMALL)
    assert code_of(storage.delete_bucket, bucket) == "BucketNotEmpty"
    storage.delete_objects(bucket, [b"k"])
    storage.delete_bucket(bucket)
    assert code_of(storage.bucket, "bkt") == "NoSuchBucket"
    assert code_of(put, storage, bucket, b"k", LARGE) == "NoSuchBucket"
    assert files(storage) == []


def test_a_bucket_made_again_is_a_new_one(storage, bucket):
    storage.delete_bucket(bucket)
    storage.create_bucket("bkt")
    assert code_of(put, storage, bucket, b"k", SMALL) == "NoSuchBucket"


def test_names_are_shared_by_accounts_and_regions(storage, tmp_path):
    assert not storage.create_bucket("bkt")
    storage.close()
    other = opened(tmp_path / "s3", Scope(account="111111111111", region="us-east-1"))
    assert code_of(other.create_bucket, "bkt") == "BucketAlreadyExists"
    assert code_of(other.bucket, "bkt") == "AccessDenied"
    assert other.buckets() == []
    other.close()
    elsewhere = opened(tmp_path / "s3", Scope(account="000000000000", region="eu-west-1"))
    assert code_of(elsewhere.bucket, "bkt") == "PermanentRedirect"
    elsewhere.close()


# crashes
def test_blobs_that_nothing_refers_to_are_removed_at_the_next_start(storage, bucket, tmp_path):
    put(storage, bucket, b"k", LARGE)
    storage.blobs.create().write(b"half an upload")
    writer = storage.blobs.create()
    writer.write(b"whole, but never committed")
    writer.finish()
    assert len(files(storage)) == 3
    storage.close()
    again = opened(tmp_path / "s3")
    assert len(files(again)) == 1
    assert get(again, again.bucket("bkt"), b"k") == LARGE
    again.close()


def test_a_blob_committed_but_not_moved_is_moved_at_the_next_start(storage, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(storage.blobs, "settle", lambda names: None)
    put(storage, bucket, b"k", LARGE)
    assert get(storage, bucket, b"k") == LARGE
    storage.close()
    again = opened(tmp_path / "s3")
    assert list((tmp_path / "s3" / "staging").iterdir()) == []
    assert get(again, again.bucket("bkt"), b"k") == LARGE
    again.close()


def test_a_blob_doomed_but_not_removed_is_removed_at_the_next_start(storage, bucket, tmp_path, monkeypatch):
    put(storage, bucket, b"k", LARGE)
    monkeypatch.setattr(storage.blobs, "remove", lambda names: [])
    storage.delete_objects(bucket, [b"k"])
    assert len(files(storage)) == 1
    storage.close()
    again = opened(tmp_path / "s3")
    assert files(again) == []
    assert again.index.read(lambda c: c.execute("SELECT count(*) FROM blobs").fetchone()[0]) == 0
    again.close()


def test_a_directory_has_one_process(storage, tmp_path, monkeypatch):
    monkeypatch.setattr("mooring.objects.storage._LOCK_ATTEMPTS", 1)
    with pytest.raises(StorageError, match="another process"):
        opened(tmp_path / "s3")
    storage.close()
    opened(tmp_path / "s3").close()


def test_a_directory_of_a_newer_version_is_refused(storage, tmp_path):
    storage.close()
    with sqlite3.connect(tmp_path / "s3" / "index.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StorageError, match="version 99"):
        opened(tmp_path / "s3")


# uploads
@pytest.fixture
def uploads(storage):
    return Uploads(storage)


def begin(uploads, bucket, key=b"k", algorithm=None, kind="COMPOSITE"):
    return uploads.create(bucket, key, attributes=Attributes(), algorithm=algorithm, checksum_kind=kind)


def add(uploads, bucket, upload, number, data):
    intake = uploads.intake(upload)
    intake.write(data)
    checksum = checksums.of(upload.algorithm, data) if upload.algorithm else ""
    etag = hashlib.md5(data).hexdigest()
    uploads.put_part(bucket, upload, number, intake.finish(), etag=etag, checksum=checksum)
    named = {upload.algorithm: checksum} if upload.algorithm else {}
    return PartChoice(number=number, etag=etag, checksums=named)


FULL = bytes(range(256)) * (MIN_PART_BYTES // 256)


def test_parts_become_one_object_and_the_rest_goes(storage, bucket, uploads):
    put(storage, bucket, b"k", LARGE)
    upload = begin(uploads, bucket, algorithm="CRC32", kind="FULL_OBJECT")
    two = add(uploads, bucket, upload, 7, b"end")
    add(uploads, bucket, upload, 3, b"first try")
    one = add(uploads, bucket, upload, 3, FULL)
    add(uploads, bucket, upload, 9, b"not chosen")
    head = uploads.complete(bucket, b"k", upload.id, [one, two])
    assert get(storage, bucket, b"k") == FULL + b"end"
    assert head.etag.endswith("-2")
    assert head.checksum.value == checksums.of("CRC32", FULL + b"end")
    assert len(files(storage)) == 2
    assert code_of(uploads.get, bucket, b"k", upload.id) == "NoSuchUpload"
    assert uploads.uploads(bucket, prefix=b"", after=UploadMark(), limit=10) == []


def test_any_range_of_a_multipart_object_is_the_same_as_of_its_bytes(storage, bucket, uploads):
    upload = begin(uploads, bucket)
    choices = [
        add(uploads, bucket, upload, 1, FULL),
        add(uploads, bucket, upload, 2, FULL),
        add(uploads, bucket, upload, 3, b""),
    ]
    uploads.complete(bucket, b"k", upload.id, choices)
    whole = FULL + FULL
    reader = storage.open_object(bucket, b"k")
    for at in (0, 1, len(FULL) - 1, len(FULL), len(whole) - 1, 5):
        block = reader.read(at, 100)
        assert block
        assert block == whole[at : at + len(block)]
    assert read_all(reader, 999_983) == whole
    reader.close()


def test_completions_that_are_wrong_change_nothing(storage, bucket, uploads):
    upload = begin(uploads, bucket)
    small = add(uploads, bucket, upload, 1, b"small")
    last = add(uploads, bucket, upload, 2, b"last")
    complete = lambda *choices: uploads.complete(bucket, b"k", upload.id, choices)  # noqa: E731
    assert code_of(complete, small, last) == "EntityTooSmall"
    assert code_of(complete, last, small) == "InvalidPartOrder"
    assert code_of(complete, small, small) == "InvalidPartOrder"
    assert code_of(complete, PartChoice(number=1, etag="0" * 32)) == "InvalidPart"
    assert code_of(complete, PartChoice(number=5, etag=small.etag)) == "InvalidPart"
    assert code_of(uploads.complete, bucket, b"other", upload.id, [small]) == "NoSuchUpload"
    assert code_of(uploads.complete, bucket, b"k", upload.id, [small], stated_size=99) == "InvalidRequest"
    assert code_of(storage.head_object, bucket, b"k") == "NoSuchKey"
    assert complete(small).size == 5


def test_a_composite_upload_wants_every_parts_checksum(bucket, uploads):
    upload = begin(uploads, bucket, algorithm="SHA256")
    part = add(uploads, bucket, upload, 1, b"data")
    bare = PartChoice(number=1, etag=part.etag)
    wrong = PartChoice(number=1, etag=part.etag, checksums={"SHA256": checksums.of("SHA256", b"other")})
    foreign = PartChoice(number=1, etag=part.etag, checksums={**part.checksums, "CRC32": "AAAAAA=="})
    assert code_of(uploads.complete, bucket, b"k", upload.id, [bare]) == "InvalidRequest"
    assert code_of(uploads.complete, bucket, b"k", upload.id, [wrong]) == "InvalidPart"
    assert code_of(uploads.complete, bucket, b"k", upload.id, [foreign]) == "InvalidPart"
    assert uploads.complete(bucket, b"k", upload.id, [part]).checksum.value.endswith("-1")


def test_an_aborted_upload_leaves_nothing_and_takes_no_more_parts(storage, bucket, uploads):
    upload = begin(uploads, bucket)
    add(uploads, bucket, upload, 1, b"data")
    uploads.abort(bucket, b"k", upload.id)
    assert code_of(add, uploads, bucket, upload, 2, b"late") == "NoSuchUpload"
    assert code_of(uploads.abort, bucket, b"k", upload.id) == "NoSuchUpload"
    assert files(storage) == []


def test_uploads_are_listed_by_key_and_time_page_by_page(storage, bucket, uploads):
    made = []
    for key in (b"b", b"a/1", b"a/2", b"b"):
        storage.clock.now += 1
        made.append(begin(uploads, bucket, key))
    found, mark = [], UploadMark()
    while page := uploads.uploads(bucket, prefix=b"", after=mark, limit=1):
        found += page
        mark = UploadMark(key=page[0].key, upload_id=page[0].id)
    assert [upload.id for upload in found] == [made[number].id for number in (1, 2, 0, 3)]
    below = uploads.uploads(bucket, prefix=b"a/", after=UploadMark(), limit=10)
    assert [upload.key for upload in below] == [b"a/1", b"a/2"]
    assert uploads.uploads(bucket, prefix=b"", after=UploadMark(key=b"b"), limit=10) == []


def test_a_copy_shares_no_fate_with_its_source(storage, bucket):
    put(storage, bucket, b"k", LARGE)
    reader = storage.open_object(bucket, b"k")
    body = storage.copy_body(reader)
    reader.close()
    storage.put_object(bucket, b"copy", body, etag="e", attributes=Attributes())
    storage.delete_objects(bucket, [b"k"])
    assert get(storage, bucket, b"copy") == LARGE


# index
def test_one_callers_failure_is_not_anothers(tmp_path):
    index = Index(tmp_path / "index.db", Reserve(tmp_path / "reserve"))
    index.start()
    gate = threading.Event()
    insert = "INSERT INTO buckets (name, account, region, created_s) VALUES (?, 'a', 'r', 0)"

    def failing(connection):
        connection.execute(insert, ("taken-back",))
        raise ValueError("mine alone")

    blocker = index.submit(lambda _: gate.wait(30))  # what follows gathers into one group meanwhile
    good = index.submit(lambda connection: connection.execute(insert, ("kept",)).rowcount)
    bad = index.submit(failing)
    broken = index.submit(lambda connection: connection.execute("SELECT nonsense"))
    also_good = index.submit(lambda connection: connection.execute(insert, ("kept-too",)).rowcount)
    gate.set()
    assert blocker.result(30)
    assert (good.result(30), also_good.result(30)) == (1, 1)
    with pytest.raises(ValueError, match="mine alone"):
        bad.result(30)
    with pytest.raises(StorageError, match="nonsense"):
        broken.result(30)
    assert index.read(lambda c: [row[0] for row in c.execute("SELECT name FROM buckets ORDER BY name")]) == [
        "kept",
        "kept-too",
    ]
    index.close()
    with pytest.raises(StorageError, match="closed"):
        index.write(lambda _: None)
    with pytest.raises(StorageError, match="closed"):
        index.read(lambda _: None)


def test_a_group_that_cannot_commit_fails_for_all_and_the_index_lives_on(tmp_path):
    index = Index(tmp_path / "index.db", Reserve(tmp_path / "reserve"))
    index.start()
    gate = threading.Event()
    index.submit(lambda _: gate.wait(30))
    first = index.submit(lambda connection: connection.execute("PRAGMA user_version").fetchone())
    second = index.submit(lambda connection: connection.execute("ROLLBACK"))
    gate.set()
    for future in (first, second):
        with pytest.raises(StorageError):
            future.result(30)
    assert index.write(lambda _: "fine") == "fine"
    index.close()


def test_those_who_wait_for_a_sync_share_it(tmp_path, monkeypatch):
    from mooring.objects import blobs as module

    started, gate, calls = threading.Event(), threading.Event(), []

    def slow(path):
        calls.append(path)
        started.set()
        assert gate.wait(30)

    monkeypatch.setattr(module, "sync_directory", slow)
    group = DirectorySync(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(group.sync)
        assert started.wait(30)
        later = [pool.submit(group.sync) for _ in range(7)]
        gate.set()
        for future in (first, *later):
            future.result(30)
    assert 2 <= len(calls) <= 8  # whoever came after the first had begun needs one that began later


def test_a_failed_sync_fails_its_caller_and_is_tried_again_for_others(tmp_path, monkeypatch):
    from mooring.objects import blobs as module

    def broken(path):
        raise OSError(5, "Input/output error")

    blobs = Blobs(tmp_path, Reserve(tmp_path / "reserve"))
    blobs.start()
    monkeypatch.setattr(module, "sync_directory", broken)
    with pytest.raises(StorageError, match="Input/output error"):
        blobs.sync_staging()
    monkeypatch.undo()
    blobs.sync_staging()
