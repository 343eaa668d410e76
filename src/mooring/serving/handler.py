"""One model's functions, called in the order of the AWS containers. Made by worker; knows nothing of sockets.

    body, headers ─▶ transform_fn(model, data, content_type, accept)                              ─▶ Answer
                └──▶ input_fn(data, content_type) ─▶ predict_fn(data, model) ─▶ output_fn(prediction, accept) ──┘

Every function may take one argument more, the context. Two conventions differ in details, chosen by family: `sklearn`
follows aws/sagemaker-containers, `python` (our plain image) aws/sagemaker-inference-toolkit. Deliberate differences from
both: unsupported types are 415 and 406 in either family, bodies that their type does not fit are 400, .npy bodies are never
unpickled, media type parameters are ignored by the default decoders, and the `python` family needs no model_fn: the model
is then None.
"""

import inspect
import json
import traceback
from types import ModuleType
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from mooring.serving import codecs
from mooring.serving.loading import load_pickle, misplaced
from mooring.serving.problems import LoadFailure, UndecodableBody, UnsupportedType
from mooring.serving.settings import Settings

_CHAIN = ("input_fn", "predict_fn", "output_fn")


class Answer(NamedTuple):
    """What goes back to the caller."""

    status: int
    body: bytes
    content_type: str
    headers: Tuple[Tuple[str, str], ...] = ()
    reason: str = ""


class Context:
    """What user functions may ask about their request and say about its answer; the part of the Multi Model Server's context
    that makes sense for one request at a time. The index arguments are there for its signatures.
    """

    def __init__(self, model_dir: str, headers: Mapping[str, str]) -> None:
        self.system_properties = {"model_dir": model_dir, "gpu_id": None, "batch_size": 1, "server_name": "mooring"}
        self.manifest: Dict[str, Any] = {}
        self.batch_size = 1
        self._headers = headers
        self.content_type: Optional[str] = None
        self.headers: List[Tuple[str, str]] = []
        self.status: Optional[int] = None
        self.reason = ""

    @property
    def request_processor(self) -> List["Context"]:
        """Of each request of the batch."""
        return [self]

    def get_request_properties(self) -> Mapping[str, str]:
        """All headers of the request, lower case and as the AWS containers spell the two they look at."""
        named = dict(self._headers)
        for name in ("Content-Type", "Accept"):
            if name.lower() in named:
                named[name] = named[name.lower()]
        return named

    def get_all_request_header(self, idx: int = 0) -> Mapping[str, str]:
        """All headers."""
        return self.get_request_properties()

    def get_request_header(self, idx: int, key: str) -> Optional[str]:
        """One header, None when it is not there."""
        return self._headers.get(key.lower())

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Overrides the content type."""
        self.content_type = value

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Adds a header, for example X-Amzn-SageMaker-Custom-Attributes."""
        self.headers.append((key, value))

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Overrides the status."""
        self.status = code
        self.reason = phrase


class Handler:
    """The model and its functions. Constructing it loads the model; what user code raises there comes through."""

    def __init__(self, settings: Settings, script: Optional[ModuleType], say: Callable[[str], None]) -> None:
        self._family = settings.family
        self._model_dir = settings.model_dir
        self._default_accept = settings.default_accept
        self._functions = {} if script is None else _user_functions(script)
        self.execution_parameters: Any = self._functions.pop("execution_parameters_fn", None)
        _check_functions(settings, self._functions, script)
        self._arity = {name: self._takes_context(name, function) for name, function in self._functions.items()}
        self._model = self._load(settings, say)

    def _load(self, settings: Settings, say: Callable[[str], None]) -> Any:
        context = Context(settings.model_dir, {})
        if "pre_model_fn" in self._functions:
            self._call("pre_model_fn", context, settings.model_dir)
        if "model_fn" in self._functions:
            model = self._call("model_fn", context, settings.model_dir)
        else:
            model = load_pickle(settings.model_dir, say) if settings.family == "sklearn" else None
        if "model_warmup_fn" in self._functions:
            self._call("model_warmup_fn", context, settings.model_dir, model)
        return model

    def invoke(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Answer a request; what goes wrong becomes an answer too, and what user code raises a traceback in the log."""
        context = Context(self._model_dir, headers)
        try:
            answer = self._transform(body, headers, context)
        except UnsupportedType as error:
            return _error(error.status, error)
        except UndecodableBody as error:
            return _error(400, error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: a handler does not end the server
            traceback.print_exc()
            return self._user_error(error)
        if context.status is not None or context.content_type is not None or context.headers:
            answer = answer._replace(
                status=answer.status if context.status is None else context.status,
                reason=context.reason or answer.reason,
                content_type=context.content_type or answer.content_type,
                headers=answer.headers + tuple(context.headers),
            )
        return answer

    def parameters(self) -> Answer:
        """GET /execution-parameters by the user's function."""
        try:
            return _as_answer(self.execution_parameters(), codecs.JSON_TYPE)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            traceback.print_exc()
            return self._user_error(error)

    def _transform(self, body: bytes, headers: Mapping[str, str], context: Context) -> Answer:
        content_type = headers.get("content-type") or headers.get("contenttype") or codecs.JSON_TYPE
        accept = headers.get("accept") or ""
        if not accept or accept == "*/*":
            accept = self._default_accept
        functions = self._functions
        if "transform_fn" in functions:
            data = _as_user_sees(body, content_type)
            result = self._call("transform_fn", context, self._model, data, content_type, accept)
            return _as_answer(result, accept)
        if "input_fn" in functions:
            data = self._call("input_fn", context, _as_user_sees(body, content_type), content_type)
        else:
            data = codecs.decode(body, content_type, self._family)
            if (
                "predict_fn" in functions
                and codecs.media_type(content_type) == codecs.CSV_TYPE
                and hasattr(data, "squeeze")
            ):
                data = data.squeeze()  # as the AWS containers hand CSV over; our own predict wants rows and columns
        if "predict_fn" in functions:
            prediction = self._call("predict_fn", context, data, self._model)
        else:
            prediction = self._model.predict(data)
        if "output_fn" in functions:
            return _as_answer(self._call("output_fn", context, prediction, accept), accept)
        kind = codecs.pick_accept(accept, self._default_accept)
        if kind is None:
            raise UnsupportedType(accept, 406)
        return Answer(200, codecs.encode(prediction, kind), kind)

    def _call(self, name: str, context: Context, *arguments: Any) -> Any:
        function = self._functions[name]
        return function(*arguments, context) if self._arity[name] else function(*arguments)

    def _takes_context(self, name: str, function: Callable[..., Any]) -> bool:
        """By the number of parameters; LoadFailure when it fits neither way of calling."""
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return False  # built-in
        takes = _ARGUMENTS[name]
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        needed = [p for p in positional if p.default is p.empty]
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return False
        if len(positional) < takes or len(needed) > takes + 1:
            raise LoadFailure(
                "{} takes {} arguments; it is called with {} or, with the context, {}".format(
                    name, len(positional), takes, takes + 1
                )
            )
        if len(needed) == takes + 1:
            return True
        if len(positional) <= takes:
            return False
        # an optional parameter: the toolkit passes the context, sagemaker-containers has none to pass
        extra = positional[takes]
        return extra.name == "context" or (self._family == "python" and len(positional) == takes + 1)

    def _user_error(self, error: BaseException) -> Answer:
        status = getattr(error, "status_code", None)
        if not isinstance(status, int) or not 400 <= status <= 599:
            status = 500
        if self._family == "sklearn":
            return _error(status, error)
        text = "{}\n{}".format(error, traceback.format_exc())
        return Answer(status, text.encode("utf-8", "replace"), "text/plain")


_ARGUMENTS = {
    "pre_model_fn": 1,
    "model_fn": 1,
    "model_warmup_fn": 2,
    "input_fn": 2,
    "predict_fn": 2,
    "output_fn": 2,
    "transform_fn": 4,
}


def _user_functions(script: ModuleType) -> Dict[str, Callable[..., Any]]:
    names = (*_ARGUMENTS, "execution_parameters_fn")
    return {name: getattr(script, name) for name in names if callable(getattr(script, name, None))}


def _check_functions(settings: Settings, functions: Mapping[str, Any], script: Optional[ModuleType]) -> None:
    if "transform_fn" in functions:
        others = [name for name in _CHAIN if name in functions]
        if others:
            raise ValueError(
                "Cannot use transform_fn implementation in conjunction with {} implementation".format(", ".join(others))
            )
    elif settings.family == "python" and "predict_fn" not in functions:
        if script is None:
            raise LoadFailure(
                "there is no code/{} in the model data{}; this image has no model of its own".format(
                    settings.program, misplaced(settings)
                )
            )
        raise LoadFailure("{} defines neither transform_fn nor predict_fn".format(settings.program))


def _as_user_sees(body: bytes, content_type: str) -> Any:
    """The AWS containers decode exactly these two types; a body that is no UTF-8 is the caller's mistake."""
    if content_type not in codecs.TEXT_TYPES:
        return body
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UndecodableBody("the body is not UTF-8 text: {}".format(error)) from error


def _as_answer(result: Any, accept: str) -> Answer:
    """What a user function may return: bytes, text, (body, content type), a Flask-like response, or an object to encode."""
    content_type = accept.partition(",")[0].strip()
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
        result, content_type = result
    if hasattr(result, "get_data") and hasattr(result, "status_code"):
        return Answer(result.status_code, result.get_data(), getattr(result, "content_type", None) or content_type)
    if isinstance(result, bytes):
        return Answer(200, result, content_type)
    if isinstance(result, str):
        return Answer(200, result.encode("utf-8"), content_type)
    if isinstance(result, (bytearray, memoryview)):
        return Answer(200, bytes(result), content_type)
    if result is None:
        return Answer(200, b"", content_type)
    kind = codecs.pick_accept(content_type, codecs.JSON_TYPE)
    if kind is None:
        raise UnsupportedType(content_type, 406)
    return Answer(200, codecs.encode(result, kind), kind)


def _error(status: int, error: BaseException) -> Answer:
    """The error form of sagemaker-containers."""
    body = {
        "error": type(error).__name__,
        "error-message": str(error),
        "stack-trace": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }
    return Answer(status, json.dumps(body).encode("utf-8"), codecs.JSON_TYPE)
