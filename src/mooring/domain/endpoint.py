"""Endpoints: what is wanted (control writes), what is (reconcile writes), and the status that follows from both.

    control                                   reconcile
    Create/Update/Weights: desired, gen+1     observed_generation := gen, with outcome Active | failure_reason
    Delete: deleting = True, gen+1            row removed when nothing of it is left

The status a caller sees is *derived* (`status_of`), so that no two writers share it:

    deleting                          → Deleting
    generation > observed_generation  → Creating (never was active) | Updating
    otherwise                         → InService (active) | Failed (not active)

A deployment is a snapshot of config and models taken when it was asked for: deleting either later changes nothing.
A failed update leaves `active` on the old deployment with `failure_reason` set (hosting.md section 6.4).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mooring.domain import ids
from mooring.domain.endpoint_config import ProductionVariant
from mooring.domain.model import Model


class EndpointStatus(StrEnum):
    """EndpointStatus values of the API that this version can produce."""

    CREATING = "Creating"
    UPDATING = "Updating"
    IN_SERVICE = "InService"
    FAILED = "Failed"
    DELETING = "Deleting"


class Change(StrEnum):
    """What the newest generation asked for."""

    CREATE = "create"
    UPDATE = "update"
    WEIGHTS = "weights"  # UpdateEndpointWeightsAndCapacities: same deployment, other weights or counts


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointKey:
    """Which endpoint: what wake-ups and work queues carry."""

    scope: ids.Scope
    name: ids.EndpointName


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One variant of a deployment: the configured variant, its model's snapshot, wanted weight and count."""

    config: ProductionVariant
    model: Model
    desired_weight: float
    desired_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A whole fleet that can serve the endpoint. `id` is random and new for every Create and Update; a weights change
    keeps it, so that its pools stay.
    """

    id: ids.DeploymentId
    config_name: ids.EndpointConfigName
    variants: tuple[Variant, ...]

    def pool_id(self, variant: ids.VariantName) -> ids.PoolId:
        """Name of the pool behind a variant of this deployment."""
        return ids.PoolId(f"{self.id}.{variant}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedImage:
    """DeployedImages[] of DescribeEndpoint."""

    specified_image: str
    resolved_image: str
    resolved_at_s: float  # epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """What takes traffic now: the deployment (with the weights and counts in force) and what was measured of it."""

    deployment: Deployment
    current_counts: Mapping[str, int] = field(default_factory=dict)  # variant name → healthy instances
    images: Mapping[str, tuple[DeployedImage, ...]] = field(default_factory=dict)  # by variant name


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A stored endpoint."""

    scope: ids.Scope
    name: ids.EndpointName
    created_at_s: float  # epoch
    modified_at_s: float  # epoch
    # desired: written by control alone
    generation: int
    change: Change
    desired: Deployment
    deleting: bool = False
    # observed: written by reconcile alone
    observed_generation: int = 0
    active: Active | None = None
    failure_reason: str | None = None

    @property
    def key(self) -> EndpointKey:
        """The endpoint's key."""
        return EndpointKey(scope=self.scope, name=self.name)

    @property
    def arn(self) -> ids.Arn:
        """The endpoint's ARN."""
        return ids.sagemaker_arn(self.scope, "endpoint", self.name)


def status_of(endpoint: Endpoint) -> EndpointStatus:
    """The status that DescribeEndpoint and ListEndpoints show."""
    if endpoint.deleting:
        return EndpointStatus.DELETING
    if endpoint.generation > endpoint.observed_generation:
        return EndpointStatus.CREATING if endpoint.change is Change.CREATE else EndpointStatus.UPDATING
    return EndpointStatus.FAILED if endpoint.active is None else EndpointStatus.IN_SERVICE


def is_busy(endpoint: Endpoint) -> bool:
    """Whether updates are refused with `Cannot update in-progress endpoint`."""
    return endpoint.deleting or endpoint.generation > endpoint.observed_generation
