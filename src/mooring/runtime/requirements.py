"""A user's requirements.txt as it may be given to uv: read with the files it includes, and checked.

Called by the driver (`read_requirements` on a model's code directory) and by `runtime.environments`. Only lines that could
reach outside the code directory or change how the environment is built are looked at; what a line means is uv's business.
Refused, each with the line: files outside the directory, editable installs and local paths (a directory is not content we
could cache by), file:// URLs, unknown options.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from mooring.runtime.driver import DriverError

MAIN = "requirements.txt"
MAX_FILE_BYTES = 1 << 20
MAX_FILES = 32

_INCLUDES = {"-r": "-r", "--requirement": "-r", "-c": "-c", "--constraint": "-c"}
_VALUE_OPTIONS = {
    "-i": "--index-url",
    "--index-url": "--index-url",
    "--extra-index-url": "--extra-index-url",
    "-f": "--find-links",
    "--find-links": "--find-links",
    "--no-binary": "--no-binary",
    "--only-binary": "--only-binary",
}
_FLAGS = {"--no-index"}
# pip's options that say nothing to a resolver that always has them so
_NEEDLESS = {"--prefer-binary", "--require-hashes"}
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_URL = re.compile(r"(?:[a-z]+\+)?[a-z][a-z0-9]*://", re.IGNORECASE)
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_Read = Callable[[str, str], bytes]  # (name, file that asks for it) → content


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """Checked requirement files by their path relative to the code directory; `requirements.txt` is where uv begins."""

    files: Mapping[str, bytes]
    names: frozenset[str] = frozenset()  # packages asked for by name, normalised
    options: tuple[str, ...] = ()  # index lines, which installing needs as well as resolving

    @property
    def digest(self) -> str:
        """Identifies the content."""
        total = sha256()
        for name in sorted(self.files):
            total.update(f"{name}\0{len(self.files[name])}\0".encode())
            total.update(self.files[name])
        return total.hexdigest()


def read_requirements(code_dir: Path) -> Requirements | None:
    """The code directory's requirements.txt with its includes; None without one. Raises DriverError. Blocking."""
    if not (code_dir / MAIN).is_file():
        return None
    root = Path(os.path.realpath(code_dir))
    return _gather(_read_inside(root, MAIN, "the model"), lambda name, asked_by: _read_inside(root, name, asked_by))


def parse_requirements(text: bytes) -> Requirements:
    """A requirements.txt that stands alone; an include is refused. Raises DriverError."""

    def refuse(name: str, asked_by: str) -> bytes:
        raise _refused(asked_by, name, "there is no such file")

    return _gather(text, refuse)


def normalise(name: str) -> str:
    """A package's name as packages are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _gather(main: bytes, read: _Read) -> Requirements:
    files: dict[str, bytes] = {}
    names: set[str] = set()
    options: dict[str, None] = {}
    pending = [(MAIN, main)]
    while pending:
        path, content = pending.pop()
        if len(files) >= MAX_FILES:
            raise DriverError(f"{MAIN} includes more than {MAX_FILES} files.", retryable=False)
        included, clean = _check(path, content, names, options)
        files[path] = clean
        for name in included:
            if name not in files and all(name != other for other, _ in pending):
                pending.append((name, read(name, path)))
    return Requirements(files=files, names=frozenset(names), options=tuple(options))


def _check(path: str, content: bytes, names: set[str], options: dict[str, None]) -> tuple[list[str], bytes]:
    """(files included, the file as uv gets it); adds to `names` and `options`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DriverError(f"{path} is not UTF-8 text: {error}.", retryable=False) from error
    included: list[str] = []
    kept: list[str] = []
    for line in _logical_lines(text):
        if line.startswith("-"):
            option = _check_option(path, line, included)
            if option:
                kept.append(option)
                if option.startswith("--"):
                    options[option] = None
        else:
            _check_package(path, line, names)
            kept.append(line)
    return included, "".join(f"{line}\n" for line in kept).encode()


def _logical_lines(text: str) -> list[str]:
    joined = re.sub(r"\\\r?\n", " ", text)
    stripped = (_COMMENT.sub("", line).strip() for line in joined.splitlines())
    return [line for line in stripped if line]


def _check_option(path: str, line: str, included: list[str]) -> str | None:
    head, value = _split_option(line)
    if head in _INCLUDES:
        name = _inside(path, line, value)
        included.append(name)
        # uv reads an include relative to the file that has it
        return f"{_INCLUDES[head]} {os.path.relpath(name, PurePosixPath(path).parent)}"
    if head in _VALUE_OPTIONS:
        if head in {"-i", "-f", "--index-url", "--extra-index-url", "--find-links"} and not re.match(
            "https?://", value
        ):
            raise _refused(path, line, "only http(s) addresses are allowed")
        return f"{_VALUE_OPTIONS[head]} {value}"
    if head in _FLAGS:
        return head
    if head in _NEEDLESS:
        return None
    if head in {"-e", "--editable"}:
        raise _refused(path, line, "editable installs are not supported; put the package beside the handler in code/")
    raise _refused(path, line, "this option is not supported")


def _split_option(line: str) -> tuple[str, str]:
    match = re.match(r"(--[A-Za-z-]+)(?:\s*=\s*|\s+|$)(.*)|(-[A-Za-z])\s*(.*)", line)
    if match is None:
        return line, ""
    if match[1]:
        return match[1], match[2].strip()
    return match[3], match[4].strip()


def _check_package(path: str, line: str, names: set[str]) -> None:
    name = _NAME.match(line)
    rest = line[name.end() :].lstrip() if name else ""
    if name is None or (rest and rest[0] not in "=<>!~[;@,( -"):
        if _URL.match(line) and not line.lower().startswith("file:") and "+file:" not in line.lower():
            return  # git+https://…, https://…/x.whl
        raise _refused(path, line, "local paths are not supported; only package names and http(s) or git addresses are")
    address = rest.partition("@")[2].strip() if "@" in rest.partition(";")[0] else ""
    if address and (not _URL.match(address) or re.match(r"(?:[a-z]+\+)?file:", address, re.IGNORECASE)):
        raise _refused(path, line, "only http(s) or git addresses are supported")
    if re.search(r"[\\/]|\.(?:whl|zip|tar\.gz|tgz)$", line.partition(";")[0]) and not address:
        raise _refused(path, line, "local paths are not supported; only package names and http(s) or git addresses are")
    names.add(normalise(name[0]))


def _inside(path: str, line: str, value: str) -> str:
    if not value or "\0" in value or _URL.match(value):
        raise _refused(path, line, "only files beside it can be included")
    name = os.path.normpath(PurePosixPath(path).parent / value)
    if os.path.isabs(value) or name == ".." or name.startswith("../"):
        raise _refused(path, line, "the file lies outside the model's code directory")
    return name


def _read_inside(root: Path, name: str, asked_by: str) -> bytes:
    path = root / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(root):
        raise _refused(asked_by, name, "the file lies outside the model's code directory")
    try:
        with open(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _refused(asked_by, name, "this is not a file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _refused(asked_by, name, f"it cannot be read ({error.strerror})") from error
    if len(content) > MAX_FILE_BYTES:
        raise _refused(asked_by, name, f"it is larger than {MAX_FILE_BYTES} bytes")
    return content


def _refused(path: str, line: str, why: str) -> DriverError:
    return DriverError(f"{path}: {line[:200]!r}: {why}.", retryable=False)
