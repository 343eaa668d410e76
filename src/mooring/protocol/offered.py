"""The operations that this server answers today, by service. One list: the API's table, the generated types and the docs
all follow it. Operations that AWS has and this list has not are refused by name.
"""

from collections.abc import Mapping

OFFERED: Mapping[str, tuple[str, ...]] = {
    "sagemaker": (
        "AddTags",
        "CreateEndpoint",
        "CreateEndpointConfig",
        "CreateModel",
        "DeleteEndpoint",
        "DeleteEndpointConfig",
        "DeleteModel",
        "DeleteTags",
        "DescribeEndpoint",
        "DescribeEndpointConfig",
        "DescribeModel",
        "ListEndpointConfigs",
        "ListEndpoints",
        "ListModels",
        "ListTags",
        "UpdateEndpoint",
        "UpdateEndpointWeightsAndCapacities",
    ),
    "logs": (
        "DescribeLogGroups",
        "DescribeLogStreams",
        "FilterLogEvents",
        "GetLogEvents",
    ),
    "sts": ("GetCallerIdentity",),
    "iam": ("GetRole",),
}
