"""kill -9 of any process at random, under load: nothing acknowledged is lost, the endpoint answers again, no orphan."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from tests.packing import Deployer, answers, variant
from tests.server import Process, Server, is_shim, wait_until

SAMPLE_KILLS = 5  # of `make test`; the campaign of `make test-soak` makes 30
ENDPOINT = "crash-alive"
ROLES = ("supervisor", "control", "edge", "s3", "instance")


class Writers:
    """Threads that create models, put objects and invoke without end, and note what was acknowledged."""

    def __init__(self, server: Server, bucket: str) -> None:
        self._server = server
        self._bucket = bucket
        self._stop = threading.Event()
        self.objects: dict[str, bytes] = {}
        self.models: set[str] = set()
        self.answered = 0
        self.wrong: list[bytes] = []
        loops = (self._put_objects, self._create_models, self._invoke, self._invoke)
        self._threads = [threading.Thread(target=loop) for loop in loops]

    def _put_objects(self) -> None:
        client = self._server.client("s3", timeout_s=5)
        number = 0
        while not self._stop.is_set():
            key, body = f"written/{number}", os.urandom(200 if number % 3 else 40_000)
            with contextlib.suppress(BotoCoreError, ClientError):
                client.put_object(Bucket=self._bucket, Key=key, Body=body)
                self.objects[key] = body
            number += 1
            self._stop.wait(0.01)

    def _create_models(self) -> None:
        client = self._server.client("sagemaker", timeout_s=5)
        number = 0
        while not self._stop.is_set():
            name = f"written-{number}"
            with contextlib.suppress(BotoCoreError, ClientError):
                client.create_model(ModelName=name, PrimaryContainer={"Image": "mooring-python:3"})
                self.models.add(name)
            number += 1
            self._stop.wait(0.01)

    def _invoke(self) -> None:
        client = self._server.client("sagemaker-runtime", timeout_s=5)
        while not self._stop.is_set():
            try:
                answer = client.invoke_endpoint(EndpointName=ENDPOINT, ContentType="text/plain", Body=b"x")
                body = answer["Body"].read()
            except (BotoCoreError, ClientError):
                self._stop.wait(0.01)  # the process it was talking to is dead: only what it was computing may fail
                continue
            self.answered += 1
            if body != b"alive":
                self.wrong.append(body)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


def _instances(server: Server) -> list[Process]:
    """The model servers' shims of this data directory."""
    return [process for process in server.own_processes() if is_shim(process)]


def _victim(server: Server, role: str, chance: random.Random) -> Process:
    if role == "instance":
        return chance.choice(wait_until(lambda: _instances(server), what="an instance is there"))
    if role == "edge":
        role = f"edge-{chance.randrange(2)}"
    return wait_until(lambda: server.processes().get(role), what=f"{role} is there")


def _answers(server: Server, endpoint: str) -> bool:
    runtime = server.client("sagemaker-runtime", timeout_s=10)
    try:
        answer = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/plain", Body=b"x")
        return bool(answer["Body"].read() == b"alive")
    except (BotoCoreError, ClientError):
        return False


def _kill_and_recover(server: Server, role: str, endpoint: str, chance: random.Random) -> None:
    """One kill under load; waits until the endpoint answers again from a whole server."""
    victim = _victim(server, role, chance)
    if role == "supervisor":
        server.kill()
        server.start()
    else:
        os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: not victim.is_alive(), what=f"{role} is dead")
    wait_until(lambda: server.health() == 200, what=f"health after a kill of {role}")
    wait_until(
        lambda: _answers(server, endpoint), what=f"{endpoint} answers after a kill of {role}\n{server.log()[-3000:]}"
    )


def _campaign(own_server: Callable[..., Server], kills: int, seed: int) -> None:
    chance = random.Random(seed)
    server = own_server(env={"MOORING_EDGE_WORKERS": "2"})
    deployer = Deployer(server, "crash")
    model = deployer.model("alive", answers("alive"))
    endpoint = deployer.endpoint("alive", deployer.config("alive", variant(model, count=2)))
    writers = Writers(server, deployer.bucket)
    with writers.running():
        for number in range(kills):
            role = ROLES[number % len(ROLES)]
            time.sleep(chance.uniform(0.0, 0.3))  # where in the work it hits is what is left to chance
            _kill_and_recover(server, role, endpoint, chance)

    assert writers.objects, "nothing was written"
    assert writers.models, "nothing was created"
    assert writers.answered > kills, "nothing was invoked"
    assert writers.wrong == []
    s3 = server.client("s3")
    for key, body in writers.objects.items():
        assert s3.get_object(Bucket=deployer.bucket, Key=key)["Body"].read() == body, f"acknowledged {key} is lost"
    sagemaker = server.client("sagemaker")
    for name in writers.models:
        assert sagemaker.describe_model(ModelName=name)["ModelName"] == name
    described = server.wait_status(endpoint)
    assert described["ProductionVariants"][0]["DesiredInstanceCount"] == 2
    wait_until(lambda: len(_instances(server)) == 2, what="two instances, neither more nor less")
    # the fixture's close asserts that no process, control group or socket is left


def test_a_few_kills_lose_nothing_and_leave_nothing(own_server: Callable[..., Server], tmp_path: Path) -> None:
    _campaign(own_server, SAMPLE_KILLS, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_thirty_random_kills_lose_nothing_and_leave_nothing(own_server: Callable[..., Server]) -> None:
    _campaign(own_server, 30, seed=20261121)
