"""Starts and stops the S3 process for tests, on a TCP port of its own that outlives a killed process."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from mooring.protocol import sigv4

MAIN = Path(__file__).with_name("objects_main.py")
ACCESS_KEY, SECRET_KEY = "AKIATESTTESTTESTTEST", "secretsecretsecretsecretsecretsecretsecr"


class ObjectsProcess:
    def __init__(self, root: Path, *flags: str) -> None:
        self.root = root
        self._flags = flags
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[str]:
        fd = self._listener.fileno()
        process = subprocess.Popen(
            [sys.executable, str(MAIN), str(fd), str(self.root), *self._flags],
            pass_fds=[fd],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def restart(self) -> None:
        self.process = self._spawn()

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(timeout=40)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._listener.close()

    def client(self, **config: Any) -> Any:
        settings = {
            "s3": {"addressing_style": "path"},
            "retries": {"max_attempts": 1},
            "max_pool_connections": 64,
            **config,
        }
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(**settings),
        )


@contextmanager
def objects_process(root: Path, *flags: str) -> Iterator[ObjectsProcess]:
    process = ObjectsProcess(root, *flags)
    try:
        yield process
    finally:
        process.close()


def signature(method, target, headers, payload, region="us-east-1"):
    path, _, query = target.partition("?")
    return sigv4.sign(
        method=method.encode(),
        path=path.encode(),
        query=query.encode(),
        headers=headers,
        payload_sha256=payload,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        region=region,
        service="s3",
        now_s=time.time(),
    )


def raw_head(method, target, headers, payload, host=b"127.0.0.1"):
    """A signed request head as bytes."""
    own = [(b"host", host), *headers]
    lines = [b"%s: %s" % pair for pair in own + signature(method, target, own, payload)]
    return b"\r\n".join([f"{method} {target} HTTP/1.1".encode(), *lines, b"", b""])
