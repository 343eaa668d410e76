"""Which members of each operation's request this version takes, and with which values. Data; read by `dispatch` (anything
else is refused by name) and by scripts/generate_coverage.py.

Paths are as in docs/coverage.md: `[]` for the elements of a list; a map is one path. A member is listed when it does what
AWS says it does; one that is missing here is refused, never accepted and ignored.
"""

from collections.abc import Mapping

_TAGS = ("Tags", "Tags[].Key", "Tags[].Value")
_LIST = ("SortBy", "SortOrder", "NextToken", "MaxResults", "NameContains", "CreationTimeBefore", "CreationTimeAfter")


def _under(prefix: str, *names: str) -> tuple[str, ...]:
    return (prefix.removesuffix("[]"), *(f"{prefix}.{name}" for name in names))


# A ContainerHostname has no effect on a PrimaryContainer, as AWS documents; in Containers it comes with pipelines.
_CONTAINER = ("Image", "Mode", "ModelDataUrl", "Environment")

SUPPORTED: Mapping[str, frozenset[str]] = {
    operation: frozenset(paths)
    for operation, paths in {
        "CreateModel": (
            "ModelName",
            *_under("PrimaryContainer", "ContainerHostname", *_CONTAINER),
            *_under("Containers[]", *_CONTAINER),
            "ExecutionRoleArn",
            "EnableNetworkIsolation",
            *_TAGS,
        ),
        "DescribeModel": ("ModelName",),
        "ListModels": _LIST,
        "DeleteModel": ("ModelName",),
        "CreateEndpointConfig": (
            "EndpointConfigName",
            *_under(
                "ProductionVariants[]",
                "VariantName",
                "ModelName",
                "InitialInstanceCount",
                "InstanceType",
                "InitialVariantWeight",
                "ModelDataDownloadTimeoutInSeconds",
                "ContainerStartupHealthCheckTimeoutInSeconds",
            ),
            *_TAGS,
        ),
        "DescribeEndpointConfig": ("EndpointConfigName",),
        "ListEndpointConfigs": _LIST,
        "DeleteEndpointConfig": ("EndpointConfigName",),
        "CreateEndpoint": ("EndpointName", "EndpointConfigName", *_TAGS),
        "DescribeEndpoint": ("EndpointName",),
        "ListEndpoints": (*_LIST, "LastModifiedTimeBefore", "LastModifiedTimeAfter", "StatusEquals"),
        "UpdateEndpoint": ("EndpointName", "EndpointConfigName"),
        "UpdateEndpointWeightsAndCapacities": (
            "EndpointName",
            *_under("DesiredWeightsAndCapacities[]", "VariantName", "DesiredWeight", "DesiredInstanceCount"),
        ),
        "DeleteEndpoint": ("EndpointName",),
        "AddTags": ("ResourceArn", *_TAGS),
        "ListTags": ("ResourceArn", "NextToken", "MaxResults"),
        "DeleteTags": ("ResourceArn", "TagKeys"),
    }.items()
}

# Members taken with these values alone; any other is refused, naming the member and the value.
VALUES: Mapping[str, Mapping[str, frozenset[object]]] = {
    "CreateModel": {
        "PrimaryContainer.Mode": frozenset({"SingleModel"}),
        "Containers[].Mode": frozenset({"SingleModel"}),
        "EnableNetworkIsolation": frozenset({False}),
    },
}
