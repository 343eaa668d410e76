"""A world for the reconciler to act on: virtual time, a store in memory, instances that are records, an edge that acks.

Instances and rows outlive a reconciler, as they outlive a killed process; `Freeze` stops a reconciler at its n-th call out.
"""

import asyncio
import os
import selectors
import socket
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from mooring.domain import capacity
from mooring.domain.channel import Ack, Hello
from mooring.domain.endpoint import Active, Change, Deployment, Endpoint, EndpointStatus, Variant, status_of
from mooring.domain.endpoint_config import ProductionVariant
from mooring.domain.ids import DeploymentId, EndpointConfigName, EndpointName, InstanceId, ModelName, Scope, VariantName
from mooring.domain.instance import Exit, Handle, InstanceRecord, InstanceSpec, Phase
from mooring.domain.model import Container, Model
from mooring.domain.routing import EndpointRoute, RouteTable
from mooring.kit import counters, frames
from mooring.reconcile.lives import Timings
from mooring.reconcile.reconciler import Reconciler
from mooring.runtime.driver import Capabilities, DriverError, Prepared, Progress
from mooring.store.base import Conflict, NotFound, Store, StoreError

T = TypeVar("T")
SCOPE = Scope(account="000000000000", region="us-east-1")
GIB = 1 << 30


# virtual time --------------------------------------------------------------------------------------------------------
class _Selector(selectors.DefaultSelector):
    """Never waits: when nothing is ready the clock jumps to the next timer."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits and no timer is set: the test would hang")
        if not ready and timeout:
            self.loop.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now_s = 1000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now_s


def run_virtual(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


class LoopClock:
    def now_s(self) -> float:
        return 1.7e9 + asyncio.get_running_loop().time()

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


# freezing ------------------------------------------------------------------------------------------------------------
class Freeze:
    """Lets `calls` outside effects happen, then stops the world: the next call never returns, with its effect or without."""

    def __init__(self, at: int = -1, *, after_effect: bool = False) -> None:
        self.at = at
        self.after_effect = after_effect
        self.calls = 0
        self.frozen = asyncio.Event()

    async def around(self, effect: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        if self.frozen.is_set():
            await asyncio.Event().wait()
        self.calls += 1
        if self.calls == self.at and not self.after_effect:
            self.frozen.set()
            await asyncio.Event().wait()
        result = effect()
        if self.calls == self.at:
            self.frozen.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return result


# store ---------------------------------------------------------------------------------------------------------------
class MemoryStore:
    """The methods of store.base.Store that reconcile calls, and the desired ones that tests call."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.instances: dict[str, InstanceRecord] = {}
        self.freeze = Freeze()
        self.fail: Callable[[str], None] = lambda _: None
        self.history: list[tuple[str, EndpointStatus, Active | None, str | None]] = []

    async def _do(self, name: str, effect: Callable[[], T]) -> T:
        def checked() -> T:
            self.fail(name)
            return effect()

        return await self.freeze.around(checked)

    async def all_endpoints(self) -> Sequence[Endpoint]:
        return await self._do("all_endpoints", lambda: list(self.endpoints.values()))

    async def get_endpoint(self, scope: Scope, name: str) -> Endpoint | None:
        return await self._do("get_endpoint", lambda: self.endpoints.get(name))

    def _row(self, name: str) -> Endpoint:
        if name not in self.endpoints:
            raise NotFound(name)
        return self.endpoints[name]

    def _note(self, endpoint: Endpoint) -> None:
        self.endpoints[endpoint.name] = endpoint
        self.history.append((endpoint.name, status_of(endpoint), endpoint.active, endpoint.failure_reason))

    async def set_observed(
        self,
        scope: Scope,
        name: str,
        *,
        generation: int,
        active: Active | None,
        failure_reason: str | None,
        now_s: float | None,
    ) -> None:
        def effect() -> None:
            row = self._row(name)
            if row.generation != generation:
                raise Conflict(name)
            self._note(replace(row, observed_generation=generation, active=active, failure_reason=failure_reason))

        await self._do("set_observed", effect)

    async def set_active(self, scope: Scope, name: str, *, active: Active) -> None:
        await self._do("set_active", lambda: self._note(replace(self._row(name), active=active)))

    async def remove_endpoint(self, scope: Scope, name: str, *, generation: int) -> None:
        def effect() -> None:
            row = self._row(name)
            if row.generation != generation or not row.deleting:
                raise Conflict(name)
            del self.endpoints[name]

        await self._do("remove_endpoint", effect)

    async def put_instance_intent(self, record: InstanceRecord) -> None:
        def effect() -> None:
            assert record.spec.instance_id not in self.instances
            self.instances[record.spec.instance_id] = record

        await self._do("put_instance_intent", effect)

    async def set_instance(self, instance_id: InstanceId, *, phase: Phase, handle: Handle | None) -> None:
        def effect() -> None:
            if instance_id not in self.instances:
                raise NotFound(instance_id)
            self.instances[instance_id] = replace(self.instances[instance_id], phase=phase, handle=handle)

        await self._do("set_instance", effect)

    async def remove_instance(self, instance_id: InstanceId) -> None:
        await self._do("remove_instance", lambda: self.instances.pop(instance_id, None))

    async def all_instances(self) -> Sequence[InstanceRecord]:
        return await self._do("all_instances", lambda: list(self.instances.values()))

    # desired: at once, as from another connection
    def create(self, name: str, deployment: Deployment) -> None:
        assert name not in self.endpoints
        self.endpoints[name] = Endpoint(
            scope=SCOPE,
            name=EndpointName(name),
            created_at_s=1.0,
            modified_at_s=1.0,
            generation=1,
            change=Change.CREATE,
            desired=deployment,
        )

    def update(self, name: str, deployment: Deployment, change: Change = Change.UPDATE) -> None:
        row = self.endpoints[name]
        self.endpoints[name] = replace(
            row, generation=row.generation + 1, change=change, desired=deployment, failure_reason=None
        )

    def delete(self, name: str) -> None:
        row = self.endpoints[name]
        self.endpoints[name] = replace(row, generation=row.generation + 1, deleting=True)


def deployment(
    deployment_id: str, *variants: tuple[str, int, float], model: str = "good", instance_type: str = "ml.m5.large"
) -> Deployment:
    """Variants as (name, count, weight)."""
    return Deployment(
        id=DeploymentId(deployment_id),
        config_name=EndpointConfigName(f"config-{deployment_id}"),
        variants=tuple(
            Variant(
                config=ProductionVariant(
                    name=VariantName(name),
                    model_name=ModelName(model),
                    instance_type=instance_type,
                    instance_count=count,
                    weight=weight,
                    startup_timeout_s=60,
                ),
                model=Model(
                    scope=SCOPE,
                    name=ModelName(model),
                    created_at_s=1.0,
                    containers=(Container(image=model, model_data_url="s3://b/m.tar.gz"),),
                ),
                desired_weight=weight,
                desired_count=count,
            )
            for name, count, weight in (variants or (("a", 1, 1.0),))
        ),
    )


# instances -----------------------------------------------------------------------------------------------------------
@dataclass
class FakeInstance:
    spec: InstanceSpec
    handle: Handle
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit: Exit | None = None
    pings: int = 0
    answers: bool = True  # to pings

    def die(self, code: int | None = 1, *, oom_killed: bool = False, last_words: str = "") -> None:
        self.exit = Exit(code=code, oom_killed=oom_killed, last_words=last_words)
        self.ended.set()


class FakeDriver:
    """Instances by id; what an image's instances do is said by `images`: good, slow, deaf, dies, unloadable, missing."""

    capabilities = Capabilities(sandbox=False, network_namespace=False, hard_limits=False)

    def __init__(self) -> None:
        self.instances: dict[str, FakeInstance] = {}
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.most_alive = 0
        self.freeze = Freeze()
        self.trouble: dict[str, list[DriverError]] = {}  # by method: raised by the next calls

    def _raise_trouble(self, method: str) -> None:
        if self.trouble.get(method):
            raise self.trouble[method].pop(0)

    def alive(self) -> list[FakeInstance]:
        return [instance for instance in self.instances.values() if not instance.ended.is_set()]

    async def prepare(self, spec: InstanceSpec, progress: Progress) -> Prepared:
        def effect() -> Prepared:
            self._raise_trouble("prepare")
            if spec.image == "missing":
                raise DriverError("Failed to download model data.", retryable=False)
            progress("prepared")
            return Prepared(resolved_image=f"{spec.image}@sha256:1", resolved_at_s=5.0, token=spec.instance_id)

        return await self.freeze.around(effect)

    async def start(self, spec: InstanceSpec, prepared: Prepared) -> Handle:
        def effect() -> Handle:
            self._raise_trouble("start")
            assert prepared.token == spec.instance_id
            assert spec.instance_id not in self.instances, "started twice"
            handle = Handle(
                instance_id=spec.instance_id,
                driver="fake",
                directory="/",
                address=f"unix:{spec.instance_id}",
                resolved_image=prepared.resolved_image,
            )
            instance = FakeInstance(spec=spec, handle=handle)
            self.instances[spec.instance_id] = instance
            self.started.append(spec.instance_id)
            self.most_alive = max(self.most_alive, len(self.alive()))
            if spec.image == "dies":
                instance.die(3, last_words="Traceback\nValueError: no")
            if spec.image == "unloadable":
                instance.die(78, last_words="ModuleNotFoundError: No module named 'nothing'")
            return handle

        return await self.freeze.around(effect)

    async def recover(self, spec: InstanceSpec, handle: Handle | None) -> Handle | None:
        def effect() -> Handle | None:
            found = self.instances.get(spec.instance_id)
            return None if found is None or found.ended.is_set() else found.handle

        return await self.freeze.around(effect)

    async def wait(self, handle: Handle) -> Exit:
        instance = self.instances[handle.instance_id]
        await instance.ended.wait()
        assert instance.exit is not None
        return instance.exit

    async def stop(self, handle: Handle, *, grace_s: float) -> Exit:
        def effect() -> Exit:
            self._raise_trouble("stop")
            instance = self.instances.get(handle.instance_id)
            if instance is None:
                return Exit(code=None)
            if not instance.ended.is_set():
                self.stopped.append(handle.instance_id)
                instance.die(-15 if instance.spec.image != "stubborn" else -9)
            assert instance.exit is not None
            return instance.exit

        found = self.instances.get(handle.instance_id)
        if found is not None and found.spec.image == "stubborn" and not found.ended.is_set():
            await asyncio.sleep(grace_s)
        return await self.freeze.around(effect)

    async def remove(self, instance_id: InstanceId) -> None:
        def effect() -> None:
            self._raise_trouble("remove")
            instance = self.instances.pop(instance_id, None)
            if instance is not None and not instance.ended.is_set():
                instance.die(-9)

        await self.freeze.around(effect)

    async def sweep(self, known: Collection[InstanceId]) -> Sequence[InstanceId]:
        def effect() -> Sequence[InstanceId]:
            strays = [InstanceId(each) for each in self.instances if each not in known]
            for stray in strays:
                self.instances.pop(stray).die(-9)
            return strays

        return await self.freeze.around(effect)

    async def last_words(self, handle: Handle, *, max_bytes: int) -> str:
        return "still loading"

    async def probe(self, address: str) -> bool:
        await asyncio.sleep(0.001)
        instance = self.instances.get(address.removeprefix("unix:"))
        if instance is None or instance.ended.is_set():
            raise ConnectionRefusedError
        instance.pings += 1
        if instance.spec.image == "slow" and instance.pings < 8:
            return False
        return instance.answers and instance.spec.image != "deaf"


# edge ----------------------------------------------------------------------------------------------------------------
class Edge:
    """A subscriber that swaps tables in and acknowledges them, unless told to be silent."""

    def __init__(self, path: str, worker: int = 0) -> None:
        self._path = path
        self._worker = worker
        self.tables: list[RouteTable] = []
        self.acks = True
        self.moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def table(self) -> RouteTable:
        return self.tables[-1]

    def route(self, name: str) -> EndpointRoute | None:
        return next((each for each in self.table.endpoints if each.name == name), None) if self.tables else None

    def instances(self, name: str) -> dict[str, list[str]]:
        """Routed instances by variant."""
        route = self.route(name)
        return {} if route is None else {v.name: [i.instance_id for i in v.instances] for v in route.variants}

    def routed(self, name: str) -> set[str]:
        return {instance_id for ids in self.instances(name).values() for instance_id in ids}

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            reader, writer = await asyncio.open_unix_connection(self._path)
            try:
                hello = Hello(worker=self._worker, pid=1)
                writer.write(frames.pack(msgspec.json.encode(hello)))
                while (payload := await frames.read(reader)) is not None:
                    table = msgspec.json.decode(payload, type=RouteTable)
                    self.tables.append(table)
                    if self.acks:
                        writer.write(frames.pack(msgspec.json.encode(Ack(generation=table.generation))))
            except (ConnectionError, frames.FrameError):
                pass
            finally:
                writer.close()
            await asyncio.sleep(0.01)


# all of it -----------------------------------------------------------------------------------------------------------
TYPES = {
    "ml.m5.large": capacity.InstanceType(name="ml.m5.large", vcpu=2, memory_bytes=8 * GIB),
    "ml.m5.24xlarge": capacity.InstanceType(name="ml.m5.24xlarge", vcpu=96, memory_bytes=384 * GIB),
}


class Scene:
    """Store, driver, edge and counters, and one reconciler at a time over them."""

    def __init__(
        self,
        path: Path,
        *,
        store: Any = None,
        workers: int = 1,
        timings: Timings | None = None,
        resync_s: float = 10.0,
        slots_file: Path | None = None,
    ) -> None:
        self.store = MemoryStore() if store is None else store
        self.driver = FakeDriver()
        self.layout = counters.Layout(workers=workers, gauges=64, groups=16)
        self._fd = counters.create(self.layout)
        self.counters = counters.Counters(self._fd, self.layout)
        self.inventory = capacity.Inventory(vcpu=4, memory_bytes=64 * GIB, memory_available_bytes=32 * GIB)
        self.rules = capacity.CapacityRules()
        self.lines: list[tuple[str, str, str]] = []
        self.fatal: list[tuple[str, BaseException]] = []
        self.timings = timings or Timings(drain_timeout_s=20.0)
        self.resync_s = resync_s
        self.slots_file = slots_file
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.setblocking(False)
        self.edges = [Edge(str(path), worker) for worker in range(workers)]
        self.reconciler = self.build()

    @property
    def edge(self) -> Edge:
        return self.edges[0]

    def build(self) -> Reconciler:
        return Reconciler(
            store=cast("Store", self.store),
            driver=self.driver,
            probe=self.driver.probe,
            counters=self.counters,
            listener=self._listener.dup(),
            clock=LoopClock(),
            inventory=lambda: self.inventory,
            rules=self.rules,
            types=TYPES,
            log=lambda *line: self.lines.append(line),
            timings=self.timings,
            resync_s=self.resync_s,
            slots_file=self.slots_file,
            on_fatal=lambda name, error: self.fatal.append((name, error)),
        )

    async def restart(self) -> None:
        """As after kill -9 of the process: nothing of it goes on, another one begins."""
        await self.reconciler.aclose()
        self.store.freeze = Freeze()
        self.driver.freeze = Freeze()
        self.reconciler = self.build()
        await self.reconciler.start()

    async def aclose(self) -> None:
        for edge in self.edges:
            await edge.aclose()
        await self.reconciler.aclose()
        self._listener.close()
        self.counters.close()
        os.close(self._fd)
        assert not self.fatal

    def wake(self, name: str) -> None:
        self.reconciler.wake(self.store.endpoints[name].key)

    def status(self, name: str) -> EndpointStatus | None:
        row = self.store.endpoints.get(name)
        return None if row is None else status_of(row)

    async def until(self, condition: Callable[[], bool], *, within_s: float = 120.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_status(self, name: str, status: EndpointStatus | None) -> None:
        await self.until(lambda: self.status(name) is status)

    async def in_service(self, name: str, wanted: Deployment) -> Endpoint:
        """Create an endpoint and wait for it."""
        self.store.create(name, wanted)
        self.wake(name)
        await self.until_status(name, EndpointStatus.IN_SERVICE)
        return self.store.endpoints[name]

    def images_of(self, name: str) -> Mapping[str, str]:
        row = self.store.endpoints[name]
        assert row.active is not None
        return {variant: images[0].resolved_image for variant, images in row.active.images.items()}

    def assert_converged(self) -> None:
        """Every instance has a row and is alive, and there is none else."""
        alive = {instance.spec.instance_id for instance in self.driver.alive()}
        assert alive == set(self.driver.instances) == set(self.store.instances)


@asynccontextmanager
async def scene(tmp_path: Path, **arguments: Any) -> Any:
    made = Scene(tmp_path / "r", **arguments)
    for edge in made.edges:
        edge.start()
    await made.reconciler.start()
    try:
        yield made
    finally:
        await made.aclose()


__all__ = ["StoreError", "VirtualLoop", "deployment", "run_virtual", "scene"]
