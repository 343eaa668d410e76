"""Create → Describe → Invoke from 32 connections at once: everyone reads its own writes, no InService that cannot answer."""

import threading
from concurrent.futures import ThreadPoolExecutor

from tests.packing import Deployer, answers, variant
from tests.server import Server, wait_until

CONNECTIONS = 32


def test_32_connections_read_their_own_writes_and_every_in_service_answers(server: Server) -> None:
    deployer = Deployer(server, "ryw")
    model = deployer.model("shared", answers("here"))
    barrier = threading.Barrier(CONNECTIONS)

    def one(number: int) -> None:
        sagemaker, runtime = server.client("sagemaker"), server.client("sagemaker-runtime")
        name = f"ryw-{number}"
        barrier.wait(30)
        sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "mooring-python:3"})
        assert sagemaker.describe_model(ModelName=name)["ModelName"] == name
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant(model)])
        assert sagemaker.describe_endpoint_config(EndpointConfigName=name)["EndpointConfigName"] == name
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        assert sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] in {"Creating", "InService"}
        wait_until(
            lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService",
            what=f"{name} is InService",
            timeout_s=120,
            every_s=0.1,
        )
        # The very next call, on a connection of its own, must be answered: no retry is allowed to hide a gap.
        answer = server.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=name, Body=b"1", ContentType="text/plain"
        )
        assert answer["Body"].read() == b"here"
        assert runtime.invoke_endpoint(EndpointName=name, Body=b"1", ContentType="text/plain")["Body"].read() == b"here"
        sagemaker.delete_endpoint(EndpointName=name)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for outcome in [pool.submit(one, number) for number in range(CONNECTIONS)]:
            outcome.result()
