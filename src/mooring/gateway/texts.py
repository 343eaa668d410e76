"""What a failed invocation says: the texts of hosting.md sections 5.4 and 5.5, as errors of the domain. Pure.

Called by gateway.invocation. `{see}` is where the logs are: AWS shows its console there, we the log group, which
CloudWatch Logs' operations read here too.
"""

from mooring.domain import errors
from mooring.protocol import runtime

MAX_TEXT_CHARS = 2048

_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container {container}. Review the latency metrics "
    "for each container in Amazon CloudWatch, resolve the issue, and try again."
)
_NO_ANSWER = (
    "Amazon SageMaker could not get a response from the {endpoint} endpoint. This can occur when CPU or memory "
    "utilization is high. To check your utilization, see Amazon CloudWatch. To fix this problem, use an instance type "
    "with more CPU capacity or memory."
)
_NOT_A_COMPONENT = (
    "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy inference "
    "components. Please remove the Inference Component Name header and try again."
)


def see(log_group: str, account: str) -> str:
    """The tail of a ModelError's message."""
    return f"See log group {log_group} in account {account} for more information."


def endpoint_not_found(name: str, account: str) -> errors.ValidationError:
    """Unknown, deleted, of another account or spelled in another case."""
    return errors.ValidationError(f"Endpoint {name} of account {account} not found.")


def variant_not_found(variant: str, name: str, account: str) -> errors.ValidationError:
    """TargetVariant names none of the endpoint's."""
    return errors.ValidationError(f"Variant {variant} not found for endpoint {name} of account {account}.")


def no_traffic(name: str, account: str) -> errors.ValidationError:
    """Every weight is zero and no variant was named."""
    return errors.ValidationError(
        f"No variant of endpoint {name} of account {account} has a weight above zero; name one by TargetVariant."
    )


def unavailable(name: str) -> errors.ServiceUnavailable:
    """Nothing ran."""
    return errors.ServiceUnavailable(f"No instance of endpoint {name} could take the request. Try again.")


def busy() -> errors.ServiceUnavailable:
    """Over a bound of ours; nothing ran."""
    return errors.ServiceUnavailable("The server holds too many requests already. Try again.")


def not_offered(operation: str) -> errors.ValidationError:
    """An operation of sagemaker-runtime that is not there yet."""
    return errors.ValidationError(f"{operation} is not offered by this server yet.")


def refused_member(invocation: runtime.Invocation) -> errors.ValidationError | None:
    """The first member that an endpoint of plain models does not take; a member is never accepted and ignored."""
    if invocation.target_model is not None:
        return errors.ValidationError(
            f"Endpoint {invocation.endpoint_name} is not a multi-model endpoint and does not support target model header."
        )
    if invocation.inference_component_name is not None:
        return errors.ValidationError(_NOT_A_COMPONENT)
    for member, value, why in (
        ("TargetContainerHostname", invocation.target_container_hostname, "several containers in direct mode"),
        ("SessionId", invocation.session_id, "stateful sessions"),
        ("EnableExplanations", invocation.enable_explanations, "an explainer"),
        ("PrefixAwareId", invocation.prefix_aware_id, "prefix-aware routing"),
    ):
        if value is not None:
            return errors.ValidationError(
                f"{member} is not allowed for endpoint {invocation.endpoint_name}: it does not have {why}, which this "
                "server does not offer yet."
            )
    return None


def model_answered(
    status: int, body: bytes, *, whole: bool, container: str, tail: str, log_arn: str
) -> errors.ModelError:
    """The container answered with anything but 2xx. The message's frame is kept, the body inside it cut to fit."""
    side = "client" if 400 <= status < 500 else "server"
    text = body.decode("utf-8", "replace")
    start = f"Received {side} error ({status}) from {container} "
    if whole:
        room = MAX_TEXT_CHARS - len(start) - len(tail) - len('with message "". ')
        message = f'{start}with message "{text[: max(room, 0)]}". {tail}'
    else:
        message = f"{start}and could not load the entire response body. {tail}"
    return errors.ModelError(
        message, original_status_code=status, original_message=text[:MAX_TEXT_CHARS], log_stream_arn=log_arn
    )


def timed_out(*, container: str, tail: str, log_arn: str) -> errors.ModelError:
    """No answer in time."""
    inner = _TIMED_OUT.format(container=container)
    return _without_answer(f'Received server error (0) from {container} with message "{inner}". {tail}', inner, log_arn)


def no_answer(*, endpoint: str, log_arn: str) -> errors.ModelError:
    """The connection broke, or what came was not HTTP."""
    inner = _NO_ANSWER.format(endpoint=endpoint)
    return _without_answer(f'Received server error (0) from model with message "{inner}"', inner, log_arn)


def _without_answer(message: str, inner: str, log_arn: str) -> errors.ModelError:
    return errors.ModelError(message, original_status_code=0, original_message=inner, log_stream_arn=log_arn)
