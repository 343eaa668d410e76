"""The AWS CLI v1, unmodified: upload, deploy, invoke, logs, clean up."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.packing import ECHO, handler
from tests.server import ROLE_ARN, Server

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]


def test_the_cli_uploads_deploys_invokes_reads_logs_and_cleans_up(
    own_server: Callable[..., Server], client_environment: Callable[..., Path], tmp_path: Path
) -> None:
    server = own_server()
    binary = str(client_environment("awscli==1.46.2") / "aws")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **server.environment()}

    def aws(*arguments: str) -> Any:
        done = subprocess.run(
            [binary, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"aws {' '.join(arguments)}\n{done.stdout}{done.stderr}\n{server.log()[-3000:]}"
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout

    (tmp_path / "model.tar.gz").write_bytes(handler("print('the handler is here')\n" + ECHO))
    (tmp_path / "body.txt").write_bytes(b"from the command line")
    aws("s3", "mb", "s3://cli-bucket")
    aws("s3", "cp", "model.tar.gz", "s3://cli-bucket/m/model.tar.gz")
    assert "model.tar.gz" in aws("s3", "ls", "s3://cli-bucket/m/")
    assert aws("sts", "get-caller-identity")["Account"] == "000000000000"

    container = json.dumps({"Image": "mooring-python:3", "ModelDataUrl": "s3://cli-bucket/m/model.tar.gz"})
    aws(
        "sagemaker",
        "create-model",
        "--model-name",
        "cli",
        "--primary-container",
        container,
        "--execution-role-arn",
        ROLE_ARN,
    )
    variants = "VariantName=AllTraffic,ModelName=cli,InstanceType=ml.m5.large,InitialInstanceCount=1"
    aws("sagemaker", "create-endpoint-config", "--endpoint-config-name", "cli", "--production-variants", variants)
    aws("sagemaker", "create-endpoint", "--endpoint-name", "cli", "--endpoint-config-name", "cli")
    server.wait_status("cli")
    aws("sagemaker", "wait", "endpoint-in-service", "--endpoint-name", "cli")
    answer = aws(
        *("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "cli", "--content-type", "text/plain"),
        *("--body", "fileb://body.txt", "out.bin"),
    )
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert (tmp_path / "out.bin").read_bytes() == b"from the command line"
    events = aws("logs", "filter-log-events", "--log-group-name", "/aws/sagemaker/Endpoints/cli")["events"]
    assert any("the handler is here" in event["message"] for event in events)
    aws("sagemaker", "delete-endpoint", "--endpoint-name", "cli")
    aws("sagemaker", "delete-endpoint-config", "--endpoint-config-name", "cli")
    aws("sagemaker", "delete-model", "--model-name", "cli")
    assert aws("sagemaker", "list-models")["Models"] == []
