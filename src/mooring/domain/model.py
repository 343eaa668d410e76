"""Models: immutable descriptions of containers. → hosting.md section 1.10."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mooring.domain import ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One ContainerDefinition as far as this version takes it. `hostname` is as given (PrimaryContainer: ignored)."""

    image: str
    model_data_url: str | None = None  # s3://bucket/key.tar.gz
    environment: Mapping[str, str] = field(default_factory=dict)
    hostname: str | None = None
    mode: str = "SingleModel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A stored model. `containers` has one member in this version; `is_primary` tells which request member held it."""

    scope: ids.Scope
    name: ids.ModelName
    created_at_s: float  # epoch
    containers: tuple[Container, ...]
    is_primary: bool = True
    execution_role_arn: str | None = None

    @property
    def arn(self) -> ids.Arn:
        """The model's ARN."""
        return ids.sagemaker_arn(self.scope, "model", self.name)
