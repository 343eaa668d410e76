"""Router: the route table as this worker looks it up. Swapped whole, between two requests; pools outlive the swap.

    RouteTable ──swap()──▶ {account: {endpoint name: Endpoint}} ── pick_variant ─▶ Variant ─▶ PoolClient ─▶ Instance

Called by gateway.server; swapped by edge.routes. Must not know HTTP or signatures.
"""

from collections.abc import Callable

from mooring import contract
from mooring.domain import ids, routing
from mooring.invoke import counts
from mooring.invoke.pool import Connector, PoolClient, PoolLimits, open_upstream
from mooring.kit import tasks
from mooring.kit.counters import BUCKETS, Counters


class Variant:
    """One variant of one endpoint. Its name and weight are of one table, its pool and counters of all."""

    __slots__ = ("container", "group", "histograms", "line", "name", "pool", "weight")

    def __init__(self, route: routing.VariantRoute, *, pool: PoolClient, group: int, histograms: int) -> None:
        self.name = route.name
        self.line = f"{contract.HEADER_INVOKED_VARIANT}: {route.name}\r\n".encode()  # of an answer's head
        self.weight = route.weight
        self.container = route.container
        self.pool = pool
        self.group = group  # first word of this worker's counters
        self.histograms = histograms  # first word of this worker's histograms


class Endpoint:
    """One endpoint."""

    __slots__ = ("_any", "_weights", "account", "by_name", "log_arn", "log_group", "name", "only", "variants")

    def __init__(self, route: routing.EndpointRoute, variants: tuple[Variant, ...]) -> None:
        self.account = route.account
        self.name = route.name
        self.variants = variants
        self.by_name = {variant.name: variant for variant in variants}
        self.log_group = ids.endpoint_log_group(route.name)
        self.log_arn = ids.log_group_arn(ids.Scope(account=route.account, region=route.region), self.log_group)
        self._weights = tuple(variant.weight for variant in variants)
        self._any = any(weight > 0 for weight in self._weights)
        self.only = variants[0] if len(variants) == 1 and self._any else None  # there is nothing to choose

    def pick(self, random: Callable[[], float]) -> Variant | None:
        """The variant whose turn it is by weight; None when no variant takes traffic."""
        if not self._any:
            return None
        return self.variants[routing.pick_variant(self._weights, random())]


class Router:
    """See the module."""

    def __init__(
        self,
        *,
        region: str,
        counters: Counters,
        worker: int,
        group: tasks.Group,
        limits: PoolLimits,
        connector: Connector = open_upstream,
    ) -> None:
        self._connector = connector
        self._region = region
        self._counters = counters
        self._worker = worker
        self._tasks = group
        self._limits = limits
        self._pools: dict[tuple[str, str, str], PoolClient] = {}
        self._endpoints: dict[str, dict[str, Endpoint]] = {}

    def find(self, account: str, name: str) -> Endpoint | None:
        """An endpoint by its exact name: here, unlike in the control plane, case counts."""
        names = self._endpoints.get(account)
        return None if names is None else names.get(name)

    def swap(self, table: routing.RouteTable) -> None:
        """Take a new table. Endpoints of other regions are not this server's to serve."""
        pools: dict[tuple[str, str, str], PoolClient] = {}
        endpoints: dict[str, dict[str, Endpoint]] = {}
        for route in table.endpoints:
            if route.region != self._region:
                continue
            variants = []
            for variant in route.variants:
                key = (route.account, route.name, variant.name)
                pool = pools[key] = self._pools.pop(key) if key in self._pools else self._make_pool()
                pool.assign(variant.instances)
                variants.append(self._make_variant(variant, pool))
            endpoints.setdefault(route.account, {})[route.name] = Endpoint(route, tuple(variants))
        for pool in self._pools.values():
            pool.assign(())
        self._pools = pools
        self._endpoints = endpoints

    def sweep(self, now_s: float) -> None:
        """Close connections that nobody has used for long."""
        for pool in self._pools.values():
            pool.sweep(now_s)

    def _make_pool(self) -> PoolClient:
        return PoolClient(
            counters=self._counters,
            worker=self._worker,
            group=self._tasks,
            limits=self._limits,
            connector=self._connector,
        )

    def _make_variant(self, route: routing.VariantRoute, pool: PoolClient) -> Variant:
        group = self._counters.group(self._worker, route.slot)
        return Variant(route, pool=pool, group=group, histograms=group + self._counters.layout.counters)


MODEL_LATENCY = counts.MODEL_LATENCY * BUCKETS
OVERHEAD_LATENCY = counts.OVERHEAD_LATENCY * BUCKETS
