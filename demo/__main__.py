"""The demo's story: train, upload, deploy two variants, predict, shift weights, update under load, read the logs."""

import csv
import io
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from demo import load, models, server

console = Console(highlight=False, soft_wrap=True)
DATA_DIR = Path(".demo")
ROLE = "arn:aws:iam::000000000000:role/MooringExecutionRole"
BUCKET = "mooring-demo"
ENDPOINT = "tumours"


def say(step: str, text: str) -> None:
    """One line of the story."""
    console.print(f"[bold cyan]{step:>9}[/]  {text}")


def wait_in_service(sagemaker: Any, name: str, began: float) -> float:
    """Poll until the endpoint is InService; returns the seconds since `began`. (boto3's waiter polls every 30 s.)"""
    while True:
        described = sagemaker.describe_endpoint(EndpointName=name)
        status = described["EndpointStatus"]
        if status == "InService":
            return time.monotonic() - began
        if status == "Failed":
            raise SystemExit(f"the endpoint failed: {described['FailureReason']}")
        time.sleep(0.05)


def to_csv(rows: Any) -> bytes:
    """Rows as text/csv; repr keeps every float32 exact."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[repr(float(value)) for value in row] for row in rows])
    return text.getvalue().encode()


def predict(runtime: Any, rows: Any, **extra: str) -> tuple[Any, str]:
    """One InvokeEndpoint of many rows: (labels, variant that answered)."""
    answer = runtime.invoke_endpoint(
        EndpointName=ENDPOINT, ContentType="text/csv", Accept="text/csv", Body=to_csv(rows), **extra
    )
    labels = answer["Body"].read().decode().replace("\n", ",").strip(",").split(",")
    return np.array([int(float(label)) for label in labels]), answer["InvokedProductionVariant"]


def variant(name: str, weight: float, count: int = 1) -> dict[str, Any]:
    """A ProductionVariant of the model of that name."""
    return {
        "VariantName": name,
        "ModelName": f"demo-{name}",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": count,
        "InitialVariantWeight": weight,
    }


def deploy(sagemaker: Any, s3: Any, trained: dict[str, Any]) -> None:
    """Upload the models and put both behind one endpoint, seven calls in ten to the linear one."""
    image, requirements = models.image_and_requirements()
    s3.create_bucket(Bucket=BUCKET)
    for name, model in trained.items():
        packed = models.pack(model, requirements)
        s3.put_object(Bucket=BUCKET, Key=f"models/{name}/model.tar.gz", Body=packed)
        sagemaker.create_model(
            ModelName=f"demo-{name}",
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"Image": image, "ModelDataUrl": f"s3://{BUCKET}/models/{name}/model.tar.gz"},
        )
        say("upload", f"s3://{BUCKET}/models/{name}/model.tar.gz  ({len(packed) / 1024:.0f} KiB)")
    sagemaker.create_endpoint_config(
        EndpointConfigName="ab", ProductionVariants=[variant("linear", 0.7), variant("boosted", 0.3)]
    )
    began = time.monotonic()
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="ab")
    with console.status("building the environment of the image (once), loading the models …"):
        seconds = wait_in_service(sagemaker, ENDPOINT, began)
    say("deploy", f"two variants of {image.rsplit('/', 1)[-1]} InService after {seconds:.2f} s")


def compare(runtime: Any, trained: dict[str, Any], data: models.Data) -> None:
    """Every prediction of the server against the same model asked here."""
    table = Table("variant", "rows", "equal to local", "accuracy", title="predictions", title_justify="left")
    for name, model in trained.items():
        labels, answered = predict(runtime, data.x_test, TargetVariant=name)
        local = model.predict(data.x_test)
        if answered != name or not np.array_equal(labels, local):
            raise SystemExit(f"variant {name} answers otherwise than the model it was made from")
        table.add_row(
            name, str(len(labels)), f"{np.mean(labels == local):.0%}", f"{np.mean(labels == data.y_test):.3f}"
        )
    console.print(table)


def share(runtime: Any, data: models.Data, calls: int) -> str:
    """How the calls fell on the variants."""
    seen = Counter(predict(runtime, data.x_test[:1])[1] for _ in range(calls))
    return ", ".join(f"{name} {count / calls:.0%}" for name, count in sorted(seen.items()))


def update_under_load(sagemaker: Any, runtime: Any, data: models.Data) -> None:
    """Replace the whole fleet while callers keep calling."""
    sagemaker.create_endpoint_config(
        EndpointConfigName="boosted-only", ProductionVariants=[variant("boosted", 1.0, count=2)]
    )
    row = data.x_test[:1]
    with load.calling(lambda _: predict(runtime, row)[1], threads=4) as tally:
        began = time.monotonic()
        sagemaker.update_endpoint(EndpointName=ENDPOINT, EndpointConfigName="boosted-only")
        seconds = wait_in_service(sagemaker, ENDPOINT, began)
        time.sleep(0.5)  # let the new fleet take some of the load as well
    answered = ", ".join(f"{name} {count}" for name, count in sorted(tally.answers.items()))
    failed = sum(tally.failures.values())
    say("update", f"new fleet of 2 instances after {seconds:.2f} s under load: {answered}; [bold]{failed} failed[/]")
    if failed:
        raise SystemExit(f"calls failed during the update: {dict(tally.failures)}")


def show_logs(logs: Any) -> None:
    """The containers' own words, through CloudWatch Logs' API."""
    found = logs.filter_log_events(logGroupName=f"/aws/sagemaker/Endpoints/{ENDPOINT}", filterPattern="features")
    for event in found["events"][:4]:
        stamp = time.strftime("%H:%M:%S", time.localtime(event["timestamp"] / 1000))
        say("log", f"{stamp} {event['logStreamName']}  {event['message']}")
    if not found["events"]:
        raise SystemExit("the containers' logs are not there")


def main() -> int:
    """Run the demo; the exit status is 0 only when everything it says is true."""
    began = time.monotonic()
    data = models.load()
    trained = models.train(data)
    say(
        "train",
        f"{', '.join(trained)} on {len(data.x_train)} rows of breast cancer data in {time.monotonic() - began:.1f} s",
    )
    with server.running(DATA_DIR / "data") as here:
        say("server", f"{here.url} healthy after {here.start_s:.2f} s, data in {here.data_dir}")
        sagemaker, runtime = here.client("sagemaker"), here.client("sagemaker-runtime")
        deploy(sagemaker, here.client("s3"), trained)
        compare(runtime, trained, data)
        say("weights", f"0.7 : 0.3 over 400 calls → {share(runtime, data, 400)}")
        began_weights = time.monotonic()
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=ENDPOINT,
            DesiredWeightsAndCapacities=[
                {"VariantName": "linear", "DesiredWeight": 0.1},
                {"VariantName": "boosted", "DesiredWeight": 0.9},
            ],
        )
        seconds = wait_in_service(sagemaker, ENDPOINT, began_weights)
        say("weights", f"0.1 : 0.9 in force after {seconds:.2f} s, over 400 calls → {share(runtime, data, 400)}")
        update_under_load(sagemaker, runtime, data)
        show_logs(here.client("logs"))
        sagemaker.delete_endpoint(EndpointName=ENDPOINT)
    say(
        "done",
        f"everything stopped; server log: {DATA_DIR / 'data' / 'server.log'}  ({time.monotonic() - began:.0f} s)",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
