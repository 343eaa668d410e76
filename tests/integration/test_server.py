"""One running server: what everything else stands on."""

import stat
import subprocess
import sys
from pathlib import Path

from tests import models
from tests.server import Server

MOORING = str(Path(sys.executable).parent / "mooring")


def test_health_is_ok_without_credentials(server: Server) -> None:
    assert server.get("/_mooring/health") == (200, b"ok\n")


def test_the_console_says_that_it_comes_later(server: Server) -> None:
    status, text = server.get("/_mooring/console/")
    assert status == 404
    assert b"later version" in text


def test_the_status_is_not_on_the_public_port(server: Server) -> None:
    assert server.get("/_mooring/status")[0] == 404


def test_the_caller_is_an_assumed_role_that_iam_knows(server: Server) -> None:
    arn = server.client("sts").get_caller_identity()["Arn"]
    role = server.client("iam").get_role(RoleName=arn.split("/")[1])["Role"]
    principal = role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]
    assert principal["Service"] == "sagemaker.amazonaws.com"


def test_an_unknown_role_is_told_as_iam_tells_it(server: Server) -> None:
    iam = server.client("iam")
    try:
        iam.get_role(RoleName="Nobody")
    except iam.exceptions.NoSuchEntityException as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
        assert "The role with name Nobody cannot be found." in str(error)
    else:
        raise AssertionError("no error")


def test_a_deployed_handler_answers_is_counted_and_its_words_are_in_the_logs(server: Server) -> None:
    models.deploy(server, "seen")
    assert models.invoke(server, "seen") == b"42.0"
    labels = '{endpoint="seen",variant="AllTraffic"}'
    samples = server.metrics()
    assert samples["mooring_invocations_total" + labels] == 1
    assert samples["mooring_model_latency_seconds_count" + labels] == 1
    assert samples['mooring_instances{endpoint="seen",variant="AllTraffic",state="healthy"}'] == 1
    logs = server.client("logs")
    group = "/aws/sagemaker/Endpoints/seen"
    found = logs.filter_log_events(logGroupName=group, filterPattern='"model loaded"')["events"]
    assert "model loaded" in found[0]["message"]
    (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="AllTraffic/")["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
    times = [event["timestamp"] for event in events["events"]]
    assert times == sorted(times)
    assert stream["firstEventTimestamp"] == times[0]


def test_logs_of_nothing_are_told_as_cloudwatch_tells_it(server: Server) -> None:
    logs = server.client("logs")
    try:
        logs.get_log_events(logGroupName="/none", logStreamName="x")
    except logs.exceptions.ResourceNotFoundException as error:
        assert "The specified log group does not exist." in str(error)
    else:
        raise AssertionError("no error")


def test_status_and_env_are_printed_for_the_owner(server: Server) -> None:
    shown = subprocess.run(
        [MOORING, "status", "--data-dir", str(server.data_dir)], capture_output=True, text=True, timeout=60
    )
    assert shown.returncode == 0, shown.stderr
    assert server.url in shown.stdout
    lines = subprocess.run(
        [MOORING, "env", "--data-dir", str(server.data_dir)], capture_output=True, text=True, timeout=60
    ).stdout.splitlines()
    assert f"export AWS_ENDPOINT_URL={server.url}" in lines


def test_the_words_of_a_container_are_printed_and_cannot_steer_the_terminal(server: Server) -> None:
    models.deploy(server, "colourful", models.DOUBLER.replace('"model loaded"', r'"red \x1b[31m alert"'))

    def printed(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [MOORING, "logs", *arguments, "--data-dir", str(server.data_dir)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert "/aws/sagemaker/Endpoints/colourful" in printed().stdout.splitlines()
    shown = printed("colourful").stdout
    assert "red \ufffd[31m alert" in shown
    assert "\x1b" not in shown
    assert len(printed("colourful", "-n", "1").stdout.splitlines()) <= 2  # one line of each writer's stream
    unknown = printed("nowhere")
    assert unknown.returncode == 1
    assert "there is no log group /aws/sagemaker/Endpoints/nowhere" in unknown.stderr


def test_only_the_owner_can_read_what_the_server_keeps(server: Server) -> None:
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    for path in (server.data_dir / "credentials", *server.data_dir.glob("run/*.sock")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_the_secret_is_in_no_command_line_environment_or_log(server: Server) -> None:
    _, secret = server.keys()
    server.client("s3").list_buckets()
    for process in server.own_processes():
        assert secret not in process.command
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        assert secret.encode() not in environment
    assert secret not in server.log()
