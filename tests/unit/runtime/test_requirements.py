"""requirements.txt: what may be given to uv and what is refused."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.runtime.driver import DriverError
from mooring.runtime.requirements import MAX_FILE_BYTES, parse_requirements, read_requirements


def test_packages_options_and_comments_are_read():
    parsed = parse_requirements(
        b"""
# a comment
Flask_Login>=0.6   # why
numpy==1.26.4 ; python_version < "3.12"
pandas[excel]~=2.0 \\
    --hash=sha256:0000
six@https://example.com/six-1.0-py3-none-any.whl
git+https://github.com/x/y@main
https://example.com/z.whl
--extra-index-url https://example.com/simple
-f https://example.com/links
--prefer-binary
"""
    )
    assert parsed.names == {"flask-login", "numpy", "pandas", "six"}
    assert parsed.options == ("--extra-index-url https://example.com/simple", "--find-links https://example.com/links")
    text = parsed.files["requirements.txt"].decode()
    assert "--prefer-binary" not in text
    assert 'numpy==1.26.4 ; python_version < "3.12"\n' in text
    assert "#" not in text


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "--editable=git+https://x/y#egg=z",
        ".",
        "./local",
        "../up.whl",
        "/etc/passwd",
        "pkg/dir",
        "local-1.0-py3-none-any.whl",
        "file:///etc/x.whl",
        "git+file:///repo",
        "name @ file:///etc/x.whl",
        "name @ ./x.whl",
        "name@/x.whl",
        "-f /etc",
        "-i file:///etc",
        "--index-url ftp://x",
        "--config-settings x=y",
        "--python-version 3.8",
        "-c https://example.com/constraints.txt",
        "~/x",
        "${HOME}/x",
    ],
)
def test_lines_that_reach_outside_or_change_the_build_are_refused(line):
    with pytest.raises(DriverError) as error:
        parse_requirements(f"six\n{line}\n".encode())
    assert repr(line)[1:-1].split(" ")[0] in error.value.reason
    assert not error.value.retryable


def test_a_file_that_is_not_text_is_refused():
    with pytest.raises(DriverError, match="UTF-8"):
        parse_requirements(b"\xff\xfe")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    try:
        parsed = parse_requirements(text.encode("utf-8", "surrogatepass"))
    except DriverError as error:
        assert not error.retryable
    else:
        assert not any(
            line.startswith(("/", ".", "file:")) for line in parsed.files["requirements.txt"].decode().split("\n")
        )


def test_no_requirements_is_none(tmp_path):
    assert read_requirements(tmp_path) is None


def test_includes_within_the_code_directory_are_followed(tmp_path):
    (tmp_path / "deps").mkdir()
    (tmp_path / "requirements.txt").write_text("-r deps/more.txt\n--constraint=limits.txt\nsix\n")
    (tmp_path / "deps/more.txt").write_text("-r ../third.txt\nidna\n")
    (tmp_path / "third.txt").write_text("-r requirements.txt\nattrs\n")
    (tmp_path / "limits.txt").write_text("six<2\n")
    read = read_requirements(tmp_path)
    assert read is not None
    assert set(read.files) == {"requirements.txt", "deps/more.txt", "third.txt", "limits.txt"}
    assert read.files["deps/more.txt"] == b"-r ../third.txt\nidna\n"
    assert {"six", "idna", "attrs"} <= read.names


def test_the_digest_changes_with_any_file(tmp_path):
    (tmp_path / "requirements.txt").write_text("-c limits.txt\n")
    digests = set()
    for limit in ("six<2", "six<3"):
        (tmp_path / "limits.txt").write_text(limit)
        read = read_requirements(tmp_path)
        assert read is not None
        digests.add(read.digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    "include", ["../secret.txt", "/etc/passwd", "a/../../secret.txt", "link.txt", "missing.txt", "folder"]
)
def test_includes_cannot_leave_the_code_directory(tmp_path, include):
    code = tmp_path / "code"
    (code / "folder").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret\n")
    (code / "link.txt").symlink_to(tmp_path / "secret.txt")
    (code / "requirements.txt").write_text(f"-r {include}\n")
    with pytest.raises(DriverError) as error:
        read_requirements(code)
    assert "secret\n" not in error.value.reason


def test_a_requirements_file_that_is_a_link_outside_is_refused(tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (tmp_path / "elsewhere").write_text("six\n")
    (code / "requirements.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DriverError, match="outside"):
        read_requirements(code)


def test_files_are_bounded_in_size_and_number(tmp_path):
    (tmp_path / "requirements.txt").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(DriverError, match="larger"):
        read_requirements(tmp_path)
    for i in range(40):
        (tmp_path / f"r{i}.txt").write_text(f"-r r{i + 1}.txt\n")
    (tmp_path / "r40.txt").write_text("six\n")
    (tmp_path / "requirements.txt").write_text("-r r0.txt\n")
    with pytest.raises(DriverError, match="more than"):
        read_requirements(tmp_path)


def test_a_fifo_is_no_requirements_file_and_does_not_block(tmp_path):
    (tmp_path / "requirements.txt").write_text("-r pipe\n")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DriverError, match="not a file"):
        read_requirements(tmp_path)
