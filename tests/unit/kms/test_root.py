"""The root key's file, and the keys that follow from it."""

import os
import uuid

import pytest

from mooring.domain.ids import Scope
from mooring.kit.sealing import SealingError
from mooring.kms.root import RootKeys
from mooring.objects import keys as seam
from mooring.objects.keys import KeyRing

SCOPE = Scope(account="123456789012", region="eu-central-1")
PREFIX = "arn:aws:kms:eu-central-1:123456789012:"


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "keys"


def made(directory, scope=SCOPE):
    keys: KeyRing = RootKeys(directory, scope)
    if keys.load() is None:
        keys.create()
    return keys


def test_the_root_key_is_made_once_for_its_owner_alone(directory):
    keys = RootKeys(directory, SCOPE)
    assert keys.load() is None
    key_id = keys.create()
    path = directory / "root"
    assert keys.where == str(path)
    assert (path.stat().st_mode & 0o777, directory.stat().st_mode & 0o777) == (0o600, 0o700)
    assert len(path.read_bytes()) == 32
    assert [entry.name for entry in directory.iterdir()] == ["root"]
    assert RootKeys(directory, SCOPE).load() == key_id
    assert str(uuid.UUID(key_id)) == key_id


def test_a_root_key_that_is_there_is_never_overwritten(directory):
    made(directory)
    before = (directory / "root").read_bytes()
    with pytest.raises(SealingError, match="exists already"):
        RootKeys(directory, SCOPE).create()
    assert (directory / "root").read_bytes() == before


def test_what_a_start_that_was_killed_left_is_in_nobodys_way(directory):
    directory.mkdir()
    (directory / ".root.tmp").write_bytes(b"half")
    made(directory)
    assert [entry.name for entry in directory.iterdir()] == ["root"]


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_file_that_holds_no_key_is_refused_and_not_quoted(directory, content):
    made(directory)
    (directory / "root").write_bytes(content)
    with pytest.raises(SealingError, match="does not hold a key") as caught:
        RootKeys(directory, SCOPE).load()
    assert "xx" not in str(caught.value)


def test_a_link_in_the_keys_place_is_not_followed(directory, tmp_path):
    directory.mkdir()
    (tmp_path / "elsewhere").write_bytes(b"x" * 32)
    (directory / "root").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        RootKeys(directory, SCOPE).load()


def test_rights_of_others_are_taken_away(directory):
    made(directory)
    (directory / "root").chmod(0o644)
    RootKeys(directory, SCOPE).load()
    assert (directory / "root").stat().st_mode & 0o777 == 0o600


def test_every_name_of_the_default_key_is_its_arn_and_nothing_else_is(directory):
    keys = made(directory)
    arn = keys.resolve(seam.DEFAULT_ALIAS)
    assert arn is not None
    assert arn.startswith(PREFIX + "key/")
    key_id = arn.rpartition("/")[2]
    for name in (key_id, arn, "alias/aws/s3", PREFIX + "alias/aws/s3"):
        assert keys.resolve(name) == arn
    foreign = arn.replace("123456789012", "210987654321")
    for name in ("", "root", "key/" + key_id, PREFIX + key_id, "alias/aws/ebs", foreign, key_id[:-1], PREFIX + "key/"):
        assert keys.resolve(name) is None


def test_the_default_key_is_the_same_after_a_restart_and_another_elsewhere(directory, tmp_path):
    arn = made(directory).resolve(seam.DEFAULT_ALIAS)
    assert made(directory).resolve(seam.DEFAULT_ALIAS) == arn
    assert made(tmp_path / "other").resolve(seam.DEFAULT_ALIAS) != arn


def test_the_two_keys_and_their_secrets_are_kept_apart(directory):
    keys = made(directory)
    arn = keys.resolve(seam.DEFAULT_ALIAS)
    secret = os.urandom(32)
    for mine, other in ((arn, seam.S3_MANAGED), (seam.S3_MANAGED, arn)):
        wrapped = keys.wrap(mine, secret, b"for")
        assert keys.unwrap(mine, wrapped, b"for") == secret
        for key, associated in ((other, b"for"), (mine, b"other")):
            with pytest.raises(SealingError):
                keys.unwrap(key, wrapped, associated)
    for unknown in (PREFIX + "key/" + str(uuid.uuid4()), PREFIX + "key/"):
        with pytest.raises(SealingError, match="there is no key"):
            keys.wrap(unknown, secret, b"")


def test_what_was_sealed_opens_after_region_and_account_were_set_anew(directory):
    keys = made(directory)
    arn = keys.resolve(seam.DEFAULT_ALIAS)
    wrapped = keys.wrap(arn, b"secret", b"")
    assert made(directory, Scope(account="0" * 12, region="us-east-1")).unwrap(arn, wrapped, b"") == b"secret"


def test_a_ring_that_was_not_loaded_seals_nothing(directory):
    with pytest.raises(SealingError):
        RootKeys(directory, SCOPE).wrap(seam.S3_MANAGED, b"secret", b"")


def test_nothing_printed_holds_a_key(directory):
    keys = made(directory)
    root = (directory / "root").read_bytes()
    assert root.hex() not in repr(keys)
    assert repr(root) not in repr(keys)
