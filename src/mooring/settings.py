"""One frozen Settings, read once: flag, environment (MOORING_…), file (TOML), default, in that order.

`cli` calls `load`; everything below `app` receives plain values, never this. An option has one name in three spellings:

    --capacity-oversize      MOORING_CAPACITY_OVERSIZE      capacity_oversize = "…"  or  [capacity] oversize = "…"
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

ENV_PREFIX = "MOORING_"
ENV_CONFIG = "MOORING_CONFIG"  # the file itself, where --config is not given
_NOT_OPTIONS = frozenset({ENV_CONFIG, "MOORING_LAUNCH_FD", "MOORING_TEST_DROP_MEMBER"})


class SettingError(Exception):
    """A setting cannot be used. The text is one line for the operator and says where the value came from."""


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set."""

    host: str = "127.0.0.1"
    port: int = 4747  # 0: a free one, written to <data>/run/port
    data_dir: Path = Path(".mooring")
    region: str = "us-east-1"
    account_id: str = "000000000000"
    insecure: bool = False  # allow a bind beyond loopback without TLS
    edge_workers: int = field(default_factory=_available_cpus)
    keep_instances: bool = False
    log_level: str = "info"
    invocation_timeout_s: float = 60.0
    invocation_max_bytes: int = 25 << 20
    runtime_egress: str = "auto"  # or none, host: the network of an instance
    capacity_oversize: str = "shrink"  # or refuse
    capacity_memory: str = "share"  # or reserve
    capacity_memory_floor_bytes: int = 512 << 20
    logs_max_bytes: int = 256 << 20
    instance_types_file: Path | None = None
    index_url: str | None = None  # package index for environment builds


def load(*, flags: Mapping[str, object], environment: Mapping[str, str], config_file: Path | None = None) -> Settings:
    """Merge the four sources. `flags` holds options by field name; None means not given.

    Raises SettingError.
    """
    if config_file is None and environment.get(ENV_CONFIG):
        config_file = Path(environment[ENV_CONFIG])
    in_file = _read_file(config_file) if config_file is not None else {}
    values: dict[str, object] = {}
    for option in fields(Settings):
        found = _find(option.name, flags, environment, in_file, config_file)
        if found is not None:
            given, source = found
            values[option.name] = _parse(option.name, given, source)
    return Settings(**values)  # type: ignore[arg-type]  # each value came out of its own parser


def unknown_environment(environment: Mapping[str, str]) -> list[str]:
    """MOORING_ variables that name no option: most likely misspelt, worth a warning."""
    known = {_variable(option.name) for option in fields(Settings)} | _NOT_OPTIONS
    return sorted(name for name in environment if name.startswith(ENV_PREFIX) and name not in known)


def _variable(name: str) -> str:
    return ENV_PREFIX + name.upper()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _find(
    name: str,
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    in_file: Mapping[str, object],
    config_file: Path | None,
) -> tuple[object, str] | None:
    if flags.get(name) is not None:
        return flags[name], _flag(name)
    variable = _variable(name)
    if environment.get(variable, "") != "":
        return environment[variable], variable
    if name in in_file:
        return in_file[name], f"{name} in {config_file}"
    return None


def _read_file(path: Path) -> dict[str, object]:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"the settings file {path} is not valid TOML: {error}") from error
    flat = _flatten(document, path)
    unknown = sorted(set(flat) - {option.name for option in fields(Settings)})
    if unknown:
        raise SettingError(f"the settings file {path} has an unknown option: {', '.join(unknown)}")
    return flat


def _flatten(document: Mapping[str, object], path: Path, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in document.items():
        name = (prefix + key).replace("-", "_")
        inner = _flatten(value, path, name + "_") if isinstance(value, dict) else {name: value}
        twice = sorted(flat.keys() & inner.keys())
        if twice:
            raise SettingError(f"the settings file {path} gives {twice[0]} twice")
        flat.update(inner)
    return flat


# One parser per option: value from anywhere → value of the field. Each raises ValueError with what is wanted. ----------
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _text(pattern: str, wanted: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(wanted)
        return value

    return parse


def _one_of(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError("one of " + ", ".join(words))
        return value.lower()

    return parse


def _integer(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        wanted = f"a whole number from {low} to {high}"
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(wanted)
        if isinstance(value, str) and not re.fullmatch(r"\d{1,18}", value, re.ASCII):
            raise ValueError(wanted)
        if not low <= int(value) <= high:
            raise ValueError(wanted)
        return int(value)

    return parse


def _seconds(low: float, high: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        wanted = f"seconds from {low:g} to {high:g}"
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(wanted)
        try:
            number = float(value)
        except ValueError as error:
            raise ValueError(wanted) from error
        if not low <= number <= high:
            raise ValueError(wanted)
        return number

    return parse


def _bytes(low: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        wanted = f"a size of at least {low} bytes, for instance 536870912 or 512MiB"
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(wanted)
        match = re.fullmatch(r"(\d{1,18})\s*(?:([kmgt])(?:i?b)?|b)?", str(value).lower(), re.ASCII)
        if match is None:
            raise ValueError(wanted)
        number = int(match[1]) * _SIZES[match[2] or ""]
        if not low <= number <= 1 << 60:
            raise ValueError(wanted)
        return number

    return parse


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("1", "true", "yes", "on"):
        return True
    if isinstance(value, str) and value.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("true or false")


def _path(value: object) -> Path:
    if isinstance(value, Path):
        return value.expanduser()
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a path")
    return Path(value).expanduser()


_URL = _text(r"https?://[^\s/]+(/\S*)?", "an http or https URL")

_PARSERS: Mapping[str, Callable[[object], object]] = {
    "host": _text(r"[A-Za-z0-9.:_%-]{1,255}", "an address or host name"),
    "port": _integer(0, 65535),
    "data_dir": _path,
    "region": _text(r"[a-z]{2,4}(-[a-z]{2,12}){1,2}-\d{1,2}", "an AWS region name such as us-east-1"),
    "account_id": _text(r"[0-9]{12}", "12 digits (in TOML between quotes)"),
    "insecure": _switch,
    "edge_workers": _integer(1, 64),
    "keep_instances": _switch,
    "log_level": _one_of("debug", "info", "warning", "error"),
    "invocation_timeout_s": _seconds(0.1, 3600),
    "invocation_max_bytes": _bytes(1024),
    "runtime_egress": _one_of("auto", "none", "host"),
    "capacity_oversize": _one_of("shrink", "refuse"),
    "capacity_memory": _one_of("share", "reserve"),
    "capacity_memory_floor_bytes": _bytes(0),
    "logs_max_bytes": _bytes(1 << 20),
    "instance_types_file": _path,
    "index_url": _URL,
}


def _parse(name: str, given: object, source: str) -> object:
    try:
        return _PARSERS[name](given)
    except ValueError as error:
        shown = "" if name == "index_url" else f", not {given!r}"  # an index URL may hold a password
        raise SettingError(f"{source} must be {error}{shown}") from error
