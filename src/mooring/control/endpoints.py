"""CreateEndpoint, UpdateEndpoint, UpdateEndpointWeightsAndCapacities, DeleteEndpoint. → hosting.md sections 6.3 to 6.6.

An operation only records the wish (generation + 1) and wakes the reconciler. Descriptions are in `endpoint_views`.
"""

from collections.abc import Awaitable, Callable

from mooring.control import endpoint_views, listing, texts, weights
from mooring.control.context import Context
from mooring.control.tags import tags_from
from mooring.domain.call import Caller, Params
from mooring.domain.endpoint import (
    Change,
    Deployment,
    Endpoint,
    EndpointStatus,
    Variant,
    is_busy,
    status_of,
)
from mooring.domain.errors import ValidationException
from mooring.domain.ids import DeploymentId, EndpointName, Scope
from mooring.store.base import AlreadyExists, Conflict, NotFound

_MAX_TRIES = 8  # of a compare-and-set; every loss means that another call of the same endpoint got through


class Endpoints:
    """The operations."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, caller: Caller, params: Params) -> Params:
        """CreateEndpoint."""
        scope, name = caller.scope, EndpointName(params["EndpointName"])
        tags = tags_from(params.get("Tags", ()))
        duplicate = texts.already_existing(scope, "endpoint", name)
        if await self._context.store.get_endpoint(scope, name) is not None:
            raise duplicate
        now_s = self._context.now_s()
        endpoint = Endpoint(
            scope=scope,
            name=name,
            created_at_s=now_s,
            modified_at_s=now_s,
            generation=1,
            change=Change.CREATE,
            desired=await self._snapshot(scope, params["EndpointConfigName"]),
        )
        try:
            await self._context.store.create_endpoint(endpoint, tags)
        except AlreadyExists:
            raise duplicate from None
        self._context.wake(endpoint.key)
        return {"EndpointArn": endpoint.arn}

    async def update(self, caller: Caller, params: Params) -> Params:
        """UpdateEndpoint."""
        scope, name = caller.scope, params["EndpointName"]

        async def wish(endpoint: Endpoint) -> Endpoint:
            _check_idle(endpoint)
            desired = await self._snapshot(scope, params["EndpointConfigName"])
            return await self._set_desired(endpoint, Change.UPDATE, desired)

        return {"EndpointArn": (await self._change(scope, name, wish)).arn}

    async def update_weights_and_capacities(self, caller: Caller, params: Params) -> Params:
        """UpdateEndpointWeightsAndCapacities: the deployment that serves, with other weights or counts."""
        scope, name = caller.scope, params["EndpointName"]

        async def wish(endpoint: Endpoint) -> Endpoint:
            serving = _check_idle(endpoint)
            desired = weights.changed(serving, params["DesiredWeightsAndCapacities"])
            return await self._set_desired(endpoint, Change.WEIGHTS, desired)

        return {"EndpointArn": (await self._change(scope, name, wish)).arn}

    async def delete(self, caller: Caller, params: Params) -> Params:
        """DeleteEndpoint. Unlike AWS an endpoint that is still Creating can be deleted: nobody should wait for a
        start that cannot succeed.
        """

        async def wish(endpoint: Endpoint) -> Endpoint:
            if status_of(endpoint) in (EndpointStatus.UPDATING, EndpointStatus.DELETING):
                raise texts.in_progress(endpoint.arn)
            return await self._context.store.set_deleting(
                endpoint.scope,
                endpoint.name,
                expected_generation=endpoint.generation,
                now_s=self._context.now_s(),
            )

        await self._change(caller.scope, params["EndpointName"], wish)
        return {}

    async def describe(self, caller: Caller, params: Params) -> Params:
        """DescribeEndpoint."""
        return endpoint_views.description_of(await self._get(caller.scope, params["EndpointName"]))

    async def list(self, caller: Caller, params: Params) -> Params:
        """ListEndpoints."""
        tokens = self._context.tokens
        query = listing.query_from(tokens, caller, "ListEndpoints", params)
        page = await self._context.store.list_endpoints(caller.scope, query)
        return {
            "Endpoints": [endpoint_views.summary_of(endpoint) for endpoint in page.items],
            **listing.next_token(tokens, caller, "ListEndpoints", params, page),
        }

    async def _get(self, scope: Scope, name: str) -> Endpoint:
        endpoint = await self._context.store.get_endpoint(scope, name)
        if endpoint is None:
            raise texts.could_not_find(scope, "endpoint", name)
        return endpoint

    async def _change(self, scope: Scope, name: str, wish: Callable[[Endpoint], Awaitable[Endpoint]]) -> Endpoint:
        """Decide on a fresh read, write if nothing changed meanwhile, else decide again; then wake the reconciler."""
        for _ in range(_MAX_TRIES):
            endpoint = await self._get(scope, name)
            try:
                changed = await wish(endpoint)
            except Conflict:
                continue
            except NotFound:
                raise texts.could_not_find(scope, "endpoint", name) from None
            self._context.wake(changed.key)
            return changed
        raise texts.in_progress(endpoint.arn)

    async def _set_desired(self, endpoint: Endpoint, change: Change, desired: Deployment) -> Endpoint:
        return await self._context.store.set_desired(
            endpoint.scope,
            endpoint.name,
            expected_generation=endpoint.generation,
            change=change,
            desired=desired,
            now_s=self._context.now_s(),
        )

    async def _snapshot(self, scope: Scope, config_name: str) -> Deployment:
        """Config and models as they are now, under a fresh deployment id."""
        config = await self._context.store.get_endpoint_config(scope, config_name)
        if config is None:
            raise texts.could_not_find(scope, "endpoint-config", config_name)
        variants = []
        for variant in config.variants:
            model = await self._context.store.get_model(scope, variant.model_name)
            if model is None:
                raise texts.could_not_find(scope, "model", variant.model_name)
            variants.append(
                Variant(
                    config=variant,
                    model=model,
                    desired_weight=variant.weight,
                    desired_count=variant.instance_count,
                )
            )
        return Deployment(
            id=DeploymentId(self._context.new_deployment_id()),
            config_name=config.name,
            variants=tuple(variants),
        )


def _check_idle(endpoint: Endpoint) -> Deployment:
    """The deployment that serves. Raises ValidationException while busy, and for an endpoint that failed to start."""
    if is_busy(endpoint):
        raise texts.in_progress(endpoint.arn)
    if endpoint.active is None:
        raise ValidationException(
            f'Cannot update endpoint "{endpoint.arn}": its status is Failed. It can only be deleted.'
        )
    return endpoint.active.deployment
