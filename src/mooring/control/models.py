"""CreateModel, DescribeModel, ListModels, DeleteModel. → hosting.md section 1.10."""

import re

from mooring.control import listing, texts
from mooring.control.context import Context
from mooring.control.tags import tags_from
from mooring.domain.call import Caller, Params
from mooring.domain.errors import ValidationException
from mooring.domain.ids import ModelName, Scope
from mooring.domain.model import Container, Model
from mooring.store.base import AlreadyExists, NotFound

_S3_OBJECT = re.compile(r"s3://[^/]+/.+", re.DOTALL)
_ENVIRONMENT_BYTES = 32 * 1024  # hosting.md section 11


class Models:
    """The operations."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, caller: Caller, params: Params) -> Params:
        """CreateModel."""
        model = model_from(caller.scope, params, now_s=self._context.now_s())
        tags = tags_from(params.get("Tags", ()))
        duplicate = texts.already_existing(caller.scope, "model", model.name)
        if await self._context.store.get_model(caller.scope, model.name) is not None:
            raise duplicate
        for container in model.containers:
            await self._check_data(caller.scope, container, model.execution_role_arn)
        try:
            await self._context.store.create_model(model, tags)
        except AlreadyExists:
            raise duplicate from None
        return {"ModelArn": model.arn}

    async def describe(self, caller: Caller, params: Params) -> Params:
        """DescribeModel."""
        model = await self._context.store.get_model(caller.scope, params["ModelName"])
        if model is None:
            raise texts.could_not_find(caller.scope, "model", params["ModelName"])
        return description_of(model)

    async def list(self, caller: Caller, params: Params) -> Params:
        """ListModels."""
        tokens = self._context.tokens
        query = listing.query_from(tokens, caller, "ListModels", params)
        page = await self._context.store.list_models(caller.scope, query)
        return {
            "Models": [
                {"ModelName": model.name, "ModelArn": model.arn, "CreationTime": model.created_at_s}
                for model in page.items
            ],
            **listing.next_token(tokens, caller, "ListModels", params, page),
        }

    async def delete(self, caller: Caller, params: Params) -> Params:
        """DeleteModel. Endpoints hold snapshots, so that references need no check."""
        try:
            await self._context.store.delete_model(caller.scope, params["ModelName"])
        except NotFound:
            raise texts.could_not_find(caller.scope, "model", params["ModelName"]) from None
        return {}

    async def _check_data(self, scope: Scope, container: Container, role: str | None) -> None:
        uri = container.model_data_url
        if uri is None:
            return
        if _S3_OBJECT.fullmatch(uri) is None:
            raise texts.no_model_data(uri)
        found = await self._context.artifacts.exists(uri)
        if found == "no":
            raise texts.no_model_data(uri)
        if found == "denied":
            raise texts.no_access_to_model_data(uri, role or "", scope.region)


def model_from(scope: Scope, params: Params, *, now_s: float) -> Model:
    """The model of a CreateModel request. Raises ValidationException."""
    primary: Params | None = params.get("PrimaryContainer")
    several: list[Params] = params.get("Containers", [])
    if (primary is None) == (not several):
        raise ValidationException(
            "Exactly one of PrimaryContainer and Containers must be given, with a container in it."
        )
    if len(several) > 1:
        raise ValidationException(
            "Models with more than one container are not supported yet (member Containers): see docs/coverage.md."
        )
    container = (
        _container_from(primary, "PrimaryContainer")
        if primary is not None
        else _container_from(several[0], "Containers[0]")
    )
    return Model(
        scope=scope,
        name=ModelName(params["ModelName"]),
        created_at_s=now_s,
        containers=(container,),
        is_primary=primary is not None,
        execution_role_arn=params.get("ExecutionRoleArn"),
    )


def _container_from(definition: Params, path: str) -> Container:
    if "Image" not in definition:
        raise ValidationException(f"{path}.Image must be given: the container's image.")
    environment = definition.get("Environment", {})
    size = sum(len(key.encode()) + len(value.encode()) for key, value in environment.items())
    if size > _ENVIRONMENT_BYTES:
        raise ValidationException(
            f"{path}.Environment has {size} bytes of keys and values; at most {_ENVIRONMENT_BYTES} are allowed."
        )
    return Container(
        image=definition["Image"],
        model_data_url=definition.get("ModelDataUrl"),
        environment=environment,
        hostname=definition.get("ContainerHostname"),
        mode=definition.get("Mode", "SingleModel"),
    )


def description_of(model: Model) -> Params:
    """DescribeModel's answer."""
    containers = [_described(container) for container in model.containers]
    answer: Params = {"ModelName": model.name, "ModelArn": model.arn, "CreationTime": model.created_at_s}
    answer.update({"PrimaryContainer": containers[0]} if model.is_primary else {"Containers": containers})
    if model.execution_role_arn is not None:
        answer["ExecutionRoleArn"] = model.execution_role_arn
    answer["EnableNetworkIsolation"] = False
    return answer


def _described(container: Container) -> Params:
    described: Params = {"Image": container.image, "Mode": container.mode}
    if container.hostname is not None:
        described["ContainerHostname"] = container.hostname
    if container.model_data_url is not None:
        described["ModelDataUrl"] = container.model_data_url
    if container.environment:
        described["Environment"] = dict(container.environment)
    return described
