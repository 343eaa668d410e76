"""CreateEndpointConfig, DescribeEndpointConfig, ListEndpointConfigs, DeleteEndpointConfig. → hosting.md section 6.1."""

import math
from collections import Counter

from mooring.control import listing, texts
from mooring.control.context import Context, InstanceTypes
from mooring.control.tags import tags_from
from mooring.domain.call import Caller, Params
from mooring.domain.endpoint_config import EndpointConfig, ProductionVariant
from mooring.domain.errors import ValidationException
from mooring.domain.ids import EndpointConfigName, ModelName, Scope, VariantName
from mooring.store.base import AlreadyExists, NotFound

ALL_ZERO = "At least one production variant must have a weight greater than 0: requests would have nowhere to go."


class EndpointConfigs:
    """The operations."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, caller: Caller, params: Params) -> Params:
        """CreateEndpointConfig."""
        context, scope = self._context, caller.scope
        config = config_from(scope, params, context.instance_types, now_s=context.now_s())
        tags = tags_from(params.get("Tags", ()))
        for variant in config.variants:
            if await context.store.get_model(scope, variant.model_name) is None:
                raise texts.could_not_find(scope, "model", variant.model_name)
        try:
            await context.store.create_endpoint_config(config, tags)
        except AlreadyExists:
            raise texts.already_existing(scope, "endpoint-config", config.name) from None
        return {"EndpointConfigArn": config.arn}

    async def describe(self, caller: Caller, params: Params) -> Params:
        """DescribeEndpointConfig."""
        config = await self._context.store.get_endpoint_config(caller.scope, params["EndpointConfigName"])
        if config is None:
            raise texts.could_not_find(caller.scope, "endpoint-config", params["EndpointConfigName"])
        return {
            "EndpointConfigName": config.name,
            "EndpointConfigArn": config.arn,
            "ProductionVariants": [_described(variant) for variant in config.variants],
            "CreationTime": config.created_at_s,
        }

    async def list(self, caller: Caller, params: Params) -> Params:
        """ListEndpointConfigs."""
        tokens = self._context.tokens
        query = listing.query_from(tokens, caller, "ListEndpointConfigs", params)
        page = await self._context.store.list_endpoint_configs(caller.scope, query)
        return {
            "EndpointConfigs": [
                {
                    "EndpointConfigName": config.name,
                    "EndpointConfigArn": config.arn,
                    "CreationTime": config.created_at_s,
                }
                for config in page.items
            ],
            **listing.next_token(tokens, caller, "ListEndpointConfigs", params, page),
        }

    async def delete(self, caller: Caller, params: Params) -> Params:
        """DeleteEndpointConfig. Endpoints hold snapshots, so that references need no check."""
        name = params["EndpointConfigName"]
        try:
            await self._context.store.delete_endpoint_config(caller.scope, name)
        except NotFound:
            raise texts.could_not_find(caller.scope, "endpoint-config", name) from None
        return {}


def config_from(scope: Scope, params: Params, instance_types: InstanceTypes, *, now_s: float) -> EndpointConfig:
    """The config of a CreateEndpointConfig request. Raises ValidationException."""
    variants = tuple(_variant_from(member, instance_types) for member in params["ProductionVariants"])
    for name, count in Counter(variant.name for variant in variants).items():
        if count > 1:
            raise ValidationException(f'The variant name "{name}" was non-unique within the request.')
    if not any(variant.weight > 0 for variant in variants):
        raise ValidationException(ALL_ZERO)
    return EndpointConfig(
        scope=scope,
        name=EndpointConfigName(params["EndpointConfigName"]),
        created_at_s=now_s,
        variants=variants,
    )


def check_weight(variant: str, weight: float) -> float:
    """A weight that can be summed and compared. Raises ValidationException."""
    if not math.isfinite(weight) or weight < 0:
        raise ValidationException(f'The weight of variant "{variant}" must be a finite number of at least 0.')
    return float(weight)


def _variant_from(member: Params, instance_types: InstanceTypes) -> ProductionVariant:
    name = member["VariantName"]
    for required, why in (
        ("ModelName", "endpoints of inference components are not supported yet, see docs/coverage.md"),
        ("InstanceType", "serverless variants and instance pools are not supported yet, see docs/coverage.md"),
        ("InitialInstanceCount", "how many instances to start"),
    ):
        if required not in member:
            raise ValidationException(f'{required} must be given for the production variant "{name}" ({why}).')
    if not instance_types.known(member["InstanceType"]):
        raise ValidationException(
            f'The instance type "{member["InstanceType"]}" of variant "{name}" is not in the instance type table of '
            "this server."
        )
    return ProductionVariant(
        name=VariantName(name),
        model_name=ModelName(member["ModelName"]),
        instance_type=member["InstanceType"],
        instance_count=member["InitialInstanceCount"],
        weight=check_weight(name, member.get("InitialVariantWeight", 1.0)),
        startup_timeout_s=member.get("ContainerStartupHealthCheckTimeoutInSeconds"),
        download_timeout_s=member.get("ModelDataDownloadTimeoutInSeconds"),
    )


def _described(variant: ProductionVariant) -> Params:
    described: Params = {
        "VariantName": variant.name,
        "ModelName": variant.model_name,
        "InstanceType": variant.instance_type,
        "InitialInstanceCount": variant.instance_count,
        "InitialVariantWeight": variant.weight,
    }
    if variant.startup_timeout_s is not None:
        described["ContainerStartupHealthCheckTimeoutInSeconds"] = variant.startup_timeout_s
    if variant.download_timeout_s is not None:
        described["ModelDataDownloadTimeoutInSeconds"] = variant.download_timeout_s
    return described
