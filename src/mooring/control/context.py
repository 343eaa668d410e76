"""What every operation service is given: the store, and Protocols for what control must not do itself. Filled by `app`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from mooring.control.tokens import Tokens
from mooring.domain.endpoint import EndpointKey
from mooring.kit.clock import Clock
from mooring.store.base import Store

Existence = Literal["yes", "no", "denied"]


class Artifacts(Protocol):
    """Read-only look at object storage: is there model data?"""

    async def exists(self, uri: str) -> Existence:
        """`uri` is s3://bucket/key."""


class InstanceTypes(Protocol):
    """The instance type table."""

    def known(self, instance_type: str) -> bool:
        """Whether this server can say what vCPU and memory the type has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Shared by the services. `wake` hints the reconciler that an endpoint's wish changed; losing a hint only delays.
    `new_deployment_id` gives a fresh random id on each call.
    """

    store: Store
    clock: Clock
    artifacts: Artifacts
    instance_types: InstanceTypes
    wake: Callable[[EndpointKey], None]
    tokens: Tokens
    new_deployment_id: Callable[[], str]

    def now_s(self) -> float:
        """Epoch seconds to the millisecond: what the wire shows, so that a time read back filters as expected."""
        return round(self.clock.now_s(), 3)
