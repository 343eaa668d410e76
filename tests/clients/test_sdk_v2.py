"""The SageMaker SDK v2, unmodified: deploy, predict, update_endpoint, delete_*."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.packing import ECHO, archive
from tests.server import ROLE_ARN, Server

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

PROGRAM = Path(__file__).parent / "programs" / "sdk_v2.py"
HANDLER = """
import os, joblib

def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
"""
CONFIG = """\
SchemaVersion: "1.0"
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
"""


def test_sdk_v2_deploys_predicts_updates_and_deletes(
    own_server: Callable[..., Server], client_environment: Callable[..., Path], tmp_path: Path
) -> None:
    from demo import models

    data = models.load()
    model = models.train(data)["linear"]
    rows = data.x_test[:20]
    (tmp_path / "model.tar.gz").write_bytes(archive({"model.joblib": _pickled(model)}))
    (tmp_path / "plain.tar.gz").write_bytes(archive({"code/inference.py": ECHO}))
    (tmp_path / "inference.py").write_text(HANDLER)
    (tmp_path / "rows.json").write_text(json.dumps({"rows": [[float(value) for value in row] for row in rows]}))
    (tmp_path / "config.yaml").write_text(CONFIG)

    server = own_server()
    server.client("s3").create_bucket(Bucket="sdk-bucket")
    program = subprocess.run(
        [
            str(client_environment("sagemaker==2.257.7") / "python"),
            str(PROGRAM),
            "sdk-bucket",
            ROLE_ARN,
            str(tmp_path),
        ],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "SAGEMAKER_USER_CONFIG_OVERRIDE": str(tmp_path / "config.yaml"),
            "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
            **server.environment(),
        },
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert program.returncode == 0, program.stderr[-4000:] + server.log()[-4000:]
    seen = json.loads(program.stdout.strip().splitlines()[-1])
    expected = model.predict(rows).tolist()
    assert seen["framework"] == expected
    assert seen["updated"] == expected
    assert seen["instances"] == 2
    assert seen["plain"] == [["1.5", "2.5"]]
    sagemaker = server.client("sagemaker")
    assert sagemaker.list_models()["Models"] == []


def _pickled(model: object) -> bytes:
    import io

    import joblib

    out = io.BytesIO()
    joblib.dump(model, out)
    return out.getvalue()
