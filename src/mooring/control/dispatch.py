"""Operation name → handler of the `sagemaker` service, checked at start against what the model offers.

Each handler refuses first what its operation does not take yet (`members`), so that nothing is accepted and ignored.
Called by `app`, which registers the result with `api`.
"""

from collections.abc import Iterator, Mapping

from mooring.control.context import Context
from mooring.control.endpoint_configs import EndpointConfigs
from mooring.control.endpoints import Endpoints
from mooring.control.members import SUPPORTED, VALUES
from mooring.control.models import Models
from mooring.control.tags import Tags
from mooring.domain.call import Caller, Handler, Params
from mooring.domain.errors import ValidationException
from mooring.protocol import model, support


def handlers(context: Context) -> Mapping[str, Handler]:
    """One for each operation offered. Raises RuntimeError when model, handlers and members table disagree."""
    models, configs, endpoints, tags = Models(context), EndpointConfigs(context), Endpoints(context), Tags(context)
    table: dict[str, Handler] = {
        "CreateModel": models.create,
        "DescribeModel": models.describe,
        "ListModels": models.list,
        "DeleteModel": models.delete,
        "CreateEndpointConfig": configs.create,
        "DescribeEndpointConfig": configs.describe,
        "ListEndpointConfigs": configs.list,
        "DeleteEndpointConfig": configs.delete,
        "CreateEndpoint": endpoints.create,
        "DescribeEndpoint": endpoints.describe,
        "ListEndpoints": endpoints.list,
        "UpdateEndpoint": endpoints.update,
        "UpdateEndpointWeightsAndCapacities": endpoints.update_weights_and_capacities,
        "DeleteEndpoint": endpoints.delete,
        "AddTags": tags.add,
        "ListTags": tags.list,
        "DeleteTags": tags.delete,
    }
    offered = model.load("sagemaker").offered
    if not table.keys() == offered == SUPPORTED.keys():
        odd = sorted((table.keys() | offered | SUPPORTED.keys()) - (table.keys() & offered & SUPPORTED.keys()))
        raise RuntimeError(f"operations without handler, model or members table: {', '.join(odd)}")
    return {name: _guarded(name, handler) for name, handler in table.items()}


def _guarded(operation: str, handler: Handler) -> Handler:
    paths = frozenset(path.replace("[]", "") for path in SUPPORTED[operation])
    values = {path.replace("[]", ""): taken for path, taken in VALUES.get(operation, {}).items()}

    async def handle(caller: Caller, params: Params) -> Params:
        support.refuse_unsupported(operation, params, paths)
        for path, taken in values.items():
            for value in _values_at(params, path.split(".")):
                if value not in taken:
                    only = ", ".join(sorted(map(str, taken)))
                    raise ValidationException(
                        f"The value '{value}' of member '{path}' of {operation} is not supported by this server "
                        f"(only: {only}): see {support.DOCS}#{operation.lower()}."
                    )
        return await handler(caller, params)

    return handle


def _values_at(params: Params, path: list[str]) -> Iterator[object]:
    """Every value of a member path, through the elements of lists."""
    if path[0] not in params:
        return
    found = params[path[0]]
    for item in found if isinstance(found, list) else [found]:
        if len(path) == 1:
            yield item
        else:
            yield from _values_at(item, path[1:])
