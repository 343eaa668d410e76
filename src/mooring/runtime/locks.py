"""The text of a lock: which Python, which index, which packages at which versions with which hashes. Pure.

Made and read by `runtime.environments`; the part below the head is uv's (`uv pip compile`), which reads it back.

    # python 3.10 x86_64
    # from source                          where a package has no wheel
    --extra-index-url https://…            index lines of requirements.txt
    scikit-learn==1.4.2 --hash=sha256:…
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from mooring.runtime.interpreters import Interpreter
from mooring.runtime.requirements import normalise

_FROM_SOURCE = "# from source"


def compose(interpreter: Interpreter, *, from_source: bool, options: Sequence[str], body: bytes) -> bytes:
    """A whole lock."""
    head = [f"# python {interpreter.minor} {interpreter.machine}", *([_FROM_SOURCE] if from_source else ()), *options]
    return "".join(f"{line}\n" for line in head).encode() + body


def python_of(lock: bytes) -> str | None:
    """The minor version of Python it was made for."""
    match = re.match(rb"# python (\S+) ", lock)
    return match[1].decode() if match else None


def is_from_source(lock: bytes) -> bool:
    """Does installing it run packages' own code?"""
    return _FROM_SOURCE in lock.decode().splitlines()


def is_empty(lock: bytes) -> bool:
    """Does it hold no package?"""
    return not any(line.strip() and not line.startswith(("#", "-", " ")) for line in lock.decode().splitlines())


def versions(lock: bytes) -> Mapping[str, str]:
    """Package → version."""
    found = re.finditer(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.decode(), re.MULTILINE)
    return {normalise(match[1]): match[2] for match in found}


def name_of(pin: str) -> str:
    """The package of a requirement such as "numpy==1.26.4"."""
    return normalise(re.split(r"[=<>!~\[; ]", pin, maxsplit=1)[0])


def differences(pins: Sequence[str], lock: bytes) -> Iterator[str]:
    """A line for each package that is not at the version of its pin."""
    locked = versions(lock)
    for pin in pins:
        name, _, version = pin.partition("==")
        there = locked.get(normalise(name))
        if version and there is not None and there != version:
            yield f"{name} {there} instead of the image's {version}, because of requirements.txt"
