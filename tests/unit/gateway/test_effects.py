"""The test-only switch touches nothing but the member it names; that it takes it away is what `make test-effects` shows."""

import pytest

from mooring.gateway import effects
from mooring.gateway.invocation import Invocation


@pytest.mark.parametrize("dropped", [None, "", "CreateModel.ModelName", "InvokeEndpointAsync.Accept"])
def test_without_a_member_of_invoke_endpoint_invocations_are_plain(dropped: str | None) -> None:
    assert effects.without(dropped) is Invocation


@pytest.mark.parametrize("dropped", ["InvokeEndpoint", "InvokeEndpoint.TargetModel", "InvokeEndpoint.body"])
def test_a_member_that_never_reaches_a_model_is_not_dropped_in_silence(dropped: str) -> None:
    with pytest.raises(ValueError, match="no effect"):
        effects.without(dropped)
