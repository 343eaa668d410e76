"""A server of the demo's own: free port, fresh data directory, stopped at the end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

STOP_TIMEOUT_S = 45.0
START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server, and clients for it made as any user makes them."""

    url: str
    data_dir: Path
    start_s: float

    def client(self, service: str) -> Any:
        """A plain boto3 client; only the environment points it here."""
        return boto3.client(service, config=Config(retries={"mode": "standard", "max_attempts": 2}))


@contextmanager
def running(data_dir: Path) -> Iterator[Server]:
    """Start `mooring serve` on a fresh `data_dir`, point this process's environment at it, stop it afterwards."""
    keep = data_dir / "cache"  # environments stay warm between runs
    if data_dir.exists():
        for entry in data_dir.iterdir():
            if entry != keep:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = (data_dir / "server.log").open("wb")
    began = time.monotonic()
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "mooring"), "serve", "--port", "0", "--data-dir", str(data_dir)],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        url = _wait_healthy(process, data_dir, began)
        os.environ["AWS_ENDPOINT_URL"] = url
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(data_dir / "credentials")
        os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            os.environ.pop(name, None)
        yield Server(url=url, data_dir=data_dir, start_s=time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        log.close()
    if code != 0:
        raise SystemExit(f"the server ended with status {code}: see {data_dir / 'server.log'}")


def _wait_healthy(process: subprocess.Popen[bytes], data_dir: Path, began: float) -> str:
    import urllib.error
    import urllib.request

    port_file = data_dir / "run" / "port"
    while time.monotonic() - began < START_TIMEOUT_S:
        if process.poll() is not None:
            break
        if port_file.exists() and (port := port_file.read_text().strip()):
            url = f"http://127.0.0.1:{port}"
            try:
                with urllib.request.urlopen(f"{url}/_mooring/health", timeout=2):
                    return url
            except (urllib.error.URLError, OSError):
                pass
        time.sleep(0.02)
    print((data_dir / "server.log").read_text()[-4000:], file=sys.stderr)
    raise SystemExit("the server did not start")
