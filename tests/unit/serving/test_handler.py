"""The user's functions, called as the AWS containers call them."""

import json

import numpy as np
import pytest

from mooring.serving.problems import LoadFailure

JSON = {"content-type": "application/json"}


class Doubler:
    def predict(self, data):
        return np.asarray(data).sum(axis=1) * 2


@pytest.fixture
def doubler(model_dir, monkeypatch):
    """A model file, and what loading it gives."""
    (model_dir / "model.joblib").write_bytes(b"x")
    monkeypatch.setattr("mooring.serving.handler.load_pickle", lambda directory, say: Doubler())


def test_transform_fn_gets_all_and_its_answer_is_sent(handler_of):
    handler = handler_of(
        "def transform_fn(model, data, content_type, accept): return repr((model, data, content_type)), accept"
    )
    answer = handler.invoke(b"{}", {**JSON, "accept": "text/x"})
    assert answer == (200, b"(None, '{}', 'application/json')", "text/x", (), "")


def test_the_three_functions_are_chained(handler_of):
    handler = handler_of(
        """
def model_fn(model_dir): return 10
def input_fn(data, content_type): return int(data)
def predict_fn(data, model): return data * model
def output_fn(prediction, accept): return str(prediction)
"""
    )
    answer = handler.invoke(b"4", {**JSON, "accept": "text/plain"})
    assert (answer.status, answer.body, answer.content_type) == (200, b"40", "text/plain")


def test_transform_fn_excludes_the_others(handler_of):
    with pytest.raises(ValueError, match=r"transform_fn.*input_fn, output_fn"):
        handler_of(
            "def transform_fn(m, d, c, a): ...\ndef input_fn(d, c): ...\ndef output_fn(p, a): ...",
        )


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({}, "application/json"),
        ({"accept": "*/*"}, "application/json"),
        ({"accept": "text/csv"}, "text/csv"),
        ({"accept": "a/b, c/d"}, "a/b, c/d"),
    ],
)
def test_user_functions_see_accept_as_it_came_or_the_default(handler_of, headers, seen):
    handler = handler_of("def transform_fn(m, d, c, accept): return accept, 'x/y'")
    assert handler.invoke(b"", headers).body == seen.encode()


def test_the_default_accept_can_be_set(handler_of):
    handler = handler_of("def predict_fn(d, m): return [[1, 2]]", SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv")
    answer = handler.invoke(b"[]", JSON)
    assert (answer.body, answer.content_type) == (b"1,2\n", "text/csv")


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/json", "str"),
        ("text/csv", "str"),
        ("text/csv; charset=utf-8", "bytes"),
        ("application/x-npy", "bytes"),
    ],
)
def test_json_and_csv_come_as_text_and_the_rest_as_bytes(handler_of, content_type, kind):
    handler = handler_of("def transform_fn(m, data, c, a): return type(data).__name__")
    assert handler.invoke(b"1", {"content-type": content_type}).body == kind.encode()


@pytest.mark.parametrize(
    "parameters", ["model, data, content_type, accept, context", "model, data, content_type, accept, anything=None"]
)
def test_the_context_comes_where_a_function_has_room_for_it(handler_of, parameters):
    name = parameters.rpartition(" ")[2].partition("=")[0]
    handler = handler_of(
        f"""
def transform_fn({parameters}):
    context = {name}
    context.set_response_content_type(0, "text/x")
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "back")
    context.set_response_status(202, "Fine")
    return context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
"""
    )
    answer = handler.invoke(b"{}", {**JSON, "x-amzn-sagemaker-custom-attributes": "there"})
    assert answer == (202, b"there", "text/x", (("X-Amzn-SageMaker-Custom-Attributes", "back"),), "Fine")


def test_an_optional_parameter_keeps_its_default_where_aws_passes_no_context(handler_of, doubler):
    handler = handler_of("def predict_fn(data, model, threshold=3): return [threshold]", "sklearn")
    assert handler.invoke(b"[[1]]", JSON).body == b"[3]"


@pytest.mark.parametrize(
    "source", ["def predict_fn(data): ...", "def predict_fn(a, b, c, d): ...", "def predict_fn(): ..."]
)
def test_a_function_that_cannot_be_called_fails_at_the_start(handler_of, source):
    with pytest.raises(LoadFailure, match="predict_fn takes"):
        handler_of(source)


def test_scikit_learn_defaults_predict_rows(handler_of, doubler):
    handler = handler_of(None, "sklearn")
    assert handler.invoke(b"[[1, 2], [3, 4]]", {}).body == b"[6.0, 14.0]"
    answer = handler.invoke(b"1,2\n3,4\n", {"content-type": "text/csv", "accept": "text/csv"})
    assert (answer.body, answer.content_type) == (b"6.0\n14.0\n", "text/csv")
    assert handler.invoke(b"1,2", {"content-type": "text/csv"}).body == b"[6.0]"


def test_a_users_predict_fn_gets_csv_squeezed_as_on_aws(handler_of, doubler):
    handler = handler_of("def predict_fn(data, model): return list(data.shape)", "sklearn")
    assert handler.invoke(b"1,2,3", {"content-type": "text/csv"}).body == b"[3]"


@pytest.mark.parametrize(
    ("headers", "status", "name"),
    [
        ({"content-type": "image/png"}, 415, "UnsupportedType"),
        ({**JSON, "accept": "image/png"}, 406, "UnsupportedType"),
    ],
)
def test_unsupported_types_are_answered_in_the_containers_form(handler_of, doubler, headers, status, name):
    answer = handler_of(None, "sklearn").invoke(b"[[1]]", headers)
    body = json.loads(answer.body)
    assert (answer.status, answer.content_type) == (status, "application/json")
    assert set(body) == {"error", "error-message", "stack-trace"}
    assert body["error"] == name
    assert "image/png" in body["error-message"]


def test_a_body_that_does_not_parse_is_400(handler_of, doubler):
    answer = handler_of(None, "sklearn").invoke(b"{", JSON)
    assert answer.status == 400
    assert "not application/json" in json.loads(answer.body)["error-message"]


def test_what_a_scikit_learn_script_raises_is_500_with_its_trace_and_in_the_log(handler_of, doubler, capsys):
    handler = handler_of("def predict_fn(data, model): raise KeyError('colour')", "sklearn")
    answer = handler.invoke(b"[[1]]", JSON)
    body = json.loads(answer.body)
    assert answer.status == 500
    assert body["error"] == "KeyError"
    assert "predict_fn" in body["stack-trace"]
    assert "KeyError: 'colour'" in capsys.readouterr().err


def test_what_a_plain_handler_raises_is_message_and_trace_as_text(handler_of):
    answer = handler_of("def predict_fn(data, model): raise RuntimeError('no luck')").invoke(b"1", JSON)
    assert (answer.status, answer.content_type) == (500, "text/plain")
    assert answer.body.startswith(b"no luck\nTraceback")


def test_an_exception_may_carry_its_status(handler_of):
    source = """
class Refused(Exception):
    status_code = 422
def predict_fn(data, model): raise Refused('bad age')
"""
    assert handler_of(source).invoke(b"1", JSON).status == 422


@pytest.mark.parametrize("statement", ["raise SystemExit(3)", "import sys; sys.exit('bye')", "raise MemoryError()"])
def test_a_handler_cannot_end_the_server(handler_of, statement):
    assert handler_of(f"def predict_fn(data, model): {statement}").invoke(b"1", JSON).status == 500


@pytest.mark.parametrize(
    ("expression", "body", "content_type"),
    [
        ("b'raw'", b"raw", "application/json"),
        ("'text'", b"text", "application/json"),
        ("bytearray(b'x'), 'a/b'", b"x", "a/b"),
        ("{'a': 1}", b'{"a": 1}', "application/json"),
        ("{'a': 1}, 'application/json'", b'{"a": 1}', "application/json"),
        ("[1, 2], 'text/csv'", b"1\n2\n", "text/csv"),
        ("None", b"", "application/json"),
    ],
)
def test_handlers_may_return_bytes_text_pairs_or_objects(handler_of, expression, body, content_type):
    answer = handler_of(f"def transform_fn(m, d, c, a): return {expression}").invoke(b"", JSON)
    assert (answer.status, answer.body, answer.content_type) == (200, body, content_type)


def test_a_flask_like_response_is_taken_apart(handler_of):
    source = """
class Response:
    status_code = 201
    content_type = "x/y"
    def get_data(self): return b"made"
def output_fn(prediction, accept): return Response()
def predict_fn(data, model): return 1
"""
    assert handler_of(source).invoke(b"1", JSON)[:3] == (201, b"made", "x/y")


def test_a_plain_handler_needs_something_that_predicts(handler_of):
    with pytest.raises(LoadFailure, match=r"no code/inference\.py"):
        handler_of(None)
    with pytest.raises(LoadFailure, match="neither transform_fn nor predict_fn"):
        handler_of("def model_fn(model_dir): return 1")


def test_hooks_run_around_the_load(handler_of, model_dir):
    source = """
calls = []
def pre_model_fn(model_dir): calls.append(("pre", model_dir))
def model_fn(model_dir, context): calls.append(("load", context.system_properties["model_dir"])); return "m"
def model_warmup_fn(model_dir, model): calls.append(("warm", model))
def predict_fn(data, model): return calls
"""
    answer = json.loads(handler_of(source).invoke(b"1", JSON).body)
    assert answer == [["pre", str(model_dir)], ["load", str(model_dir)], ["warm", "m"]]


def test_execution_parameters_come_from_the_script(handler_of):
    handler = handler_of(
        "def predict_fn(d, m): ...\ndef execution_parameters_fn(): return {'MaxConcurrentTransforms': 3}",
    )
    assert handler.parameters().body == b'{"MaxConcurrentTransforms": 3}'
    failing = handler_of("def predict_fn(d, m): ...\ndef execution_parameters_fn(): raise ValueError('x')")
    assert failing.parameters().status == 500
