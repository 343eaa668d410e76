"""The control plane's API over a real store, served by uvicorn on a free port in a thread; boto3 talks to it.

No instances: a stand-in for the reconciler concludes every wish at once (`conclude`), when a test asks for it.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import uvicorn
from botocore.config import Config

from mooring.api.server import build_app
from mooring.api.services import Registration
from mooring.control import dispatch
from mooring.control.context import Context, Existence
from mooring.control.tokens import Tokens
from mooring.domain.call import Handler
from mooring.domain.endpoint import Active, EndpointKey
from mooring.domain.ids import Scope
from mooring.domain.routing import Credential
from mooring.identity import role
from mooring.kit.clock import SystemClock, token_hex
from mooring.protocol.sigv4 import Verifier
from mooring.store.sqlite import SqliteStore

ACCOUNT, REGION = "123456789012", "eu-central-1"
SCOPE = Scope(account=ACCOUNT, region=REGION)
KEY, SECRET = "MOORTESTKEY", "test/secret+key"
ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:"
DATA = "s3://models/demo.tar.gz"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/mooring"


class ApiServer:
    """What a test sees of the running server."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.store = SqliteStore(path / "state.db")
        self.loop = loop
        self.url = ""
        self.woken: list[EndpointKey] = []
        self.extra: dict[str, Handler] = {}

    async def exists(self, uri: str) -> Existence:
        return "yes" if uri == DATA else "no"

    def known(self, instance_type: str) -> bool:
        return instance_type.startswith("ml.m5.")

    def client(self, service: str, *, key: str = KEY, secret: str = SECRET, region: str = REGION) -> Any:
        """A client of plain boto3; no retries, so that every refusal is seen once."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(retries={"max_attempts": 0}, connect_timeout=10, read_timeout=30),
        )

    def run(self, coroutine: Any) -> Any:
        """Run on the server's loop, from the test's thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def conclude(self, name: str) -> None:
        """The reconciler's part: what is wanted is in force; what is to be deleted is gone."""

        async def write() -> None:
            endpoint = await self.store.get_endpoint(SCOPE, name)
            assert endpoint is not None
            if endpoint.deleting:
                await self.store.remove_endpoint(SCOPE, name, generation=endpoint.generation)
                return
            counts = {variant.config.name: variant.desired_count for variant in endpoint.desired.variants}
            active = Active(deployment=endpoint.desired, current_counts=counts)
            await self.store.set_observed(
                SCOPE,
                name,
                generation=endpoint.generation,
                active=active,
                failure_reason=None,
                now_s=SystemClock().now_s(),
            )

        self.run(write())


def _app(server: ApiServer) -> Any:
    context = Context(
        store=server.store,
        clock=SystemClock(),
        artifacts=server,
        instance_types=server,
        wake=server.woken.append,
        tokens=Tokens(os.urandom(32)),
        new_deployment_id=lambda: token_hex(8),
    )
    credential = Credential(access_key=KEY, secret_key=SECRET, account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:root")
    verifier = Verifier([credential], REGION)
    return build_app(
        registrations=[
            Registration("sagemaker", {**dispatch.handlers(context), **server.extra}),
            Registration("sts", role.sts_handlers()),
            Registration("iam", role.iam_handlers(created_at_s=1.0)),
        ],
        verifier=lambda: verifier,
        clock=SystemClock(),
        region=REGION,
        drop_member=os.environ.get("MOORING_TEST_DROP_MEMBER"),
    )


@contextmanager
def running(path: Path, extra: dict[str, Handler] | None = None) -> Iterator[ApiServer]:
    """A server until the block ends; `extra` replaces handlers."""
    loop = asyncio.new_event_loop()
    server = ApiServer(path, loop)
    server.extra = extra or {}
    try:
        app = _app(server)
    except BaseException:
        loop.close()
        raise
    uvicorn_server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
    listener = socket.create_server(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ready = threading.Event()

    async def serve() -> None:
        await server.store.start()
        loop.call_soon(ready.set)
        await uvicorn_server.serve(sockets=[listener])
        await server.store.aclose()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run, name="api-server")
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        uvicorn_server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive()
