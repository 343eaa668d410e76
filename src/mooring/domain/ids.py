"""Names, ARNs and scopes. An ARN's name part is lower-cased while names keep their case (hosting.md section 10.6)."""

from dataclasses import dataclass
from typing import NewType

ModelName = NewType("ModelName", str)
EndpointConfigName = NewType("EndpointConfigName", str)
EndpointName = NewType("EndpointName", str)
VariantName = NewType("VariantName", str)
Arn = NewType("Arn", str)
PoolId = NewType("PoolId", str)
InstanceId = NewType("InstanceId", str)
DeploymentId = NewType("DeploymentId", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What every resource is keyed by."""

    account: str  # 12 digits
    region: str  # e.g. us-east-1


def partition_of(region: str) -> str:
    """Return the ARN partition of a region: aws, aws-cn, aws-us-gov, aws-iso…"""
    for prefix, partition in (
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-isob-", "aws-iso-b"),
        ("us-isof-", "aws-iso-f"),
        ("us-iso-", "aws-iso"),
    ):
        if region.startswith(prefix):
            return partition
    return "aws"


def sagemaker_arn(scope: Scope, kind: str, name: str) -> Arn:
    """`kind`: model, endpoint-config, endpoint, …; the name is lower-cased as AWS does."""
    return Arn(f"arn:{partition_of(scope.region)}:sagemaker:{scope.region}:{scope.account}:{kind}/{name.lower()}")


def endpoint_log_group(name: str) -> str:
    """CloudWatch log group of an endpoint."""
    return f"/aws/sagemaker/Endpoints/{name}"


def log_group_arn(scope: Scope, group: str) -> Arn:
    """ARN of a log group; what ModelError carries as LogStreamArn."""
    return Arn(f"arn:{partition_of(scope.region)}:logs:{scope.region}:{scope.account}:log-group:{group}")
