"""From an image and an S3 URI to an answering instance: prepare and start with the real environment store and model
server; and starts whose server is killed at any step.
"""

import asyncio
import dataclasses
import io
import json
import shutil
import sys
import sysconfig
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.integration import process_rig as rig

from mooring.domain.instance import Handle, InstanceSpec
from mooring.kit import control_groups
from mooring.kit.clock import SystemClock, token_hex
from mooring.runtime import environments, process
from mooring.runtime.driver import DriverError
from mooring.s3.memory import MemoryObjectStore

UV = shutil.which("uv", path=sysconfig.get_path("scripts")) or shutil.which("uv") or ""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.skipif(not UV, reason="uv is not installed"),
]

HANDLER = b"""
import os
def model_fn(directory):
    return open(os.path.join(directory, "weights")).read()
def predict_fn(data, model):
    return {"data": data, "model": model, "flavour": os.environ.get("FLAVOUR")}
"""
MODEL = "s3://models/model.tar.gz"
CODE = "s3://models/sourcedir.tar.gz"


def packed(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


class World:
    def __init__(self, data_dir: Path, node_id: str, settings: process.ProcessSettings | None = None) -> None:
        self.data_dir = data_dir
        self.node_id = node_id
        self.settings = settings
        self.objects = MemoryObjectStore("models")
        self.environments = environments.EnvironmentStore(data_dir / "cache" / "envs", uv=UV)

    async def driver(self) -> process.ProcessDriver:
        return await process.ProcessDriver.open(
            data_dir=self.data_dir,
            node_id=self.node_id,
            objects=self.objects,
            environments=self.environments,
            clock=SystemClock(),
            settings=self.settings,
        )


def spec(**environment: str) -> InstanceSpec:
    return dataclasses.replace(
        rig.spec(), model_data_url=MODEL, environment={"SAGEMAKER_PROGRAM": "handler.py", **environment}
    )


async def predict(handle: Handle) -> object:
    reader, writer = await asyncio.open_unix_connection(handle.address.removeprefix("unix:"))
    try:
        head = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n"
        writer.write(head.encode() + b"[1]")
        length = 0
        while line := (await reader.readline()).strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return json.loads(await reader.readexactly(length))
    finally:
        writer.close()


@pytest.mark.parametrize("sandboxed", [True, False])
async def test_a_model_with_its_handler_is_prepared_started_and_answers(tmp_path: Path, sandboxed: bool) -> None:
    node_id = f"test{token_hex(4)}"
    settings = process.ProcessSettings(sandbox=sandboxed)
    world = World(tmp_path, node_id, settings)
    await world.objects.put_bytes(MODEL, packed({"weights": b"w", "code/handler.py": HANDLER}))
    async with rig.driven(tmp_path, node_id, settings):
        driver = await world.driver()
        said: list[str] = []
        prepared = await driver.prepare(spec(FLAVOUR="sweet"), said.append)
        handle = await driver.start(spec(FLAVOUR="sweet"), prepared)
        await rig.healthy(handle)
        assert await predict(handle) == {"data": [1], "model": "w", "flavour": "sweet"}
        assert handle.resolved_image == prepared.resolved_image
        assert any("downloading" in line for line in said)
        assert (await driver.stop(handle, grace_s=10)).code == 0
    await world.environments.aclose()


async def test_code_that_the_submit_directory_names_in_s3_is_used(tmp_path: Path) -> None:
    node_id = f"test{token_hex(4)}"
    world = World(tmp_path, node_id)
    await world.objects.put_bytes(MODEL, packed({"weights": b"w"}))
    await world.objects.put_bytes(CODE, packed({"handler.py": HANDLER}))
    async with rig.driven(tmp_path, node_id):
        driver = await world.driver()
        wanted = spec(SAGEMAKER_SUBMIT_DIRECTORY=CODE)
        handle = await driver.start(wanted, await driver.prepare(wanted, print))
        await rig.healthy(handle)
        assert await predict(handle) == {"data": [1], "model": "w", "flavour": None}
    await world.environments.aclose()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": "docker.io/library/nginx:1"}, "not one of the framework images"),
        ({"image": "x/sagemaker-scikit-learn:9.9-1"}, "no such scikit-learn image"),
        ({"model_data_url": "s3://models/none"}, "Failed to download model data for container"),
        ({"model_data_url": "https://example.com/model.tar.gz"}, "Failed to download model data for container"),
    ],
)
async def test_what_will_never_work_is_said_and_not_tried_again(
    tmp_path: Path, change: Mapping[str, str], says: str
) -> None:
    driver = await World(tmp_path, "none").driver()
    with pytest.raises(DriverError, match=says) as caught:
        await driver.prepare(dataclasses.replace(spec(), **change), print)  # type: ignore[arg-type]  # strings all
    assert not caught.value.retryable


@pytest.mark.parametrize("step", range(2, 70, 7))
async def test_a_server_killed_at_any_step_of_a_start_leaves_nothing_that_is_not_found(
    tmp_path: Path, step: int
) -> None:
    """The audit hook kills the server at its n-th system call of note; the next life recovers the instance or sweeps."""
    node_id = f"test{token_hex(4)}"
    code = f"""
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path.cwd())!r})
from tests.integration import process_rig as rig
left = {step}
def hook(event, _):
    global left
    if event.split(".")[0] in ("open", "os", "fcntl", "subprocess", "shutil", "socket"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
async def main():
    driver = await rig.open_driver(Path({str(tmp_path)!r}), node_id={node_id!r})
    sys.addaudithook(hook)
    await driver.start(rig.spec(), rig.prepared(Path({str(tmp_path)!r})))
asyncio.run(main())
"""
    life = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await life.wait() in (-9, 0)
    async with rig.driven(tmp_path, node_id) as driver:
        handle = await driver.recover(rig.spec(), None)
        if handle is not None:
            await rig.healthy(handle)
            assert await rig.call(handle.address, b"hello") == b"hello"
        else:
            for group in rig.groups_of(node_id):
                assert control_groups.members([group]) == set()
