"""Fixtures for every test: no AWS settings of the machine leak in, and servers that clean up after themselves."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.server import Server, is_foreign


@pytest.fixture(autouse=True, scope="session")
def _no_foreign_aws_settings() -> Iterator[None]:
    """What stands in this machine's environment or home must not decide what tests see."""
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        if is_foreign(name):
            patch.delenv(name)
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield
    patch.undo()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One running server per test process. Tests share it: give what you make names of your own, break nothing."""
    with Server.started(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers of this test alone: `own_server(env={"MOORING_EDGE_WORKERS": "1"}, arguments=("--insecure",))`."""
    with ExitStack() as stack:
        count = 0

        def start(**options: Any) -> Server:
            nonlocal count
            count += 1
            return stack.enter_context(Server.started(tmp_path / f"data{count}", **options))

        yield start
