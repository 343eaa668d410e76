"""Reconciles one endpoint: reads its row afresh, plans (domain.rollout), carries the plan out, in this order:

    pools wanted ─▶ traffic published ─▶ acknowledged by every edge ─▶ conclusion written ─▶ pools no longer listed dropped

so that a status is written only when it is true on every connection, and an old pool goes only when nothing sends to it.
Called by reconcile.loop with a key; may be run twice, late, or after a crash at any step.
"""

import logging
from collections.abc import Iterable, Mapping

from mooring.domain import capacity, ids, restart, rollout
from mooring.domain.endpoint import Deployment, Endpoint, EndpointKey, Variant
from mooring.domain.ids import PoolId
from mooring.domain.instance import Limits
from mooring.domain.pool import InstanceTemplate
from mooring.domain.rollout import EndpointPlan, Observed, PoolWish
from mooring.kit.clock import Clock
from mooring.reconcile.lives import LogLine
from mooring.reconcile.loop import Temporary
from mooring.reconcile.pools import Pools, Room
from mooring.reconcile.routes import Publisher
from mooring.reconcile.slots import SlotsExhausted
from mooring.reconcile.table import owner_of
from mooring.store.base import Conflict, NotFound, Store, StoreError

logger = logging.getLogger(__name__)

ACKNOWLEDGE_TIMEOUT_S = 10.0
DEFAULT_STARTUP_TIMEOUT_S = 480
DEFAULT_DOWNLOAD_TIMEOUT_S = 1200


class Endpoints:
    """See the module."""

    def __init__(
        self,
        *,
        store: Store,
        pools: Pools,
        routes: Publisher,
        types: Mapping[str, capacity.InstanceType],
        room: Room,
        clock: Clock,
        log: LogLine,
    ) -> None:
        self._store = store
        self._pools = pools
        self._routes = routes
        self._types = types
        self._room = room
        self._clock = clock
        self._log = log

    async def reconcile(self, key: EndpointKey) -> float | None:
        """One pass; returns when to look again. Raises Temporary."""
        try:
            endpoint = await self._store.get_endpoint(key.scope, key.name)
            if endpoint is None:
                self._forget(key)
                return None
            return await self._reconcile(key, endpoint)
        except StoreError as error:
            raise Temporary(str(error)) from error
        except (Conflict, NotFound):
            return 0.0  # someone wrote meanwhile: look afresh

    def publish_active(self, endpoint: Endpoint) -> None:
        """What is in force into the routes, as the row has it; for the first table after a start."""
        key = endpoint.key
        traffic = rollout.active_traffic(endpoint)
        try:
            self._routes.claim_variants(key, {share.variant for share in traffic or ()})
        except SlotsExhausted as error:
            logger.error("%s gets no route: %s", owner_of(key), error)
            return
        self._routes.set_traffic(key, traffic)

    def _forget(self, key: EndpointKey) -> None:
        """There is no such endpoint."""
        self._routes.set_traffic(key, None)
        self._routes.release_variants(key, keep=())
        self._pools.drop_others(owner_of(key), keep=())

    async def _reconcile(self, key: EndpointKey, endpoint: Endpoint) -> float | None:
        owner = owner_of(key)
        templates, refused = self._templates(key, endpoint)
        observed = Observed(pools=self._pools.states(owner), refused=refused, leftover=self._pools.leftover(owner))
        plan = rollout.plan_endpoint(endpoint, observed)
        for wish in plan.pools:
            if wish.pool_id in templates:
                self._pools.want(
                    wish.pool_id,
                    owner,
                    templates[wish.pool_id],
                    count=wish.count,
                    proven=wish.proven,
                    pin=_pin(endpoint, wish),
                )
        await self._route(key, endpoint, plan)
        names = {variant.config.name for deployment in _deployments(endpoint) for variant in deployment.variants}
        self._routes.release_variants(key, keep=names)
        if plan.conclusion is not None:
            await self._conclude(endpoint, plan.conclusion)
        elif plan.report is not None:
            await self._store.set_active(endpoint.scope, endpoint.name, active=plan.report)
        self._pools.drop_others(owner, keep={wish.pool_id for wish in plan.pools})
        if plan.remove:
            await self._store.remove_endpoint(endpoint.scope, endpoint.name, generation=endpoint.generation)
            self._forget(key)
            return None
        return None if plan.conclusion is None else 0.0

    async def _route(self, key: EndpointKey, endpoint: Endpoint, plan: EndpointPlan) -> None:
        generation = self._routes.set_traffic(key, plan.traffic)
        # A steady endpoint's routes need no waiting: nobody is told anything new.
        if plan.conclusion is not None or endpoint.deleting:
            await self._routes.acknowledged(generation, timeout_s=ACKNOWLEDGE_TIMEOUT_S)

    async def _conclude(self, endpoint: Endpoint, conclusion: rollout.Conclusion) -> None:
        await self._store.set_observed(
            endpoint.scope,
            endpoint.name,
            generation=conclusion.generation,
            active=conclusion.active,
            failure_reason=conclusion.failure_reason,
            now_s=self._clock.now_s(),
        )
        outcome = conclusion.failure_reason or "done"
        logger.info("endpoint %s: %s: %s", endpoint.name, endpoint.change, outcome)
        if conclusion.failure_reason is not None:
            for variant in endpoint.desired.variants:
                self._say(endpoint, variant, f"{endpoint.change} failed: {conclusion.failure_reason}")

    # templates ------------------------------------------------------------------------------------------------------
    def _templates(
        self, key: EndpointKey, endpoint: Endpoint
    ) -> tuple[dict[PoolId, InstanceTemplate], dict[PoolId, str]]:
        """Templates of every pool that may be wanted, and why there is none for the others."""
        templates: dict[PoolId, InstanceTemplate] = {}
        refused: dict[PoolId, str] = {}
        deployments = list(_deployments(endpoint))
        names = {variant.config.name for deployment in deployments for variant in deployment.variants}
        try:
            self._routes.claim_variants(key, names)
        except SlotsExhausted as error:
            wanted = [each for each in deployments if each.id == endpoint.desired.id]
            refused = {each.pool_id(v.config.name): str(error) for each in wanted for v in each.variants}
        for deployment in deployments:
            for variant in deployment.variants:
                pool_id = deployment.pool_id(variant.config.name)
                limits = self._limits(variant)
                if isinstance(limits, capacity.Refused):
                    refused[pool_id] = limits.missing
                elif pool_id not in refused:
                    templates[pool_id] = _template(endpoint, variant, limits)
        wished = {endpoint.desired.pool_id(variant.config.name) for variant in endpoint.desired.variants}
        if _is_new(endpoint) and not wished & refused.keys():
            why = self._outgrown(endpoint, templates)
            refused |= {} if why is None else dict.fromkeys(wished, why)
        return templates, refused

    def _outgrown(self, endpoint: Endpoint, templates: Mapping[PoolId, InstanceTemplate]) -> str | None:
        """Why this machine can never hold what is wanted beside what is in force; None where it might."""
        counts: dict[PoolId, int] = {}
        for deployment in _deployments(endpoint):
            for variant in deployment.variants:
                pool_id = deployment.pool_id(variant.config.name)
                counts[pool_id] = max(counts.get(pool_id, 0), variant.desired_count)
        wanted = [(templates[pool_id].limits, count) for pool_id, count in counts.items() if pool_id in templates]
        return capacity.outgrown(wanted, self._room.inventory(), self._room.rules, places=self._routes.instance_places)

    def _limits(self, variant: Variant) -> Limits | capacity.Refused:
        kind = self._types.get(variant.config.instance_type)
        if kind is None:
            return capacity.Refused(
                missing=f"{variant.config.instance_type} is not in this server's table of instance types"
            )
        return capacity.fit(kind, self._room.inventory(), self._room.rules)

    def _say(self, endpoint: Endpoint, variant: Variant, text: str) -> None:
        group = ids.endpoint_log_group(endpoint.name)
        self._log(group, f"{variant.config.name}/platform", restart.clip(text, 4096))


def _deployments(endpoint: Endpoint) -> Iterable[Deployment]:
    """What may have pools now. The desired one comes last, with its counts, where both are the same deployment."""
    if endpoint.deleting:
        return
    if endpoint.active is not None:
        yield endpoint.active.deployment
    if _is_new(endpoint):
        yield endpoint.desired


def _is_new(endpoint: Endpoint) -> bool:
    """Whether the newest wish is still to be concluded."""
    return endpoint.generation > endpoint.observed_generation


def _pin(endpoint: Endpoint, wish: PoolWish) -> tuple[str, float] | None:
    """The image that a pool in force has run so far; its replacements run the same, also after a restart."""
    active, name = endpoint.active, wish.variant.config.name
    if active is None or active.deployment.pool_id(name) != wish.pool_id or not active.images.get(name):
        return None
    image = active.images[name][0]
    return image.resolved_image, image.resolved_at_s


def _template(endpoint: Endpoint, variant: Variant, limits: Limits) -> InstanceTemplate:
    config, container = variant.config, variant.model.containers[0]
    return InstanceTemplate(
        scope=endpoint.scope,
        owner=f"endpoint/{endpoint.name}",
        image=container.image,
        environment=container.environment,
        model_data_url=container.model_data_url,
        limits=limits,
        log_group=ids.endpoint_log_group(endpoint.name),
        log_prefix=config.name,
        startup_timeout_s=float(config.startup_timeout_s or DEFAULT_STARTUP_TIMEOUT_S),
        download_timeout_s=float(config.download_timeout_s or DEFAULT_DOWNLOAD_TIMEOUT_S),
        execution_role_arn=variant.model.execution_role_arn,
    )
