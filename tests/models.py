"""Small models for tests: plain Python handlers that need no library, packed and put behind an endpoint."""

from typing import Any

from tests.packing import archive
from tests.server import ROLE_ARN, Server

IMAGE = "mooring-python:3"
BUCKET = "models"

DOUBLER = """
def model_fn(directory):
    print("model loaded", flush=True)
    return 2

def input_fn(body, content_type):
    return float(body)

def predict_fn(value, factor):
    return value * factor

def output_fn(value, accept):
    return str(value)
"""


def upload(server: Server, name: str, code: str = DOUBLER, requirements: str | None = None) -> str:
    """Put a handler into S3; returns its URI."""
    s3 = server.client("s3")
    if BUCKET not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=BUCKET)
    files = {"code/inference.py": code} | ({"code/requirements.txt": requirements} if requirements else {})
    s3.put_object(Bucket=BUCKET, Key=f"{name}/model.tar.gz", Body=archive(files))
    return f"s3://{BUCKET}/{name}/model.tar.gz"


def create(server: Server, name: str, code: str = DOUBLER, *, count: int = 1, **variant: Any) -> None:
    """Handler → model, endpoint config and endpoint of that name; does not wait."""
    sagemaker = server.client("sagemaker")
    container = {"Image": IMAGE, "ModelDataUrl": upload(server, name, code)}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE_ARN, PrimaryContainer=container)
    production = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InstanceType": "ml.t2.medium",
        "InitialInstanceCount": count,
        "InitialVariantWeight": 1.0,
        **variant,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[production])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def deploy(server: Server, name: str, code: str = DOUBLER, **options: Any) -> None:
    """As `create`, and wait for InService."""
    create(server, name, code, **options)
    server.wait_status(name)


def invoke(server: Server, endpoint: str, body: bytes = b"21", **members: Any) -> bytes:
    """The body of one InvokeEndpoint's answer."""
    runtime = server.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="text/plain", **members)
    content: bytes = answer["Body"].read()
    return content
