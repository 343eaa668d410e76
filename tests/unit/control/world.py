"""The services over a real store in tmp_path, with everything else made of plain values."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from itertools import count

from mooring.control.context import Context, Existence
from mooring.control.endpoint_configs import EndpointConfigs
from mooring.control.endpoints import Endpoints
from mooring.control.models import Models
from mooring.control.tags import Tags
from mooring.control.tokens import Tokens
from mooring.domain.call import Caller, Params
from mooring.domain.endpoint import Active, DeployedImage, Endpoint, EndpointKey
from mooring.domain.ids import Scope
from mooring.store.sqlite import SqliteStore

SCOPE = Scope(account="123456789012", region="us-east-1")
CALLER = Caller(scope=SCOPE, access_key="K", arn="arn:aws:iam::123456789012:root", request_id="r")
ARN = "arn:aws:sagemaker:us-east-1:123456789012:"
DATA = "s3://bucket/model.tar.gz"
ROLE = "arn:aws:iam::123456789012:role/mooring"


class Ticking:
    """A clock that moves by one second with every look."""

    def __init__(self) -> None:
        self._seconds = count(1_000_000)

    def now_s(self) -> float:
        return float(next(self._seconds))

    def monotonic_s(self) -> float:
        return self.now_s()


@dataclass
class World:
    """What the services see, and what they did."""

    store: SqliteStore
    objects: dict[str, Existence] = field(default_factory=lambda: {DATA: "yes"})
    types: set[str] = field(default_factory=lambda: {"ml.m5.large", "ml.c5.large"})
    woken: list[EndpointKey] = field(default_factory=list)

    def __post_init__(self) -> None:
        deployments = count(1)
        self.context = Context(
            store=self.store,
            clock=Ticking(),
            artifacts=self,
            instance_types=self,
            wake=self.woken.append,
            tokens=Tokens(b"k" * 32),
            new_deployment_id=lambda: f"d{next(deployments)}",
        )
        self.models = Models(self.context)
        self.configs = EndpointConfigs(self.context)
        self.endpoints = Endpoints(self.context)
        self.tags = Tags(self.context)

    async def exists(self, uri: str) -> Existence:
        return self.objects.get(uri, "no")

    def known(self, instance_type: str) -> bool:
        return instance_type in self.types

    async def model(self, name: str = "demo", **members: object) -> Params:
        request: Params = {"ModelName": name, "PrimaryContainer": {"Image": "img:1", "ModelDataUrl": DATA}, **members}
        return await self.models.create(CALLER, request)

    async def config(self, name: str = "conf", *variants: Params, **members: object) -> Params:
        shown = list(variants) or [variant()]
        request: Params = {"EndpointConfigName": name, "ProductionVariants": shown, **members}
        return await self.configs.create(CALLER, request)

    async def endpoint(self, name: str = "Ep", config: str = "conf", **members: object) -> Params:
        request: Params = {"EndpointName": name, "EndpointConfigName": config, **members}
        return await self.endpoints.create(CALLER, request)

    async def read(self, name: str = "Ep") -> Endpoint:
        endpoint = await self.store.get_endpoint(SCOPE, name)
        assert endpoint is not None
        return endpoint

    async def conclude(self, name: str = "Ep", *, failure: str | None = None, image: str | None = None) -> None:
        """What the reconciler writes: the newest wish is in force, or failed and the old one stays."""
        endpoint = await self.read(name)
        counts = {variant.config.name: variant.desired_count for variant in endpoint.desired.variants}
        active: Active | None = Active(deployment=endpoint.desired, current_counts=counts)
        if image is not None and active is not None:
            resolved = DeployedImage(specified_image="img:1", resolved_image=image, resolved_at_s=7.0)
            active = replace(active, images=dict.fromkeys(counts, (resolved,)))
        if failure is not None:
            active = endpoint.active
        await self.store.set_observed(
            SCOPE, name, generation=endpoint.generation, active=active, failure_reason=failure, now_s=2_000_000.0
        )

    async def serving(self) -> None:
        """A model, a config and an endpoint in service."""
        await self.model()
        await self.config()
        await self.endpoint()
        await self.conclude()


def variant(name: str = "v", **members: object) -> Params:
    return {
        "VariantName": name,
        "ModelName": "demo",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        **members,
    }


Refused = Callable[[Awaitable[object]], Awaitable[str]]
