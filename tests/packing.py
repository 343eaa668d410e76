"""model.tar.gz files for tests, and the calls that put one behind an endpoint."""

import io
import tarfile
from typing import Any

from tests.server import ROLE_ARN, Server

PLAIN_IMAGE = "mooring-python:3"
SKLEARN_IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-py312-cpu-py3"

ECHO = """
def transform_fn(model, data, content_type, accept):
    return data, accept if accept and "*" not in accept else "application/octet-stream"
"""


def archive(files: dict[str, bytes | str]) -> bytes:
    """A tar.gz of these files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def handler(source: str) -> bytes:
    """A model.tar.gz that holds only code/inference.py."""
    return archive({"code/inference.py": source})


def answers(text: str) -> bytes:
    """A handler that answers every call with `text`: tells which model answered."""
    return handler(f"def transform_fn(model, data, content_type, accept):\n    return {text!r}, 'text/plain'\n")


class Deployer:
    """Makes models, configs and endpoints on a server with little typing. Every name begins with `prefix`."""

    def __init__(self, server: Server, prefix: str) -> None:
        self.server = server
        self.prefix = prefix
        self.sagemaker = server.client("sagemaker")
        self.runtime = server.client("sagemaker-runtime")
        self.s3 = server.client("s3")
        self.bucket = f"{prefix}-bucket".lower()
        self.s3.create_bucket(Bucket=self.bucket)

    def name(self, suffix: str) -> str:
        return f"{self.prefix}-{suffix}"

    def model(self, suffix: str, packed: bytes, *, image: str = PLAIN_IMAGE, **container: Any) -> str:
        """Upload and CreateModel; returns the model's name."""
        key = f"{suffix}/model.tar.gz"
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=packed)
        self.sagemaker.create_model(
            ModelName=self.name(suffix),
            ExecutionRoleArn=ROLE_ARN,
            PrimaryContainer={"Image": image, "ModelDataUrl": f"s3://{self.bucket}/{key}", **container},
        )
        return self.name(suffix)

    def config(self, suffix: str, *variants: dict[str, Any]) -> str:
        """CreateEndpointConfig; returns its name."""
        self.sagemaker.create_endpoint_config(EndpointConfigName=self.name(suffix), ProductionVariants=list(variants))
        return self.name(suffix)

    def endpoint(self, suffix: str, config: str, *, wait: bool = True) -> str:
        """CreateEndpoint; returns its name, InService unless told not to wait."""
        self.sagemaker.create_endpoint(EndpointName=self.name(suffix), EndpointConfigName=config)
        if wait:
            self.server.wait_status(self.name(suffix))
        return self.name(suffix)

    def invoke(self, endpoint: str, body: bytes = b"1", **extra: Any) -> bytes:
        """The answer's body."""
        extra = {"ContentType": "application/octet-stream", **extra}
        answer: bytes = self.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, **extra)["Body"].read()
        return answer


def variant(
    model: str, *, name: str = "AllTraffic", count: int = 1, weight: float = 1.0, **extra: Any
) -> dict[str, Any]:
    """A ProductionVariant."""
    return {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": count,
        "InitialVariantWeight": weight,
        **extra,
    }
