"""The S3 process alone, for tests: `objects_main.py <listening fd> <directory>` says ready on stdout when it serves."""

import asyncio
import contextlib
import logging
import resource
import signal
import sys
from pathlib import Path

import uvloop

from mooring.domain.ids import Scope
from mooring.domain.routing import Credential
from mooring.kms.root import RootKeys
from mooring.objects import serve
from mooring.objects.credentials import CredentialSource

ACCOUNT, REGION = "000000000000", "us-east-1"
ACCESS_KEY, SECRET_KEY = "AKIATESTTESTTESTTEST", "secretsecretsecretsecretsecretsecretsecr"


async def main(fd: int, root: Path, *, with_credentials: bool) -> None:
    credentials = CredentialSource(REGION)
    if with_credentials:
        arn = f"arn:aws:iam::{ACCOUNT}:root"
        credentials.replace([Credential(access_key=ACCESS_KEY, secret_key=SECRET_KEY, account=ACCOUNT, arn=arn)])
    serving = asyncio.ensure_future(
        serve.run(
            fd,
            root,
            region=REGION,
            account=ACCOUNT,
            credentials=credentials,
            keys=RootKeys(root.with_name("keys"), Scope(account=ACCOUNT, region=REGION)),
            ready=lambda: print("ready", flush=True),
        )
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING if "--log-warnings" in sys.argv else logging.CRITICAL)
    if "--small-files" in sys.argv:  # a disk that is full after 1 MiB
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2]), with_credentials="--no-credentials" not in sys.argv))
