"""Instances: one sandboxed model container each, members of a pool."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mooring.domain import ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard limits of one instance, after `capacity.oversize` was applied. `notes` are said in log and status, for
    instance 'limited to 2 of 4 vCPU'.
    """

    vcpu: float
    memory_bytes: int
    pids: int = 4096
    tmp_bytes: int = 1 << 30
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """Everything a driver needs to make an instance exist. Serialised into the intent row before start."""

    instance_id: ids.InstanceId
    pool_id: ids.PoolId
    scope: ids.Scope
    owner: str  # e.g. "endpoint/demo", for people
    image: str
    environment: Mapping[str, str]
    model_data_url: str | None
    limits: Limits
    log_group: str
    log_stream: str  # <variant>/<instance-id>
    startup_timeout_s: float = 480.0
    download_timeout_s: float = 1200.0
    execution_role_arn: str | None = None
    resolved_image: str | None = None  # pin: a replacement runs the image its pool began with


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """A started instance, enough to find it again after any crash. Persisted as soon as start returns it.

    `address` is where invocations go: `unix:<path>` a socket the model server listens on; `dial:<path>` the shim's
    socket, which answers with a connection to port 8080 inside (SCM_RIGHTS).
    """

    instance_id: ids.InstanceId
    driver: str
    directory: str
    address: str
    resolved_image: str
    shim_pid: int = 0
    shim_start_ticks: int = 0  # field 22 of /proc/<pid>/stat
    boot_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How an instance ended. `code` < 0: by signal. `last_words`: the tail of its output, bounded."""

    code: int | None
    oom_killed: bool = False
    last_words: str = ""


class Phase(StrEnum):
    """Where an instance stands; the row is written by reconcile alone."""

    INTENT = "intent"  # row exists, start may or may not have happened
    STARTED = "started"  # handle persisted
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """Row of the instances table."""

    spec: InstanceSpec
    phase: Phase
    handle: Handle | None = None
    created_at_s: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
