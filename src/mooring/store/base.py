"""The state of record as its users see it. Implementations: store.sqlite (now), PostgreSQL (a later issue).

Every method is atomic. A write is durable (fsync'd) when it returns. Writers of one fact: `control` calls the methods
under "desired", `reconcile` those under "observed"; nobody else calls either. Reads see every write that returned.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from mooring.domain.endpoint import Active, Change, Deployment, Endpoint
from mooring.domain.endpoint_config import EndpointConfig
from mooring.domain.ids import Arn, InstanceId, Scope
from mooring.domain.instance import Handle, InstanceRecord, Phase
from mooring.domain.listing import ListQuery, Page
from mooring.domain.model import Model
from mooring.domain.tags import Tag


class StoreError(Exception):
    """The store failed. `retryable`: the same call may work later."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class AlreadyExists(Exception):
    """A row of that key is there already."""


class NotFound(Exception):
    """No row of that key."""


class Conflict(Exception):
    """Compare-and-set lost: the row's generation is not the expected one."""


class Store(Protocol):
    """See the module. Names are matched exactly; endpoint names are unique regardless of letter case."""

    async def start(self) -> None:
        """Open, migrate. Raises StoreError when the schema is newer than this program."""

    async def aclose(self) -> None:
        """Finish queued writes, close."""

    # models, endpoint configs (desired) -------------------------------------------------------------------------
    async def create_model(self, model: Model, tags: Sequence[Tag]) -> None: ...
    async def get_model(self, scope: Scope, name: str) -> Model | None: ...
    async def delete_model(self, scope: Scope, name: str) -> None:
        """Raises NotFound. Tags go with it."""

    async def list_models(self, scope: Scope, query: ListQuery) -> Page[Model]: ...

    async def create_endpoint_config(self, config: EndpointConfig, tags: Sequence[Tag]) -> None: ...
    async def get_endpoint_config(self, scope: Scope, name: str) -> EndpointConfig | None: ...
    async def delete_endpoint_config(self, scope: Scope, name: str) -> None: ...
    async def list_endpoint_configs(self, scope: Scope, query: ListQuery) -> Page[EndpointConfig]: ...

    # endpoints, desired ------------------------------------------------------------------------------------------
    async def create_endpoint(self, endpoint: Endpoint, tags: Sequence[Tag]) -> None: ...
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
        """generation := expected + 1, clears failure_reason of the last change. Raises Conflict, NotFound."""

    async def set_deleting(self, scope: Scope, name: str, *, expected_generation: int, now_s: float) -> Endpoint:
        """Mark for deletion, generation + 1. Raises Conflict, NotFound."""

    async def get_endpoint(self, scope: Scope, name: str) -> Endpoint | None: ...
    async def list_endpoints(self, scope: Scope, query: ListQuery) -> Page[Endpoint]: ...

    # endpoints, observed -----------------------------------------------------------------------------------------
    async def all_endpoints(self) -> Sequence[Endpoint]:
        """Every endpoint of every scope; for start and periodic resync."""

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
        """Record the outcome of `generation` (observed_generation := generation) and what serves now. `now_s` also moves
        LastModifiedTime. Raises Conflict when the row's generation has moved on, NotFound.
        """

    async def set_active(self, scope: Scope, name: str, *, active: Active) -> None:
        """Update what serves now (counts, images) without concluding a generation. Raises NotFound."""

    async def remove_endpoint(self, scope: Scope, name: str, *, generation: int) -> None:
        """Delete the row of an endpoint marked deleting at `generation`, with its tags. Raises Conflict, NotFound."""

    # instances (observed) ----------------------------------------------------------------------------------------
    async def put_instance_intent(self, record: InstanceRecord) -> None:
        """Before anything is started."""

    async def set_instance(self, instance_id: InstanceId, *, phase: Phase, handle: Handle | None) -> None: ...
    async def remove_instance(self, instance_id: InstanceId) -> None:
        """Idempotent."""

    async def all_instances(self) -> Sequence[InstanceRecord]: ...

    # tags (desired) ----------------------------------------------------------------------------------------------
    async def get_tags(self, arn: Arn) -> Mapping[str, str] | None:
        """Tags of a resource by its lower-case ARN, in key order; None when no such resource exists."""

    async def put_tags(self, arn: Arn, tags: Sequence[Tag], *, limit: int) -> Mapping[str, str]:
        """Overwrite equal keys, return all. Raises NotFound, or Conflict when more than `limit` would stand."""

    async def remove_tags(self, arn: Arn, keys: Sequence[str]) -> None:
        """Absent keys are ignored. Raises NotFound."""
