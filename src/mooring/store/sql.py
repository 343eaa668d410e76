"""The Store Protocol over SQL statements; an engine adds how a read and a write are run. Base of SQLite and PostgreSQL.

Each method is one function of a connection, handed to `_read` (a snapshot) or `_write` (a transaction of its own, durable
when it returns).
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import sqlalchemy as sa

from mooring.domain.endpoint import Active, Change, Deployment, Endpoint
from mooring.domain.endpoint_config import EndpointConfig
from mooring.domain.ids import Arn, InstanceId, Scope
from mooring.domain.instance import Handle, InstanceRecord, Phase
from mooring.domain.listing import ListQuery, Page
from mooring.domain.model import Model
from mooring.domain.tags import Tag
from mooring.store import endpoints, instances, resources, rows, tables
from mooring.store import tags as tag_statements

T = TypeVar("T")


class SqlStore(abc.ABC):
    """See store.base.Store."""

    @abc.abstractmethod
    async def _read(self, function: Callable[[sa.Connection], T]) -> T:
        """Run in a snapshot that holds every write that returned."""

    @abc.abstractmethod
    async def _write(self, function: Callable[[sa.Connection], T]) -> T:
        """Run atomically; durable on return. An exception of the function undoes it and is raised here."""

    # models, endpoint configs ------------------------------------------------------------------------------------
    async def create_model(self, model: Model, tags: Sequence[Tag]) -> None:
        """Raises AlreadyExists."""
        values: dict[str, object] = {"document": rows.encode(model)}
        await self._write(lambda c: resources.insert(c, tables.models, model, values, tags))

    async def get_model(self, scope: Scope, name: str) -> Model | None:
        """By exact name."""
        return await self._read(lambda c: resources.get_document(c, tables.models, scope, name, Model))

    async def delete_model(self, scope: Scope, name: str) -> None:
        """Raises NotFound."""
        await self._write(lambda c: resources.delete(c, tables.models, resources.is_row(tables.models, scope, name)))

    async def list_models(self, scope: Scope, query: ListQuery) -> Page[Model]:
        """A page."""
        return await self._read(lambda c: resources.list_documents(c, tables.models, scope, query, Model))

    async def create_endpoint_config(self, config: EndpointConfig, tags: Sequence[Tag]) -> None:
        """Raises AlreadyExists."""
        values: dict[str, object] = {"document": rows.encode(config)}
        await self._write(lambda c: resources.insert(c, tables.endpoint_configs, config, values, tags))

    async def get_endpoint_config(self, scope: Scope, name: str) -> EndpointConfig | None:
        """By exact name."""
        table = tables.endpoint_configs
        return await self._read(lambda c: resources.get_document(c, table, scope, name, EndpointConfig))

    async def delete_endpoint_config(self, scope: Scope, name: str) -> None:
        """Raises NotFound."""
        table = tables.endpoint_configs
        await self._write(lambda c: resources.delete(c, table, resources.is_row(table, scope, name)))

    async def list_endpoint_configs(self, scope: Scope, query: ListQuery) -> Page[EndpointConfig]:
        """A page."""
        table = tables.endpoint_configs
        return await self._read(lambda c: resources.list_documents(c, table, scope, query, EndpointConfig))

    # endpoints, desired ------------------------------------------------------------------------------------------
    async def create_endpoint(self, endpoint: Endpoint, tags: Sequence[Tag]) -> None:
        """Raises AlreadyExists."""
        await self._write(lambda c: endpoints.create(c, endpoint, tags))

    async def set_desired(
        self,
        scope: Scope,
        name: str,
        *,
        expected_generation: int,
        change: Change,
        desired: Deployment,
        now_s: float,
    ) -> Endpoint:
        """Raises Conflict, NotFound."""
        return await self._write(
            lambda c: endpoints.set_desired(
                c, scope, name, expected_generation=expected_generation, change=change, desired=desired, now_s=now_s
            )
        )

    async def set_deleting(self, scope: Scope, name: str, *, expected_generation: int, now_s: float) -> Endpoint:
        """Raises Conflict, NotFound."""
        return await self._write(
            lambda c: endpoints.set_deleting(c, scope, name, expected_generation=expected_generation, now_s=now_s)
        )

    async def get_endpoint(self, scope: Scope, name: str) -> Endpoint | None:
        """By exact name."""
        return await self._read(lambda c: endpoints.get(c, scope, name))

    async def list_endpoints(self, scope: Scope, query: ListQuery) -> Page[Endpoint]:
        """A page."""
        return await self._read(lambda c: endpoints.list_page(c, scope, query))

    # endpoints, observed -----------------------------------------------------------------------------------------
    async def all_endpoints(self) -> Sequence[Endpoint]:
        """Of every scope."""
        return await self._read(endpoints.every)

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
        """Raises Conflict, NotFound."""
        await self._write(
            lambda c: endpoints.set_observed(
                c, scope, name, generation=generation, active=active, failure_reason=failure_reason, now_s=now_s
            )
        )

    async def set_active(self, scope: Scope, name: str, *, active: Active) -> None:
        """Raises NotFound."""
        await self._write(lambda c: endpoints.set_active(c, scope, name, active=active))

    async def remove_endpoint(self, scope: Scope, name: str, *, generation: int) -> None:
        """Raises Conflict, NotFound."""
        await self._write(lambda c: endpoints.remove(c, scope, name, generation=generation))

    # instances ---------------------------------------------------------------------------------------------------
    async def put_instance_intent(self, record: InstanceRecord) -> None:
        """Raises AlreadyExists."""
        await self._write(lambda c: instances.put_intent(c, record))

    async def set_instance(self, instance_id: InstanceId, *, phase: Phase, handle: Handle | None) -> None:
        """Raises NotFound."""
        await self._write(lambda c: instances.set_phase(c, instance_id, phase=phase, handle=handle))

    async def remove_instance(self, instance_id: InstanceId) -> None:
        """Idempotent."""
        await self._write(lambda c: instances.remove(c, instance_id))

    async def all_instances(self) -> Sequence[InstanceRecord]:
        """Oldest first."""
        return await self._read(instances.every)

    # tags --------------------------------------------------------------------------------------------------------
    async def get_tags(self, arn: Arn) -> Mapping[str, str] | None:
        """In key order."""
        return await self._read(lambda c: tag_statements.get(c, arn))

    async def put_tags(self, arn: Arn, tags: Sequence[Tag], *, limit: int) -> Mapping[str, str]:
        """Raises NotFound, Conflict."""
        return await self._write(lambda c: tag_statements.put(c, arn, tags, limit=limit))

    async def remove_tags(self, arn: Arn, keys: Sequence[str]) -> None:
        """Raises NotFound."""
        await self._write(lambda c: tag_statements.remove(c, arn, keys))
