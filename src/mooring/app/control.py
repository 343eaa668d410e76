"""The control process: API, reconcile loops, store, logs, metrics.

start   store ─▶ S3 answers ─▶ driver ─▶ reconciler takes over what runs, publishes routes ─▶ API ─▶ serving: health 200
stop    instances (unless they are kept) ─▶ reconciler ─▶ API ─▶ driver, store

Edges hold requests back until they have routes, so nothing is answered from half a state.
"""

import asyncio
import hmac
import importlib.metadata
import logging
import os
import signal
import socket
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass

import uvloop
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from mooring.api.server import build_app
from mooring.api.services import Registration
from mooring.app import root, storage
from mooring.app.admin import SOCKET_NAME, StatusSocket
from mooring.app.launch import ADDRESS_NAME, Launch
from mooring.control import dispatch
from mooring.control.context import Context
from mooring.control.tokens import Tokens
from mooring.domain.capacity import CapacityRules, InstanceType, TableError
from mooring.domain.endpoint import EndpointKey
from mooring.domain.routing import Credential
from mooring.identity import role
from mooring.identity.credentials import FILE_NAME as CREDENTIALS_FILE
from mooring.identity.credentials import CredentialsError
from mooring.invoke import client as invoke_client
from mooring.kit.clock import SystemClock, token_hex
from mooring.kit.counters import Counters
from mooring.kit.tasks import Group
from mooring.net import asgi
from mooring.protocol.sigv4 import Verifier
from mooring.reconcile.loop import Temporary
from mooring.reconcile.reconciler import Reconciler
from mooring.runtime import build_sandbox, instance_types, machine
from mooring.runtime.environments import EnvironmentStore
from mooring.runtime.network import Server
from mooring.runtime.process import ProcessDriver, ProcessSettings
from mooring.settings import Settings
from mooring.store.base import Store, StoreError
from mooring.store.sqlite import SqliteStore
from mooring.supervisor.children import EXIT_HOPELESS
from mooring.telemetry import log_operations, metrics, status
from mooring.telemetry.log_store import LogStore
from mooring.telemetry.platform_log import PlatformLog
from mooring.telemetry.status import Report, Slots

logger = logging.getLogger(__name__)

STOP_INSTANCES_S = 10.0  # under the supervisor's CONTROL_GRACE_S
RETAIN_EVERY_S = 30.0
DRAIN_S = 3
PROBE_TIMEOUT_S = 2.0  # hosting.md section 1.2
OK = 200
EXIT_BROKEN = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What the process is made of, once built."""

    launch: Launch
    clock: SystemClock
    counters: Counters
    store: Store
    driver: ProcessDriver
    reconciler: Reconciler
    logs: LogStore
    types: dict[str, InstanceType]
    objects: storage.Objects
    credential: Credential

    @property
    def settings(self) -> Settings:
        return self.launch.settings


class _Types:
    """control.context.InstanceTypes over the table."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def known(self, instance_type: str) -> bool:
        return instance_type in self._names


def run(launch: Launch) -> int:
    """Until SIGTERM; returns the exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(launch))


async def _run(launch: Launch) -> int:
    stopping = asyncio.Event()
    broken: list[str] = []

    def on_fatal(name: str, error: BaseException) -> None:  # logged by the group that owned it
        broken.append(name)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        tasks = Group("control", on_failure=on_fatal)
        try:
            parts = await _build(launch, stack, on_fatal)
        except (TableError, CredentialsError) as error:
            logger.critical("%s", error)
            return EXIT_HOPELESS
        except StoreError as error:
            logger.critical("%s", error)
            return EXIT_BROKEN if error.retryable else EXIT_HOPELESS
        stack.push_async_callback(tasks.aclose)
        await _start(parts, stack, tasks)
        await stopping.wait()
        if not broken and not launch.settings.keep_instances:
            await _stop_instances(parts)
    return EXIT_BROKEN if broken else 0


# building -------------------------------------------------------------------------------------------------------------
async def _build(launch: Launch, stack: AsyncExitStack, on_fatal: Callable[[str, BaseException], None]) -> _Parts:
    settings = launch.settings
    clock = SystemClock()
    counters = Counters(launch.counters_fd, launch.layout)
    store = SqliteStore(settings.data_dir / "state.db")
    await store.start()
    stack.push_async_callback(store.aclose)
    credential = await asyncio.to_thread(root.credential, settings)
    objects = storage.Objects(
        url=launch.url, socket_path=launch.run_dir / "s3.sock", region=settings.region, credential=credential
    )
    stack.push_async_callback(objects.aclose)
    sandboxed = await asyncio.to_thread(build_sandbox.find, os.environ)
    if sandboxed is None:
        logger.warning("PACKAGES ARE BUILT WITHOUT A SANDBOX: bubblewrap is missing or may not make one here")
    environments = EnvironmentStore(
        settings.data_dir / "cache" / "envs", uv=_uv(), index_url=settings.index_url, wrap=sandboxed, clock=clock
    )
    stack.push_async_callback(environments.aclose)
    driver = await ProcessDriver.open(
        data_dir=settings.data_dir,
        node_id=launch.data_id,
        objects=objects.store,
        environments=environments,
        clock=clock,
        settings=ProcessSettings(egress=settings.runtime_egress),  # type: ignore[arg-type]  # checked by settings
        server=Server(url=launch.url, port=launch.port, address_file=str(launch.run_dir / ADDRESS_NAME)),
    )
    stack.push_async_callback(driver.aclose)
    for note in driver.capabilities.notes:
        logger.warning("%s", note)
    try:
        types = await asyncio.to_thread(instance_types.load, settings.instance_types_file)
    except OSError as error:
        raise TableError(
            f"cannot read the instance types in {settings.instance_types_file}: {error.strerror}"
        ) from error
    log_root = settings.data_dir / "logs"
    platform_log = PlatformLog(log_root, clock)
    routes = socket.socket(fileno=launch.routes_fd)
    routes.setblocking(False)
    reconciler = Reconciler(
        store=store,
        driver=driver,
        probe=_probe,
        counters=counters,
        listener=routes,
        clock=clock,
        inventory=machine.read_inventory,
        rules=CapacityRules(
            oversize=settings.capacity_oversize,  # type: ignore[arg-type]  # checked by settings
            memory=settings.capacity_memory,  # type: ignore[arg-type]
            memory_floor_bytes=settings.capacity_memory_floor_bytes,
        ),
        types=types,
        log=platform_log.write,
        slots_file=launch.run_dir / "slots.json",
        supervisor_pid=launch.supervisor_pid,
        on_fatal=on_fatal,
    )
    stack.push_async_callback(reconciler.aclose)
    return _Parts(
        launch=launch,
        clock=clock,
        counters=counters,
        store=store,
        driver=driver,
        reconciler=reconciler,
        logs=LogStore(log_root),
        types=types,
        objects=objects,
        credential=credential,
    )


async def _probe(address: str) -> bool:
    """Whether an instance answers 200 on /ping, within the time that the reconciler gives it."""
    return await invoke_client.ping(address, timeout_s=PROBE_TIMEOUT_S) == OK


def _uv() -> str:
    """The uv that was installed with this package."""
    from uv import find_uv_bin

    return str(find_uv_bin())


async def _start(parts: _Parts, stack: AsyncExitStack, tasks: Group) -> None:
    launch, reconciler = parts.launch, parts.reconciler
    reconciler.set_credentials([parts.credential])
    storage_ready = await parts.objects.wait_ready(timeout_s=storage.READY_TIMEOUT_S)
    if not storage_ready:
        logger.error("the S3 process does not answer yet; routes are published, health stays 503 until it does")
    # Asked for before the first table goes out: a control process that was replaced must not make health flicker.
    serving = tasks.start("serving", _serve_when_ready(parts, storage_ready=storage_ready))
    await asyncio.sleep(0)
    await reconciler.start()
    # Only now: what a call wishes must find the loop running. Until then connections wait in the socket's queue.
    listener = stack.enter_context(socket.socket(fileno=launch.listen_fd))
    await stack.enter_async_context(asgi.serving(_app(parts), listener, tasks, drain_s=DRAIN_S))
    admin = StatusSocket(launch.run_dir / SOCKET_NAME, lambda: _report(parts))
    await admin.start()
    stack.push_async_callback(admin.aclose)
    tasks.start("retention", _retain(parts))
    del serving  # its group owns it


async def _serve_when_ready(parts: _Parts, *, storage_ready: bool) -> None:
    while not storage_ready:
        storage_ready = await parts.objects.wait_ready(timeout_s=storage.READY_TIMEOUT_S)
    while True:
        try:
            await parts.reconciler.set_serving(True)
            break
        except Temporary as error:
            logger.warning("not ready: %s", error)
    os.write(parts.launch.ready_fd, b"r")


async def _stop_instances(parts: _Parts) -> None:
    if not await parts.reconciler.stop_all_instances(timeout_s=STOP_INSTANCES_S):
        logger.error("some instances did not end in time; the next start removes them")


async def _retain(parts: _Parts) -> None:
    """Keep the log store within its size."""
    while True:
        await asyncio.sleep(RETAIN_EVERY_S)
        records = await parts.store.all_instances()
        live = {(record.spec.log_group, record.spec.log_stream) for record in records}
        freed = await asyncio.to_thread(parts.logs.retain, max_bytes=parts.settings.logs_max_bytes, live=live)
        if freed:
            logger.info("log store: removed the oldest %d bytes", freed)


# the API --------------------------------------------------------------------------------------------------------------
def _app(parts: _Parts) -> asgi.App:
    settings = parts.settings
    context = Context(
        store=parts.store,
        clock=parts.clock,
        artifacts=parts.objects,
        instance_types=_Types(parts.types),
        wake=parts.reconciler.wake,
        tokens=Tokens(hmac.digest(parts.credential.secret_key.encode(), b"pagination tokens", "sha256")),
        new_deployment_id=lambda: token_hex(8),
    )
    made_s = (settings.data_dir / CREDENTIALS_FILE).stat().st_mtime
    verifier = Verifier((parts.credential,), settings.region)
    return build_app(
        registrations=[
            Registration("sagemaker", dispatch.handlers(context)),
            Registration("logs", log_operations.handlers(parts.logs)),
            Registration("sts", role.sts_handlers()),
            Registration("iam", role.iam_handlers(created_at_s=made_s)),
        ],
        verifier=lambda: verifier,
        clock=parts.clock,
        region=settings.region,
        routes=_own_routes(parts),
        drop_member=parts.launch.drop_member,
    )


def _own_routes(parts: _Parts) -> list[BaseRoute]:
    async def show_metrics(_: Request) -> Response:
        text = metrics.render(await _report(parts), parts.counters)
        return PlainTextResponse(text, media_type=metrics.CONTENT_TYPE)

    async def nothing_here(request: Request) -> Response:
        console = request.url.path.startswith("/_mooring/console")
        text = "the console comes in a later version\n" if console else "nothing is here\n"
        return PlainTextResponse(text, status_code=404)

    return [
        Route("/_mooring/metrics", show_metrics, methods=["GET"]),
        Route("/_mooring/{rest:path}", nothing_here, methods=["GET"]),
    ]


async def _report(parts: _Parts) -> Report:
    endpoints = await parts.store.all_endpoints()
    instances = await parts.store.all_instances()
    seen = parts.reconciler.status()
    variants = {
        (EndpointKey(scope=endpoint.scope, name=endpoint.name), variant.name): variant.slot  # type: ignore[arg-type]
        for endpoint in seen.endpoints
        for variant in endpoint.variants
    }
    slots = {str(view.instance_id): view.slot for view in seen.instances}
    settings = parts.settings
    return Report(
        version=importlib.metadata.version("mooring"),
        url=parts.launch.url,
        account=settings.account_id,
        region=settings.region,
        endpoints=status.observe(
            endpoints,
            instances,
            parts.counters,
            Slots(variant=lambda key, name: variants.get((key, name)), instance=slots.get),
        ),
        notes=list(parts.driver.capabilities.notes),
        workers=sum(1 for worker in range(parts.launch.layout.workers) if parts.counters.pid(worker)),
    )
