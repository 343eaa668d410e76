"""One frozen Settings, read once: flag, environment (MOORING_…), file (TOML), default, in that order.

Everything below `app` receives plain values, never this.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set."""

    host: str = "127.0.0.1"
    port: int = 4747
    data_dir: Path = Path(".mooring")
    region: str = "us-east-1"
    account_id: str = "000000000000"
    insecure: bool = False  # allow a bind beyond loopback without TLS
    edge_workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    keep_instances: bool = False
    log_level: str = "info"
    invocation_timeout_s: float = 60.0
    invocation_max_bytes: int = 25 << 20
    capacity_oversize: str = "shrink"  # or refuse
    capacity_memory: str = "share"  # or reserve
    capacity_memory_floor_bytes: int = 512 << 20
    logs_max_bytes: int = 256 << 20
    instance_types_file: Path | None = None
    index_url: str | None = None  # package index for environment builds
    s3_endpoint: str | None = None  # None: the embedded server
