"""AWS's service models as botocore ships them, read once into typed shapes.

Called by `parse`, `validate`, `serialize` and the API. The only reader of botocore's data in the product, and only through
its loader: bundled files alone, never a user's `~/.aws/models`. Shapes are built when an operation is first asked for.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import botocore
from botocore.loaders import Loader

from mooring.domain import errors
from mooring.protocol.offered import OFFERED

Kind = Literal[
    "structure", "list", "map", "string", "integer", "long", "float", "double", "boolean", "timestamp", "blob"
]
DOCS = "docs/coverage.md"

# Target prefixes of the JSON services, so that a request finds its model without loading them all.
_SERVICE_OF_TARGET: Mapping[str, str] = {"SageMaker": "sagemaker", "Logs_20140328": "logs"}


@dataclass(slots=True, eq=False)
class Shape:
    """A node of the model. Filled in two steps, because shapes may contain themselves; read-only afterwards."""

    name: str
    kind: Kind
    min: float | None = None
    max: float | None = None
    pattern: str | None = None
    enum: tuple[str, ...] = ()
    sensitive: bool = False
    timestamp_format: str | None = None
    flattened: bool = False
    members: dict[str, "Member"] = field(default_factory=dict)  # of a structure, in the model's order
    element: "Member | None" = None  # of a list; the values of a map
    key: "Member | None" = None  # of a map

    def inner(self) -> "Member":
        """Element of a list, value of a map."""
        assert self.element is not None, f"{self.name} is neither list nor map"
        return self.element

    def map_key(self) -> "Member":
        """Key of a map."""
        assert self.key is not None, f"{self.name} is not a map"
        return self.key


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """A use of a shape. `wire` is its name in XML and query strings."""

    shape: Shape
    wire: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """One operation. `input` is a structure, empty where AWS models none; `output` is None where nothing is answered."""

    service: str
    name: str
    protocol: str
    uri: str
    namespace: str
    input: Shape
    output: Shape | None
    result_wrapper: str | None = None


class Service:
    """One service: its operations that are offered, and the names of the others."""

    def __init__(self, name: str, model: Mapping[str, Any]) -> None:
        metadata = model["metadata"]
        self.name = name
        self.protocol: str = metadata["protocol"]
        self.target_prefix: str = metadata.get("targetPrefix", "")
        self.signing_name: str = metadata.get("signingName", metadata["endpointPrefix"])
        self.namespace: str = metadata.get("xmlNamespace", "")
        self.version: str = metadata["apiVersion"]
        self.offered = frozenset(OFFERED.get(name, ()))
        self._model = model
        self._shapes: dict[str, Shape] = {}
        self._operations: dict[str, Operation] = {}

    @property
    def modelled(self) -> frozenset[str]:
        """Names of all operations that AWS has."""
        return frozenset(self._model["operations"])

    def operation(self, name: str) -> Operation:
        """An offered operation. Raises UnknownOperationException that says whether AWS has it."""
        if name not in self.offered:
            raise self._unknown(name)
        if name not in self._operations:
            self._operations[name] = self._build(name)
        return self._operations[name]

    def _unknown(self, name: str) -> errors.UnknownOperationException:
        if name in self._model["operations"]:
            return errors.UnknownOperationException(
                f"The operation {name} of {self.name} is not offered by this server: see {DOCS}#{name.lower()}."
            )
        if self.protocol == "query":
            return errors.UnknownOperationException(f"Could not find operation {name[:128]} for version {self.version}")
        return errors.UnknownOperationException(f"The operation {name[:128]} does not exist in {self.name}.")

    def _build(self, name: str) -> Operation:
        model = self._model["operations"][name]
        given, answered = model.get("input"), model.get("output")
        return Operation(
            service=self.name,
            name=name,
            protocol=self.protocol,
            uri=model["http"]["requestUri"],
            namespace=self.namespace,
            input=self._shape(given["shape"]) if given else Shape(f"{name}Request", "structure"),
            output=self._shape(answered["shape"]) if answered else None,
            result_wrapper=answered.get("resultWrapper") if answered else None,
        )

    def _shape(self, name: str) -> Shape:
        if name in self._shapes:
            return self._shapes[name]
        model = self._model["shapes"][name]
        shape = Shape(
            name=name,
            kind=_kind(model["type"]),
            min=model.get("min"),
            max=model.get("max"),
            pattern=model.get("pattern"),
            enum=tuple(model.get("enum", ())),
            sensitive=bool(model.get("sensitive")),
            timestamp_format=model.get("timestampFormat"),
            flattened=bool(model.get("flattened")),
        )
        self._shapes[name] = shape  # before its members: a shape may contain itself
        if shape.kind == "structure":
            required = frozenset(model.get("required", ()))
            for member, use in model["members"].items():
                shape.members[member] = self._member(use, member, required=member in required)
        elif shape.kind == "list":
            shape.element = self._member(model["member"], "member")
        elif shape.kind == "map":
            shape.key = self._member(model["key"], "key")
            shape.element = self._member(model["value"], "value")
        return shape

    def _member(self, use: Mapping[str, Any], name: str, *, required: bool = False) -> Member:
        return Member(shape=self._shape(use["shape"]), wire=use.get("locationName", name), required=required)


def _kind(name: str) -> Kind:
    match name:
        case "structure" | "list" | "map" | "string" | "integer" | "long" | "float":
            return name
        case "double" | "boolean" | "timestamp" | "blob":
            return name
        case "character":
            return "string"
        case _:
            raise ValueError(f"a type that no known model has: {name}")


@cache
def load(service: str) -> Service:
    """The model of `service`, by botocore's name for it. Raises KeyError for a service that is not offered."""
    if service not in OFFERED:
        raise KeyError(service)
    data = os.path.join(os.path.dirname(botocore.__file__), "data")
    loader = Loader(extra_search_paths=[data], include_default_search_paths=False)
    return Service(service, loader.load_service_model(service, "service-2"))


def operation_of_target(target: str) -> Operation:
    """The operation that an X-Amz-Target header names, e.g. `SageMaker.CreateModel`. Raises UnknownOperationException."""
    prefix, dot, name = target.rpartition(".")
    service = _SERVICE_OF_TARGET.get(prefix)
    if not dot or service is None:
        raise errors.UnknownOperationException(f"No service of this server takes the target '{target[:128]}'.")
    return load(service).operation(name)
