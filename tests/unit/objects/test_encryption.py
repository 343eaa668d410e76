"""Encrypted objects under the hood: the root key at start, uploads, what is asked of the key ring."""

import hashlib
import sqlite3

import pytest

from mooring.domain.ids import Scope
from mooring.kms.root import RootKeys
from mooring.objects import encryption
from mooring.objects.errors import KeyLostError, S3Error, StorageError
from mooring.objects.intake import INLINE_MAX_BYTES
from mooring.objects.keys import S3_MANAGED
from mooring.objects.records import Attributes, Encryption
from mooring.objects.storage import Storage
from mooring.objects.uploads import Uploads

SCOPE = Scope(account="000000000000", region="us-east-1")
SEALED = Encryption(mode="AES256", key=S3_MANAGED)
LARGE = b"L" * (INLINE_MAX_BYTES + 1)


class StillClock:
    def now_s(self):
        return 1_700_000_000.0

    def monotonic_s(self):
        return 0.0


def opened(root, keys=None):
    storage = Storage(root / "s3", SCOPE, StillClock(), keys or RootKeys(root / "keys", SCOPE))
    storage.start()
    return storage


def put(storage, key, data, sealed=SEALED):
    intake = storage.intake(sealed)
    intake.write(data)
    etag = hashlib.md5(data).hexdigest()
    attributes = Attributes(encryption=sealed)
    storage.put_object(storage.bucket("bkt"), key, intake.finish(), etag=etag, attributes=attributes)


def get(storage, key):
    reader = storage.open_object(storage.bucket("bkt"), key)
    try:
        data = b""
        while len(data) < reader.head.size:
            data += reader.read(len(data), 1 << 20)
        return data
    finally:
        reader.close()


@pytest.fixture
def filled(tmp_path):
    """A closed directory with one encrypted object, small or large."""

    def make(data):
        storage = opened(tmp_path)
        storage.create_bucket("bkt")
        put(storage, b"k", data)
        storage.close()
        return tmp_path

    return make


@pytest.mark.parametrize("data", [b"", b"small", LARGE])
def test_what_was_sealed_is_there_after_a_restart(filled, data):
    storage = opened(filled(data))
    assert get(storage, b"k") == data
    storage.close()


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_it_does_not_start_without_the_key_of_its_objects_and_does_with_it(filled, data):
    root = filled(data)
    key = (root / "keys" / "root").read_bytes()
    (root / "keys" / "root").unlink()
    with pytest.raises(KeyLostError, match=r"holds encrypted objects, but their key .*/keys/root is gone.*backup"):
        opened(root)
    assert not (root / "keys" / "root").exists()
    RootKeys(root / "keys", SCOPE).create()
    with pytest.raises(KeyLostError, match="another one than they were encrypted with"):
        opened(root)
    (root / "keys" / "root").write_bytes(key)
    storage = opened(root)
    assert get(storage, b"k") == data
    storage.close()


def test_an_unfinished_encrypted_upload_keeps_its_key_too(tmp_path):
    storage = opened(tmp_path)
    storage.create_bucket("bkt")
    Uploads(storage).create(
        storage.bucket("bkt"),
        b"k",
        attributes=Attributes(encryption=SEALED),
        algorithm=None,
        checksum_kind="COMPOSITE",
    )
    storage.close()
    (tmp_path / "keys" / "root").unlink()
    with pytest.raises(KeyLostError):
        opened(tmp_path)


def test_a_lost_key_that_sealed_nothing_any_more_is_replaced(filled):
    root = filled(LARGE)
    storage = opened(root)
    storage.delete_objects(storage.bucket("bkt"), [b"k"])
    put(storage, b"plain", b"plain", sealed=None)
    storage.close()
    (root / "keys" / "root").unlink()
    storage = opened(root)
    put(storage, b"k", LARGE)
    assert (get(storage, b"plain"), get(storage, b"k")) == (b"plain", LARGE)
    storage.close()
    opened(root).close()


def test_metadata_that_looks_like_encryption_is_none(tmp_path):
    storage = opened(tmp_path)
    storage.create_bucket("bkt")
    intake = storage.intake()
    attributes = Attributes(metadata={"encryption": '{"mode":"AES256"}', "attributes.encryption": "{}"})
    storage.put_object(storage.bucket("bkt"), b"k", intake.finish(), etag="0" * 32, attributes=attributes)
    storage.close()
    (tmp_path / "keys" / "root").unlink()
    opened(tmp_path).close()


def test_a_key_file_that_holds_no_key_ends_the_start_in_words(filled):
    root = filled(LARGE)
    (root / "keys" / "root").write_bytes(b"short")
    with pytest.raises(KeyLostError, match="does not hold a key"):
        opened(root)


def test_a_directory_of_the_version_before_is_taken_on(tmp_path):
    storage = opened(tmp_path)
    storage.create_bucket("bkt")
    put(storage, b"k", b"old", sealed=None)
    storage.close()
    with sqlite3.connect(tmp_path / "s3" / "index.db") as index:  # back to what version 1 wrote
        index.executescript("DROP TABLE root_key; PRAGMA user_version = 1")
        index.execute("""UPDATE objects SET detail = CAST('{"attributes":{"headers":{},"metadata":{}}}' AS BLOB)""")
    index.close()
    storage = opened(tmp_path)
    assert get(storage, b"k") == b"old"
    put(storage, b"new", LARGE)
    assert get(storage, b"new") == LARGE
    storage.close()


def test_a_body_said_to_be_encrypted_that_is_not_is_never_served(filled):
    root = filled(b"small")
    with sqlite3.connect(root / "s3" / "index.db") as index:
        index.execute("UPDATE inline SET data = CAST('small' AS BLOB)")
        index.execute("UPDATE objects SET detail = json_remove(CAST(detail AS TEXT), '$.wrapped_key')")
        index.execute("UPDATE objects SET detail = CAST(detail AS BLOB)")
    index.close()
    storage = opened(root)
    with pytest.raises(StorageError, match="contradicts"):
        get(storage, b"k")
    storage.close()


def test_an_aborted_sealed_intake_leaves_nothing(tmp_path):
    storage = opened(tmp_path)
    intake = storage.intake(SEALED)
    intake.write(LARGE)
    intake.abort()
    assert list((tmp_path / "s3" / "staging").iterdir()) == []
    storage.close()


@pytest.fixture
def keys(tmp_path):
    ring = RootKeys(tmp_path / "keys", SCOPE)
    ring.create()
    return ring


def resolve(keys, **headers):
    named = {"x-amz-server-side-encryption" + name.replace("_", "-"): value for name, value in headers.items()}
    return encryption.encryption_of(named, keys, SCOPE)


def test_equal_contexts_are_one_however_they_are_written(keys):
    import base64

    one, other, none = (
        base64.b64encode(text).decode() for text in (b'{"b":"2", "a":"1"}', b'{"a":"1","b":"2"}', b"{}")
    )
    kms = {"": "aws:kms"}
    assert resolve(keys, **kms, _context=one) == resolve(keys, **kms, _context=other)
    assert resolve(keys, **kms, _context=none) == resolve(keys, **kms)
    assert resolve(keys, **kms, _context=one) != resolve(keys, **kms)


def test_a_context_that_is_too_long_is_refused(keys):
    import base64

    long = base64.b64encode(b'{"a":"' + b"x" * 8192 + b'"}').decode()
    with pytest.raises(S3Error, match="string-string map"):
        resolve(keys, **{"": "aws:kms"}, _context=long)


def test_no_bucket_key_is_the_truth_and_a_bucket_key_is_not(keys):
    assert resolve(keys, **{"": "AES256"}, _bucket_key_enabled="false") == SEALED
    for value, code in (("true", "NotImplemented"), ("yes", "InvalidArgument")):
        with pytest.raises(S3Error) as caught:
            resolve(keys, **{"": "AES256"}, _bucket_key_enabled=value)
        assert caught.value.code == code
