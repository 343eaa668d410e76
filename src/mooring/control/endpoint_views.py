"""What DescribeEndpoint and ListEndpoints show of an endpoint. Pure; what is unset is left out (clients.md)."""

from collections.abc import Mapping

from mooring.domain.call import Params
from mooring.domain.endpoint import Active, Change, Endpoint, EndpointStatus, Variant, is_busy, status_of

_MAX_REASON = 1024


def summary_of(endpoint: Endpoint) -> Params:
    """A row of ListEndpoints."""
    return {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "CreationTime": endpoint.created_at_s,
        "LastModifiedTime": endpoint.modified_at_s,
        "EndpointStatus": status_of(endpoint).value,
    }


def description_of(endpoint: Endpoint) -> Params:
    """DescribeEndpoint's answer. The config is the one that serves; until one does, the one that is wanted."""
    answer = summary_of(endpoint)
    if endpoint.active is None:
        answer["EndpointConfigName"] = endpoint.desired.config_name
    else:
        answer["EndpointConfigName"] = endpoint.active.deployment.config_name
        answer["ProductionVariants"] = _serving_variants(endpoint, endpoint.active)
    if endpoint.failure_reason:
        answer["FailureReason"] = endpoint.failure_reason[:_MAX_REASON]
    if _is_deploying(endpoint):
        answer["PendingDeploymentSummary"] = _pending(endpoint)
    return answer


def _is_deploying(endpoint: Endpoint) -> bool:
    return (
        status_of(endpoint) in (EndpointStatus.CREATING, EndpointStatus.UPDATING)
        and endpoint.change is not Change.WEIGHTS
    )


def _serving_variants(endpoint: Endpoint, active: Active) -> list[Params]:
    wanted = {variant.config.name: variant for variant in _wanted(endpoint, active)}
    return [
        {
            "VariantName": variant.config.name,
            **_images(active, variant.config.name),
            "CurrentWeight": variant.desired_weight,  # of what is active: the weight in force
            "DesiredWeight": wanted[variant.config.name].desired_weight,
            "CurrentInstanceCount": active.current_counts.get(variant.config.name, 0),
            "DesiredInstanceCount": wanted[variant.config.name].desired_count,
        }
        for variant in active.deployment.variants
    ]


def _wanted(endpoint: Endpoint, active: Active) -> tuple[Variant, ...]:
    """The newest wish for the serving deployment, while a change of weights is under way; else what is in force."""
    changing = endpoint.change is Change.WEIGHTS and is_busy(endpoint) and not endpoint.deleting
    return endpoint.desired.variants if changing else active.deployment.variants


def _images(active: Active, variant: str) -> Mapping[str, object]:
    images = active.images.get(variant, ())
    if not images:
        return {}
    return {
        "DeployedImages": [
            {
                "SpecifiedImage": image.specified_image,
                "ResolvedImage": image.resolved_image,
                "ResolutionTime": image.resolved_at_s,
            }
            for image in images
        ]
    }


def _pending(endpoint: Endpoint) -> Params:
    """What is being deployed. Nothing but the wish moves LastModifiedTime meanwhile: it is when the deployment began."""
    return {
        "EndpointConfigName": endpoint.desired.config_name,
        "ProductionVariants": [
            {
                "VariantName": variant.config.name,
                "DesiredWeight": variant.desired_weight,
                "DesiredInstanceCount": variant.desired_count,
                "InstanceType": variant.config.instance_type,
            }
            for variant in endpoint.desired.variants
        ],
        "StartTime": endpoint.modified_at_s,
    }
