"""A call of the control plane, after authentication and parsing: who calls, what a handler is.

`control`, `telemetry` and `identity` write handlers; `api` finds them by `Registration`s that `app` collects. Handlers know
no HTTP: they get validated members and return members (unset ones left out), or raise `domain.errors.ServiceError`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mooring.domain.ids import Scope

# Members by their API names. `Any` because botocore's model, not the type checker, has checked them.
Params = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls. `arn` is the identity GetCallerIdentity shows."""

    scope: Scope
    access_key: str
    arn: str
    request_id: str


Handler = Callable[[Caller, Params], Awaitable[Params]]
