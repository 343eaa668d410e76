"""The root credentials file."""

import stat
from pathlib import Path

import pytest

from mooring.identity import credentials
from mooring.identity.credentials import CredentialsError


def test_a_fresh_directory_gets_a_key_that_the_next_start_reads(tmp_path: Path) -> None:
    made, fresh = credentials.load_or_create(tmp_path)
    again, fresh_again = credentials.load_or_create(tmp_path)
    assert (fresh, fresh_again) == (True, False)
    assert made == again
    assert len(made.access_key) == 20
    assert made.access_key.startswith("MOOR")
    assert len(made.secret_key) == 40


def test_the_file_is_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    credentials.load_or_create(tmp_path)
    path = tmp_path / "credentials"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_boto_reads_the_file_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    made, _ = credentials.load_or_create(tmp_path)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    found = boto3.Session().get_credentials().get_frozen_credentials()
    assert (found.access_key, found.secret_key) == (made.access_key, made.secret_key)


def test_rights_of_others_are_taken_away(tmp_path: Path) -> None:
    credentials.load_or_create(tmp_path)
    path = tmp_path / "credentials"
    path.chmod(0o644)
    credentials.load_or_create(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_secret_is_in_no_repr(tmp_path: Path) -> None:
    made, _ = credentials.load_or_create(tmp_path)
    assert made.secret_key not in repr(made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret-in-the-open",
        "[default]\naws_access_key_id = A\n",
        "[default]\naws_access_key_id = A B\naws_secret_access_key = s3cr3t\n",
        "[other]\naws_access_key_id = A\naws_secret_access_key = s3cr3t\n",
        "[default]\naws_access_key_id =\naws_secret_access_key = s3cr3t\n",
        "[default]\ns3cr3t\n",
    ],
)
def test_a_file_without_a_usable_key_is_refused_without_quoting_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(CredentialsError) as caught:
        credentials.parse(text, tmp_path / "credentials")
    assert "s3cr3t" not in str(caught.value)
    assert "secret-in-the-open" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_bytes(b"\xff\xfe")
    with pytest.raises(CredentialsError, match="not text"):
        credentials.load_or_create(tmp_path)


def test_a_symlink_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\n")
    (tmp_path / "credentials").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        credentials.load_or_create(tmp_path)
