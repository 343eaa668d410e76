"""Test-only: invocations that lack one member once they are read and proved, as if the server ignored it.

`make test-effects` runs each test that shows a member's effect with that member dropped; the test must then fail. It makes
no difference whether a request was parsed or known by its form. Called by gateway.server, for a worker that was started with
the switch; other workers make plain invocations. Must not know what a member is for.
"""

from typing import Any

from mooring import contract
from mooring.gateway.invocation import Invocation

_OPERATION = "InvokeEndpoint"
_FORWARDED = {
    "ContentType": b"Content-Type",
    "Accept": b"Accept",
    "CustomAttributes": contract.HEADER_CUSTOM_ATTRIBUTES.encode(),
    "InferenceId": contract.HEADER_INFERENCE_ID.encode(),
}


def without(dropped: str | None) -> type[Invocation]:
    """What to make of requests when `dropped` (Operation.Member) is to be ignored. Raises ValueError for a member that
    never gets as far as a model.
    """
    operation, _, member = (dropped or "").partition(".")
    if operation != _OPERATION:
        return Invocation
    if member == "Body":
        return _Bodiless
    if member in _FORWARDED:
        return _without_line(_FORWARDED[member] + b": ")
    if member == "EndpointName":
        return _with(endpoint_name="")
    if member == "TargetVariant":
        return _with(target_variant=None)
    raise ValueError(f"{dropped} has no effect that could be taken away")


class _Bodiless(Invocation):
    def _dispatch(self) -> None:
        self._parts, self._size = [], 0
        super()._dispatch()


def _without_line(start: bytes) -> type[Invocation]:
    class Lineless(Invocation):
        def _dispatch(self) -> None:
            lines = self._forwarded.split(b"\r\n")
            self._forwarded = b"\r\n".join([line for line in lines if not line.startswith(start)])
            super()._dispatch()

    return Lineless


def _with(**instead: Any) -> type[Invocation]:
    class Blanked(Invocation):
        def _dispatch(self) -> None:
            assert self._members is not None
            self._members = self._members._replace(**instead)
            super()._dispatch()

    return Blanked
