"""A real scikit-learn image, from its name to an answer: environment from the package index, model server, joblib model.

The environment is built once per cache: `.venv/.test-cache`, or where MOORING_TEST_CACHE says.
"""

import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import uv
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import mooring
from mooring import contract
from mooring.runtime import images
from mooring.runtime.environments import Environment, EnvironmentStore

CACHE = Path(os.environ.get("MOORING_TEST_CACHE") or Path(__file__).parents[2] / ".venv/.test-cache")
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-cpu-py3"
PACKAGE = Path(mooring.__file__).parent
DEADLINE_S = 60.0


@pytest.fixture
async def environment() -> Environment:
    store = EnvironmentStore(CACHE / "environments", uv=uv.find_uv_bin())
    request = images.recognise(IMAGE)
    assert request is not None
    built = await store.ensure(request, None, print)
    await store.aclose()
    return built


@pytest.fixture
def served(environment, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    features, classes = load_iris(return_X_y=True)
    classifier = LogisticRegression(max_iter=500).fit(features, classes)
    joblib.dump(classifier, model / "model.joblib")
    library = tmp_path / "library/mooring"
    library.mkdir(parents=True)
    (library / "__init__.py").touch()
    for name in ("serving", "contract"):
        shutil.copytree(PACKAGE / name, library / name, ignore=shutil.ignore_patterns("__pycache__"))
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [environment.python, "-m", "mooring.serving", "serve"],
            env={
                "PATH": os.defpath,
                "PYTHONPATH": str(library.parent),
                contract.ENV_FAMILY: "sklearn",
                contract.ENV_MODEL_DIR: str(model),
                contract.ENV_BIND_TO_PORT: "0",
                contract.ENV_WORKERS: "2",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield classifier, features, _wait_healthy(process, log), log
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0


def _wait_healthy(process: subprocess.Popen[bytes], log: Path) -> int:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        _, _, rest = log.read_text().partition("http://127.0.0.1:")
        if rest and _ask(int(rest.split()[0]), "GET", "/ping", b"", {})[0] == 200:
            return int(rest.split()[0])
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def _ask(port: int, method: str, path: str, body: bytes, headers: dict[str, str]):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read(), response.headers["Content-Type"]
    finally:
        connection.close()


def _npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_a_joblib_model_predicts_over_http_what_it_predicts_here(served, environment):
    classifier, features, port, log = served
    expected = classifier.predict(features.astype(np.float32))
    rows = "\n".join(",".join(map(repr, map(float, row))) for row in features).encode()

    status, body, kind = _ask(port, "POST", "/invocations", json.dumps(features.tolist()).encode(), {})
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == expected.tolist()

    status, body, kind = _ask(port, "POST", "/invocations", rows, {"Content-Type": "text/csv", "Accept": "text/csv"})
    assert (status, kind) == (200, "text/csv")
    assert [int(line) for line in body.split()] == expected.tolist()

    npy = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
    status, body, kind = _ask(port, "POST", "/invocations", _npy(features), npy)
    assert (status, kind) == (200, "application/x-npy")
    assert np.load(io.BytesIO(body)).tolist() == classifier.predict(features).tolist()

    assert "scikit-learn 1.4.2" in log.read_text()
    assert environment.resolved_image.startswith(IMAGE.rpartition(":")[0] + "@sha256:")
    assert "a single" not in log.read_text()


def test_a_wrong_shape_is_the_models_error(served):
    _, _, port, log = served
    status, body, _ = _ask(port, "POST", "/invocations", b"[[1, 2]]", {"Content-Type": "application/json"})
    assert status == 500
    assert "2 features" in json.loads(body)["error-message"]
    assert "ValueError" in log.read_text()
