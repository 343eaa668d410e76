"""The seam between the API and whoever answers: a service's handlers, matched with its model at start.

app:  build_app(registrations=[Registration("sagemaker", dispatch.handlers(context)), Registration("logs", …), …])
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mooring.domain.call import Handler
from mooring.domain.errors import UnknownOperationException
from mooring.protocol import model, parse
from mooring.protocol.model import Operation


@dataclass(frozen=True, slots=True)
class Registration:
    """`service` is botocore's name; its model says protocol, target prefix and signing name."""

    service: str
    handlers: Mapping[str, Handler]


class ServedService:
    """A registered service with its model."""

    def __init__(self, registration: Registration) -> None:
        self.model = model.load(registration.service)
        self._handlers = registration.handlers
        odd = self.model.offered.symmetric_difference(registration.handlers)
        if odd:
            raise RuntimeError(f"{registration.service}: handlers and model disagree about {', '.join(sorted(odd))}")

    @property
    def protocol(self) -> str:
        """`json` or `query`."""
        return self.model.protocol

    def operation(self, target: str, body: bytes) -> Operation:
        """What a request asks for: `target` is its X-Amz-Target header. Raises UnknownOperationException."""
        if self.protocol == "query":
            action = parse.action_of(body)
            if action is None:
                raise UnknownOperationException("The request names no Action.")
            return self.model.operation(action)
        prefix, dot, name = target.rpartition(".")
        if not dot or prefix != self.model.target_prefix:
            shown = f"'{target[:128]}' is not one of them" if target else "the request has none"
            raise UnknownOperationException(
                f"Operations of {self.model.name} are named by X-Amz-Target: {self.model.target_prefix}.<Operation>; "
                f"{shown}."
            )
        return self.model.operation(name)

    def handler(self, operation: Operation) -> Handler:
        """The handler of an operation."""
        return self._handlers[operation.name]


def by_signing_name(registrations: Iterable[Registration]) -> Mapping[str, ServedService]:
    """Services by the name in the signature's scope. Raises RuntimeError when two share one."""
    table: dict[str, ServedService] = {}
    for registration in registrations:
        served = ServedService(registration)
        if served.model.signing_name in table:
            raise RuntimeError(f"two services sign as {served.model.signing_name}")
        table[served.model.signing_name] = served
    return table
