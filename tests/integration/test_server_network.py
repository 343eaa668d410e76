"""A model and the server it runs on: what a handler finds in its environment and reaches by it."""

import json
import socket
from collections.abc import Callable

from botocore.exceptions import ClientError
from tests import models
from tests.server import Server, wait_until

ASKS = """
import json, os, urllib.error, urllib.request

def model_fn(directory):
    return None

def transform_fn(model, body, content_type, accept):
    answers = {}
    for path in json.loads(body):
        try:
            with urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + path, timeout=20) as answer:
                answers[path] = answer.status
        except urllib.error.HTTPError as error:
            answers[path] = error.code
        except OSError as error:
            answers[path] = repr(error)
    names = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID")
    return json.dumps([answers, {name: os.environ.get(name) for name in names}]), "application/json"
"""


def test_a_handler_reaches_its_server_and_has_no_credentials(server: Server) -> None:
    models.deploy(server, "asks-the-server", ASKS)
    answers, environment = json.loads(models.invoke(server, "asks-the-server", b'["/_mooring/health", "/?list"]'))
    assert answers == {"/_mooring/health": 200, "/?list": 403}
    assert environment == {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": None,
    }


def _is_bound(taken: socket.socket, port: int) -> bool:
    try:
        taken.bind(("127.0.0.1", port))
    except OSError:  # the edges of the killed server die in these moments
        return False
    return True


def test_an_adopted_instance_finds_its_server_on_its_new_port(own_server: Callable[..., Server]) -> None:
    server = own_server(arguments=("--runtime-egress", "none"))
    models.deploy(server, "follows", ASKS)
    server.kill()
    first_port, server.port = server.port, 0
    (server.data_dir / "run" / "port").unlink()  # left by the kill; what is read next is the new life's
    with socket.socket() as taken:  # so that the next life cannot have it
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_until(lambda: _is_bound(taken, first_port), what="the port is free")
        server.start()
    assert server.port != first_port

    def asked() -> object:
        try:
            return json.loads(models.invoke(server, "follows", b'["/_mooring/health"]'))
        except ClientError:
            return None  # not adopted yet

    answers, environment = wait_until(asked, what="an answer")
    assert environment["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{first_port}", "the instance is not the one of before"
    assert answers == {"/_mooring/health": 200}
