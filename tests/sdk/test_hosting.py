"""Hosting as a user sees it: real boto3 against a running server, real model processes behind it."""

import json
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from tests.packing import ECHO, SKLEARN_IMAGE, Deployer, answers, archive, handler, variant
from tests.server import ACCOUNT, REGION, ROLE_ARN, Server, wait_until

ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"


@pytest.fixture(scope="module")
def deployer(server: Server) -> Deployer:
    return Deployer(server, "hosting")


def _code(raised: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    error = raised.value.response["Error"]
    return error["Code"], error["Message"]


def _calls(deployer: Deployer, endpoint: str, calls: int) -> Counter[bytes]:
    return Counter(deployer.invoke(endpoint) for _ in range(calls))


@pytest.mark.shows(
    "CreateModel.PrimaryContainer.Image",
    "CreateModel.PrimaryContainer.ModelDataUrl",
    "InvokeEndpoint.EndpointName",
    "InvokeEndpoint.Body",
    "InvokeEndpoint.Accept",
    "InvokeEndpoint->Body",
    "InvokeEndpoint->ContentType",
    "InvokeEndpoint->InvokedProductionVariant",
)
def test_a_handler_answers_the_bytes_it_got(deployer: Deployer) -> None:
    model = deployer.model("echo", handler(ECHO))
    endpoint = deployer.endpoint("echo", deployer.config("echo", variant(model)))
    body = bytes(range(256)) * 40
    answer = deployer.runtime.invoke_endpoint(
        EndpointName=endpoint, Body=body, ContentType="application/x-any", Accept="a/b"
    )
    assert answer["Body"].read() == body
    assert answer["ContentType"] == "a/b"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ResponseMetadata"]["RequestId"]


@pytest.mark.shows(
    "InvokeEndpoint.ContentType",
    "InvokeEndpoint.CustomAttributes",
    "InvokeEndpoint.InferenceId",
    "InvokeEndpoint->CustomAttributes",
)
def test_what_a_call_says_of_itself_reaches_the_model_and_the_model_answers_in_kind(deployer: Deployer) -> None:
    source = """
import json

def transform_fn(model, data, content_type, accept, context):
    asked = context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "got %s" % asked)
    inference_id = context.get_request_header(0, "X-Amzn-SageMaker-Inference-Id")
    return json.dumps([content_type, accept, inference_id]), "application/json"
"""
    name = deployer.model("told", handler(source))
    endpoint = deployer.endpoint("told", deployer.config("told", variant(name)))
    for turn in range(3):  # the first of its kind is parsed, those behind it are known by their form
        answer = deployer.runtime.invoke_endpoint(
            EndpointName=endpoint,
            Body=b"%d" % turn,
            ContentType="application/x-any; part=1",
            Accept="a/b",
            CustomAttributes="trace=7, colour=blue",
            InferenceId="call 42",
        )
        assert json.loads(answer["Body"].read()) == ["application/x-any; part=1", "a/b", "call 42"]
        assert answer["CustomAttributes"] == "got trace=7, colour=blue"


def test_a_scikit_learn_image_predicts_what_the_model_predicts_here(deployer: Deployer) -> None:
    from demo import models

    data = models.load()
    model = models.train(data)["linear"]
    name = deployer.model("sklearn", models.pack(model, None), image=SKLEARN_IMAGE)
    endpoint = deployer.endpoint("sklearn", deployer.config("sklearn", variant(name)))
    body = "\n".join(",".join(repr(float(value)) for value in row) for row in data.x_test).encode()
    text = deployer.invoke(endpoint, body, ContentType="text/csv", Accept="text/csv").decode()
    labels = [int(float(label)) for label in text.replace("\n", ",").strip(",").split(",")]
    assert np.array_equal(labels, model.predict(data.x_test))


@pytest.mark.shows("CreateModel.PrimaryContainer.Environment")
def test_environment_variables_reach_the_model(deployer: Deployer) -> None:
    source = (
        "import os\ndef transform_fn(model, data, content_type, accept):\n    return os.environ['FLAVOUR'], 'a/b'\n"
    )
    name = deployer.model("flavour", handler(source), Environment={"FLAVOUR": "süß"})
    endpoint = deployer.endpoint("flavour", deployer.config("flavour", variant(name)))
    assert deployer.invoke(endpoint).decode() == "süß"


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups can be made by root")
def test_the_instance_type_is_a_hard_limit(deployer: Deployer) -> None:
    model = deployer.model("bounded", answers("1"))
    small = variant(model, name="Small", InstanceType="ml.t2.medium")
    endpoint = deployer.endpoint("bounded", deployer.config("bounded", small, variant(model, name="Large")))
    found = {}
    for path in deployer.server.control_groups():
        for name in ("memory.limit_in_bytes", "memory.max"):
            for file in Path(path).rglob(name):
                found[file.parent.name] = int(file.read_text())
    logs = deployer.server.client("logs")
    streams = logs.describe_log_streams(logGroupName=f"/aws/sagemaker/Endpoints/{endpoint}")["logStreams"]
    instances = dict(stream["logStreamName"].split("/") for stream in streams)
    assert found[instances["Small"]] == 4 << 30
    assert found[instances["Large"]] == 8 << 30


@pytest.mark.shows("InvokeEndpoint.TargetVariant")
def test_weights_share_the_calls_and_target_variant_picks(deployer: Deployer) -> None:
    a, b = deployer.model("a", answers("a")), deployer.model("b", answers("b"))
    config = deployer.config("ab", variant(a, name="A", weight=3), variant(b, name="B", weight=1))
    endpoint = deployer.endpoint("ab", config)
    seen = _calls(deployer, endpoint, 400)
    assert 240 <= seen[b"a"] <= 360  # 300 ± 60: seven standard deviations
    assert deployer.invoke(endpoint, TargetVariant="B") == b"b"

    deployer.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=endpoint,
        DesiredWeightsAndCapacities=[
            {"VariantName": "A", "DesiredWeight": 0},
            {"VariantName": "B", "DesiredInstanceCount": 2},
        ],
    )
    described = deployer.server.wait_status(endpoint)
    shown = {
        each["VariantName"]: (each["CurrentWeight"], each["CurrentInstanceCount"])
        for each in described["ProductionVariants"]
    }
    assert shown == {"A": (0.0, 1), "B": (1.0, 2)}
    assert _calls(deployer, endpoint, 50) == {b"b": 50}
    assert deployer.invoke(endpoint, TargetVariant="A") == b"a"


def test_an_update_under_load_fails_no_call_and_ends_on_the_new_model(deployer: Deployer) -> None:
    old, new = deployer.model("old", answers("old")), deployer.model("new", answers("new"))
    endpoint = deployer.endpoint("swap", deployer.config("swap-1", variant(old)))
    deployer.config("swap-2", variant(new, count=2))
    stop, calling = threading.Event(), threading.Semaphore(0)

    def call() -> Counter[bytes]:
        runtime, seen = deployer.server.client("sagemaker-runtime"), Counter[bytes]()
        while not stop.is_set():
            answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=b"1", ContentType="text/plain")
            seen[answer["Body"].read()] += 1
            calling.release()
        return seen

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(call) for _ in range(8)]
        try:
            assert calling.acquire(timeout=60), "no call before the update"
            deployer.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=deployer.name("swap-2"))
            described = deployer.server.wait_status(endpoint)
            after = _calls(deployer, endpoint, 50)
        finally:
            stop.set()
        seen = sum((caller.result() for caller in callers), Counter[bytes]())  # a failed call raises here
    assert after == {b"new": 50}, "InService on the new config, yet the old model answered"
    assert described["EndpointConfigName"] == deployer.name("swap-2")
    assert set(seen) == {b"old", b"new"}


def test_a_failed_update_stays_on_the_old_config_and_says_why(deployer: Deployer) -> None:
    good = deployer.model("good", answers("good"))
    bad = deployer.model("bad", handler("raise RuntimeError('the dog ate the weights')\n"))
    endpoint = deployer.endpoint("keep", deployer.config("keep-1", variant(good)))
    deployer.config("keep-2", variant(bad))
    deployer.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=deployer.name("keep-2"))
    assert deployer.invoke(endpoint) == b"good"
    described = deployer.server.wait_status(endpoint)
    assert described["EndpointConfigName"] == deployer.name("keep-1")
    assert "the dog ate the weights" in described["FailureReason"]
    assert deployer.invoke(endpoint) == b"good"
    # and the next update clears the reason
    deployer.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=deployer.name("keep-1"))
    assert "FailureReason" not in deployer.server.wait_status(endpoint)


def test_a_model_that_does_not_load_fails_with_its_last_words_and_can_be_deleted(deployer: Deployer) -> None:
    bad = deployer.model("broken", handler("import a_library_nobody_has\n"))
    endpoint = deployer.endpoint("broken", deployer.config("broken", variant(bad)), wait=False)
    reason = deployer.server.wait_status(endpoint, "Failed")["FailureReason"]
    assert reason.startswith(
        "The primary container for production variant AllTraffic did not pass the ping health check."
    )
    assert "a_library_nobody_has" in reason
    with pytest.raises(ClientError) as raised:
        deployer.invoke(endpoint)
    assert _code(raised) == ("ValidationError", f"Endpoint {endpoint} of account {ACCOUNT} not found.")
    deployer.sagemaker.delete_endpoint(EndpointName=endpoint)
    _wait_gone(deployer, endpoint)


def test_a_missing_archive_member_outside_fails_the_endpoint_in_words(deployer: Deployer) -> None:
    evil = deployer.model("evil", archive({"../../etc/cron.d/evil": b"x"}))
    endpoint = deployer.endpoint("evil", deployer.config("evil", variant(evil)), wait=False)
    reason = deployer.server.wait_status(endpoint, "Failed")["FailureReason"]
    assert "../../etc/cron.d/evil" in reason


def test_a_model_error_carries_status_message_and_log_group(deployer: Deployer) -> None:
    source = "def transform_fn(model, data, content_type, accept):\n    raise ValueError('row 3 is odd')\n"
    name = deployer.model("odd", handler(source))
    endpoint = deployer.endpoint("odd", deployer.config("odd", variant(name)))
    with pytest.raises(deployer.runtime.exceptions.ModelError) as raised:
        deployer.invoke(endpoint)
    answer = raised.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert answer["OriginalStatusCode"] == 500
    assert "row 3 is odd" in answer["OriginalMessage"]
    assert answer["Error"]["Message"].startswith('Received server error (500) from primary with message "')
    assert answer["LogStreamArn"] == f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/{endpoint}"


def test_unknown_endpoints_and_variants_are_validation_errors(deployer: Deployer) -> None:
    with pytest.raises(ClientError) as raised:
        deployer.invoke("nowhere")
    assert _code(raised) == ("ValidationError", f"Endpoint nowhere of account {ACCOUNT} not found.")
    model = deployer.model("one", answers("one"))
    endpoint = deployer.endpoint("one", deployer.config("one", variant(model)))
    with pytest.raises(ClientError) as raised:
        deployer.invoke(endpoint, TargetVariant="Other")
    assert _code(raised) == (
        "ValidationError",
        f"Variant Other not found for endpoint {endpoint} of account {ACCOUNT}.",
    )
    with pytest.raises(ClientError) as raised:
        deployer.invoke(endpoint, TargetModel="a.tar.gz")
    assert _code(raised) == (
        "ValidationError",
        f"Endpoint {endpoint} is not a multi-model endpoint and does not support target model header.",
    )
    with pytest.raises(ClientError) as raised:
        deployer.invoke(endpoint.upper())
    assert _code(raised)[0] == "ValidationError", "names are case-sensitive here"


def test_what_the_model_prints_is_in_its_log_with_real_time_stamps(deployer: Deployer) -> None:
    import time

    before_ms = time.time() * 1000
    model = deployer.model("chatty", handler("print('good morning')\n" + ECHO))
    endpoint = deployer.endpoint("chatty", deployer.config("chatty", variant(model)))
    logs, group = deployer.server.client("logs"), f"/aws/sagemaker/Endpoints/{endpoint}"
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert [stream["logStreamName"].split("/")[0] for stream in streams] == ["AllTraffic"]
    events = logs.filter_log_events(logGroupName=group, filterPattern='"good morning"')["events"]
    assert {event["message"] for event in events} == {"good morning"}  # once per worker process, each line whole
    assert before_ms - 1 <= events[0]["timestamp"] <= time.time() * 1000
    assert logs.get_log_events(logGroupName=group, logStreamName=streams[0]["logStreamName"], startFromHead=True)[
        "events"
    ]


def test_a_crashed_instance_is_replaced_and_the_others_go_on(deployer: Deployer) -> None:
    source = (
        "import os\n"
        "def transform_fn(model, data, content_type, accept):\n"
        "    if data == b'die':\n        os._exit(9)\n"
        "    return str(os.getpid()) + os.uname().nodename, 'text/plain'\n"
    )
    model = deployer.model("mortal", handler(source))
    endpoint = deployer.endpoint("mortal", deployer.config("mortal", variant(model, count=2)))
    with pytest.raises(deployer.runtime.exceptions.ModelError) as raised:
        deployer.invoke(endpoint, b"die")
    assert "exit code 9" in raised.value.response["OriginalMessage"]
    logs, group = deployer.server.client("logs"), f"/aws/sagemaker/Endpoints/{endpoint}"

    def streams() -> int:
        return len(logs.describe_log_streams(logGroupName=group)["logStreams"])

    # A replacement is begun when the dead instance is out of the routes; until then it may be asked once more.
    wait_until(lambda: streams() == 3, what="a replacement is begun")
    for _ in range(30):  # the other instance, and soon the replacement, answer
        assert deployer.invoke(endpoint)

    def counts() -> Any:
        return deployer.sagemaker.describe_endpoint(EndpointName=endpoint)["ProductionVariants"][0][
            "CurrentInstanceCount"
        ]

    wait_until(lambda: counts() == 2, what="the crashed instance is replaced")
    assert streams() == 3


def test_counts_and_latencies_are_measured_per_variant(deployer: Deployer) -> None:
    model = deployer.model("counted", answers("1"))
    endpoint = deployer.endpoint("counted", deployer.config("counted", variant(model)))
    for _ in range(25):
        deployer.invoke(endpoint)
    metrics = deployer.server.metrics()
    mine = {series: value for series, value in metrics.items() if f'endpoint="{endpoint}"' in series}
    assert 25.0 in [value for series, value in mine.items() if "invocations_total" in series], mine
    assert 25.0 in [value for series, value in mine.items() if "model_latency" in series and "_count" in series], mine


def test_an_endpoint_stuck_in_creating_can_be_deleted(deployer: Deployer) -> None:
    model = deployer.model("slow", handler("import time\ntime.sleep(3600)\n" + ECHO))
    endpoint = deployer.endpoint("slow", deployer.config("slow", variant(model)), wait=False)
    assert deployer.sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "Creating"
    deployer.sagemaker.delete_endpoint(EndpointName=endpoint)
    _wait_gone(deployer, endpoint)


def test_deleting_model_and_config_leaves_the_endpoint_alone(deployer: Deployer) -> None:
    model = deployer.model("snap", answers("snap"))
    config = deployer.config("snap", variant(model))
    endpoint = deployer.endpoint("snap", config)
    deployer.sagemaker.delete_endpoint_config(EndpointConfigName=config)
    deployer.sagemaker.delete_model(ModelName=model)
    assert deployer.invoke(endpoint) == b"snap"
    with pytest.raises(ClientError) as raised:
        deployer.sagemaker.describe_model(ModelName=model)
    assert _code(raised) == ("ValidationException", f'Could not find model "{ARN}:model/{model}".')


def test_requirements_of_the_code_are_installed(deployer: Deployer) -> None:
    source = (
        "import six\ndef transform_fn(model, data, content_type, accept):\n    return six.__version__, 'text/plain'\n"
    )
    packed = archive({"code/inference.py": source, "code/requirements.txt": "six==1.16.0\n"})
    model = deployer.model("required", packed)
    endpoint = deployer.endpoint("required", deployer.config("required", variant(model)))
    assert deployer.invoke(endpoint) == b"1.16.0"


def test_a_script_uploaded_by_the_sdk_is_fetched_from_its_submit_directory(deployer: Deployer) -> None:
    """SDK v2 framework models keep the script apart: SAGEMAKER_SUBMIT_DIRECTORY names an archive in S3."""
    deployer.s3.put_object(Bucket=deployer.bucket, Key="sourcedir.tar.gz", Body=archive({"serve_me.py": ECHO}))
    model = deployer.model(
        "apart",
        archive({"weights.txt": "1"}),
        Environment={
            "SAGEMAKER_PROGRAM": "serve_me.py",
            "SAGEMAKER_SUBMIT_DIRECTORY": f"s3://{deployer.bucket}/sourcedir.tar.gz",
        },
    )
    endpoint = deployer.endpoint("apart", deployer.config("apart", variant(model)))
    assert deployer.invoke(endpoint, b"yes") == b"yes"


def test_a_role_and_identity_are_there_for_clients_that_ask(server: Server) -> None:
    identity = server.client("sts").get_caller_identity()
    assert identity["Arn"].startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/")
    assert server.client("iam").get_role(RoleName=ROLE_ARN.rsplit("/", 1)[1])["Role"]["Arn"] == ROLE_ARN


def _wait_gone(deployer: Deployer, endpoint: str) -> None:
    def gone() -> bool:
        try:
            deployer.sagemaker.describe_endpoint(EndpointName=endpoint)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ValidationException"
            assert "Could not find endpoint" in error.response["Error"]["Message"]
            return True
        return False

    wait_until(gone, what=f"{endpoint} is gone")
