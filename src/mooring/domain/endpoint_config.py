"""Endpoint configurations: immutable lists of production variants. → hosting.md section 6.1."""

from dataclasses import dataclass

from mooring.domain import ids


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductionVariant:
    """One variant as configured. `weight` ≥ 0, `instance_count` ≥ 1. Time-outs in seconds, None = server default."""

    name: ids.VariantName
    model_name: ids.ModelName
    instance_type: str
    instance_count: int = 1
    weight: float = 1.0
    startup_timeout_s: int | None = None  # ContainerStartupHealthCheckTimeoutInSeconds
    download_timeout_s: int | None = None  # ModelDataDownloadTimeoutInSeconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """A stored endpoint configuration."""

    scope: ids.Scope
    name: ids.EndpointConfigName
    created_at_s: float  # epoch
    variants: tuple[ProductionVariant, ...]

    @property
    def arn(self) -> ids.Arn:
        """The configuration's ARN."""
        return ids.sagemaker_arn(self.scope, "endpoint-config", self.name)
