"""Everything of this package put together, as app starts and stops it.

start:  rows ─▶ instances found again and probed ─▶ strays swept ─▶ first whole route table ─▶ loop
stop:   loop ends ─▶ (SIGTERM) every instance stopped ─▶ routes closed
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mooring.domain import capacity
from mooring.domain.endpoint import Endpoint, EndpointKey
from mooring.domain.ids import InstanceId, Scope
from mooring.domain.routing import Credential
from mooring.kit.clock import Clock
from mooring.kit.counters import Counters
from mooring.kit.tasks import Group
from mooring.reconcile.endpoints import Endpoints
from mooring.reconcile.lives import LogLine, Probe, Timings, World
from mooring.reconcile.loop import Loop, Temporary
from mooring.reconcile.pools import InstanceView, Pools, Room
from mooring.reconcile.routes import Publisher
from mooring.reconcile.table import VariantKey, key_of, owner_of
from mooring.runtime.driver import Driver, DriverError
from mooring.store.base import Store, StoreError

logger = logging.getLogger(__name__)

SETTLE_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantView:
    """A routed variant. `slot`: its group in the shared counters."""

    name: str
    slot: int
    weight: float
    instances: tuple[InstanceView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView:
    """A routed endpoint."""

    scope: Scope
    name: str
    variants: tuple[VariantView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A snapshot for metrics, status pages and the console. `instances`: all of them, routed or not."""

    generation: int
    acknowledged_generation: int
    endpoints: tuple[EndpointView, ...]
    instances: tuple[InstanceView, ...]


class Reconciler:
    """See the module. The store is started and closed by app; `listener` is the listening socket of the route channel.

    `on_fatal` is told when a part that the server cannot do without has failed: the process should end and be restarted.
    """

    def __init__(
        self,
        *,
        store: Store,
        driver: Driver,
        probe: Probe,
        counters: Counters,
        listener: socket.socket,
        clock: Clock,
        inventory: Callable[[], capacity.Inventory],
        rules: capacity.CapacityRules,
        types: Mapping[str, capacity.InstanceType],
        log: LogLine,
        timings: Timings | None = None,
        slots_file: Path | None = None,
        supervisor_pid: int | None = None,
        resync_s: float = 10.0,
        on_fatal: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self._store = store
        self._driver = driver
        self._routes = Publisher(
            listener=listener,
            counters=counters,
            clock=clock,
            slots_file=slots_file,
            supervisor_pid=supervisor_pid,
            on_fatal=on_fatal,
        )
        room = Room(inventory=inventory, rules=rules)
        world = World(
            store=store,
            driver=driver,
            probe=probe,
            routes=self._routes,
            clock=clock,
            log=log,
            timings=timings or Timings(),
            tasks=Group("instances"),
        )
        self._pools = Pools(world=world, room=room, on_change=self._wake_owner, on_fatal=on_fatal)
        self._endpoints = Endpoints(
            store=store, pools=self._pools, routes=self._routes, types=types, room=room, clock=clock, log=log
        )
        self._loop: Loop[EndpointKey] = Loop(
            handle=self._endpoints.reconcile, resync=self._resync, clock=clock, resync_s=resync_s, on_fatal=on_fatal
        )

    # life -----------------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Take over what is there, publish the first route table, begin reconciling. Raises StoreError."""
        await self._routes.start()
        endpoints = await self._store.all_endpoints()
        records = await self._store.all_instances()
        self._pools.adopt(records)
        kept = {owner_of(endpoint.key) for endpoint in endpoints}
        await asyncio.gather(
            self._sweep({record.spec.instance_id for record in records}),
            self._pools.settled(timeout_s=SETTLE_TIMEOUT_S),
        )
        self._pools.drop_orphans(kept)
        for endpoint in endpoints:
            self._endpoints.publish_active(endpoint)
        self._routes.release(
            instances={record.spec.instance_id for record in records}, variants=set(_variants(endpoints))
        )
        self._loop.start()
        for endpoint in endpoints:
            self.wake(endpoint.key)

    async def stop_all_instances(self, *, timeout_s: float) -> bool:
        """Stop every instance in parallel, at SIGTERM; whether all were gone in time. Reconciling ends."""
        await self._loop.aclose()
        return await self._pools.stop_all(timeout_s=timeout_s)

    async def aclose(self) -> None:
        """End every task. Instances that still run stay, for the next start to take over."""
        await self._loop.aclose()
        await self._pools.aclose()
        await self._routes.aclose()

    # calls ----------------------------------------------------------------------------------------------------------
    def wake(self, key: EndpointKey) -> None:
        """Something about this endpoint was written: look at it now."""
        self._loop.wake(key)

    async def set_serving(self, serving: bool, *, timeout_s: float = 10.0) -> None:
        """Whether health checks answer 200; returns when every edge knows. Raises loop.Temporary."""
        await self._routes.acknowledged(self._routes.set_serving(serving), timeout_s=timeout_s)

    def set_credentials(self, credentials: Sequence[Credential]) -> int:
        """The long-lived keys, whole; returns the generation for `acknowledged`."""
        return self._routes.set_credentials(credentials)

    async def acknowledged(self, generation: int, *, timeout_s: float = 10.0) -> None:
        """Return when every edge has this generation. Raises loop.Temporary."""
        await self._routes.acknowledged(generation, timeout_s=timeout_s)

    def status(self) -> Status:
        """What is there now."""
        instances = tuple(self._pools.instances())
        endpoints = []
        for key, traffic in sorted(self._routes.traffic().items(), key=lambda item: owner_of(item[0])):
            variants = tuple(
                VariantView(
                    name=share.variant,
                    slot=slot,
                    weight=share.weight,
                    instances=tuple(view for view in instances if view.pool_id == share.pool_id),
                )
                for share in traffic
                if (slot := self._routes.variant_slot(key, share.variant)) is not None
            )
            endpoints.append(EndpointView(scope=key.scope, name=key.name, variants=variants))
        return Status(
            generation=self._routes.generation,
            acknowledged_generation=self._routes.acknowledged_generation(),
            endpoints=tuple(endpoints),
            instances=instances,
        )

    # inside ---------------------------------------------------------------------------------------------------------
    def _wake_owner(self, owner: str) -> None:
        key = key_of(owner)
        if key is not None and not self._pools.closing:
            self._loop.wake(key)

    async def _resync(self) -> Iterable[EndpointKey]:
        try:
            endpoints = await self._store.all_endpoints()
        except StoreError as error:
            raise Temporary(str(error)) from error
        return [endpoint.key for endpoint in endpoints]

    async def _sweep(self, known: set[InstanceId]) -> None:
        """Before anything is started: what has no row now is a stray."""
        try:
            strays = await self._driver.sweep(known)
        except DriverError as error:
            logger.error("strays of an earlier life may be left: %s", error)
            return
        if strays:
            logger.warning("removed instances that nobody owned: %s", ", ".join(strays))


def _variants(endpoints: Iterable[Endpoint]) -> Iterable[VariantKey]:
    for endpoint in endpoints:
        deployments = [endpoint.desired] if endpoint.active is None else [endpoint.desired, endpoint.active.deployment]
        for deployment in deployments:
            for variant in deployment.variants:
                yield VariantKey(endpoint.key, variant.config.name)
