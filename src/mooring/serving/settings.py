"""The server's environment, read once. Called by __main__; everything below takes the result."""

import os
from dataclasses import dataclass
from typing import Mapping, Optional

from mooring import contract

FAMILIES = ("python", "sklearn")
DEFAULT_MAX_PAYLOAD_MB = 100  # the largest that any AWS caller may send: a batch transform record
MAX_WORKERS = 256
JSON_TYPE = "application/json"
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class BadEnvironment(Exception):
    """A variable has a value that cannot be meant."""


@dataclass(frozen=True)
class Settings:
    """How to serve."""

    family: str
    model_dir: str
    code_dir: str  # where the platform put a SAGEMAKER_SUBMIT_DIRECTORY that is an s3:// address
    program: str
    submit_directory: str
    default_accept: str
    workers: int
    vcpus: int
    max_body_bytes: int
    timeout_s: float  # 0: none
    socket_path: Optional[str]
    tcp_port: Optional[int]


def read(environ: Mapping[str, str]) -> Settings:
    """Settings of an environment. Raises BadEnvironment, naming the variable."""
    family = environ.get(contract.ENV_FAMILY) or "python"
    if family not in FAMILIES:
        raise BadEnvironment("{}={!r}: known are {}".format(contract.ENV_FAMILY, family, ", ".join(FAMILIES)))
    vcpus = _vcpus(environ)
    socket_path = environ.get(contract.ENV_SOCKET) or None
    port = _number(environ, contract.ENV_BIND_TO_PORT, contract.PORT, 0, 65535)
    serves_tcp = environ.get(contract.ENV_SERVE_TCP) == "1" or socket_path is None
    return Settings(
        family=family,
        model_dir=environ.get(contract.ENV_MODEL_DIR) or contract.MODEL_DIR,
        code_dir=environ.get(contract.ENV_CODE_DIR) or contract.CODE_DIR,
        program=environ.get(contract.ENV_PROGRAM) or contract.DEFAULT_PROGRAM,
        submit_directory=environ.get(contract.ENV_SUBMIT_DIRECTORY) or "",
        default_accept=environ.get(contract.ENV_DEFAULT_ACCEPT) or JSON_TYPE,
        workers=_number(environ, contract.ENV_WORKERS, min(vcpus, MAX_WORKERS), 1, MAX_WORKERS),
        vcpus=vcpus,
        max_body_bytes=_number(environ, contract.ENV_MAX_PAYLOAD_MB, DEFAULT_MAX_PAYLOAD_MB, 0, 1 << 20) << 20
        or DEFAULT_MAX_PAYLOAD_MB << 20,  # AWS: 0 means no limit; ours is then the default
        timeout_s=float(_number(environ, contract.ENV_SERVER_TIMEOUT, 0, 0, 1 << 20)),
        socket_path=socket_path,
        tcp_port=port if serves_tcp else None,
    )


def thread_variables(settings: Settings, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Variables that share the instance's vCPUs out among the workers; the user's own values stay."""
    threads = str(max(1, settings.vcpus // settings.workers))
    return {name: threads for name in _THREAD_VARIABLES if name not in environ}


def _vcpus(environ: Mapping[str, str]) -> int:
    text = environ.get(contract.ENV_VCPU)
    if not text:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        return max(1, int(float(text)))
    except (ValueError, OverflowError):
        raise BadEnvironment("{}={!r}: a number of vCPUs is needed".format(contract.ENV_VCPU, text)) from None


def _number(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise BadEnvironment("{}={!r}: a whole number from {} to {} is needed".format(name, text, low, high))
    return value
