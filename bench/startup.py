"""CreateEndpoint → InService with a warm environment cache, beside the least that any host must do: start Python in the
image's environment, import the library, load the model.

Run as `python -m bench startup`. Ratios of medians within one run count; absolute figures move with the machine.
"""

import io
import json
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from demo import models, server
from rich.console import Console
from rich.table import Table

ROUNDS = 5
PLAIN_HANDLER = b"def transform_fn(model, data, content_type, accept):\n    return data, 'text/plain'\n"
LOAD = "import sys, joblib; joblib.load(sys.argv[1])"


def _plain() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(PLAIN_HANDLER)
        tar.addfile(member, io.BytesIO(PLAIN_HANDLER))
    return packed.getvalue()


def _seconds_to_in_service(sagemaker: Any, name: str, config: str) -> float:
    began = time.monotonic()
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    while True:
        described = sagemaker.describe_endpoint(EndpointName=name)
        if described["EndpointStatus"] == "InService":
            return time.monotonic() - began
        if described["EndpointStatus"] == "Failed":
            raise SystemExit(described["FailureReason"])
        time.sleep(0.005)


def _seconds_of(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def _round(sagemaker: Any, runtime: Any, kind: str, number: int, body: bytes) -> float:
    seconds = _seconds_to_in_service(sagemaker, f"{kind}-{number}", kind)
    runtime.invoke_endpoint(EndpointName=f"{kind}-{number}", ContentType="text/csv", Body=body)
    sagemaker.delete_endpoint(EndpointName=f"{kind}-{number}")
    return seconds


def _environment_python(data_dir: Path) -> str:
    """The interpreter of the scikit-learn environment that the server built."""
    for python in sorted((data_dir / "cache" / "envs").glob("*/**/bin/python")):
        if subprocess.run([str(python), "-c", "import sklearn"], capture_output=True, check=False).returncode == 0:
            return str(python)
    raise SystemExit("no environment with scikit-learn was built")


def main(arguments: list[str]) -> int:
    """Measure, print, write bench/results/startup.json."""
    console = Console()
    data = models.load()
    trained = models.train(data)["linear"]
    image, requirements = models.image_and_requirements()
    row = ",".join(repr(float(value)) for value in data.x_test[0]).encode()
    times: dict[str, list[float]] = {"sklearn": [], "plain": [], "python": [], "python + load": []}
    with tempfile.TemporaryDirectory() as scratch, server.running(Path(scratch) / "data") as here:
        sagemaker, runtime, s3 = here.client("sagemaker"), here.client("sagemaker-runtime"), here.client("s3")
        s3.create_bucket(Bucket="bench")
        for kind, packed, uri in (
            ("sklearn", models.pack(trained, requirements), image),
            ("plain", _plain(), "mooring-python:3"),
        ):
            s3.put_object(Bucket="bench", Key=f"{kind}.tar.gz", Body=packed)
            container = {"Image": uri, "ModelDataUrl": f"s3://bench/{kind}.tar.gz"}
            sagemaker.create_model(
                ModelName=kind,
                PrimaryContainer=container,
                ExecutionRoleArn="arn:aws:iam::000000000000:role/MooringExecutionRole",
            )
            variant = {"VariantName": "AllTraffic", "ModelName": kind, "InstanceType": "ml.m5.large"}
            sagemaker.create_endpoint_config(
                EndpointConfigName=kind, ProductionVariants=[{**variant, "InitialInstanceCount": 1}]
            )
            with console.status(f"building the environment of {kind} …"):
                cold = _round(sagemaker, runtime, kind, 0, row)
            console.print(f"{kind}: {cold:.2f} s the first time (environment built)")
        python = _environment_python(here.data_dir)
        pickled = Path(scratch) / "model.joblib"
        models.joblib.dump(trained, pickled)
        for number in range(1, ROUNDS + 1):
            for kind in ("sklearn", "plain"):
                times[kind].append(_round(sagemaker, runtime, kind, number, row))
            times["python"].append(_seconds_of([python, "-c", "pass"]))
            times["python + load"].append(_seconds_of([python, "-c", LOAD, str(pickled)]))
    median = {kind: statistics.median(values) for kind, values in times.items()}
    table = Table(
        "what", "median s", "min – max s", "ratio to the least", title="CreateEndpoint → InService, warm cache"
    )
    for kind, least in (("plain", "python"), ("sklearn", "python + load")):
        for name in (least, kind):
            ratio = f"{median[name] / median[least]:.2f}"
            table.add_row(name, f"{median[name]:.3f}", f"{min(times[name]):.3f} – {max(times[name]):.3f}", ratio)
    console.print(table)
    result = {
        "benchmark": "startup",
        "machine": platform.processor() or platform.machine(),
        "python": sys.version.split()[0],
        "rounds": ROUNDS,
        "seconds": times,
        "ratios": {
            "plain / python": median["plain"] / median["python"],
            "sklearn / python + load": median["sklearn"] / median["python + load"],
        },
    }
    target = Path("bench/results/startup.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"written to {target}")
    return 0
