"""Environments are built by a real uv from an index of tiny packages on disk, kept, shared and collected."""

import asyncio
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import uv

from mooring.runtime import images
from mooring.runtime.driver import DriverError
from mooring.runtime.environments import MARKER, Environment, EnvironmentStore
from mooring.runtime.images import ImageRequest, PythonPins

RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Index:
    """A package index in a directory (PEP 503)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.as_uri()

    def add(self, name: str, version: str, *needs: str) -> None:
        directory = self.root / name
        directory.mkdir(parents=True, exist_ok=True)
        wheel = directory / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
        files = {
            f"{name}.py": f"VERSION = {version!r}\n",
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
        links = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(directory.glob("*.whl")))
        (directory / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


class Recorder:
    """A sandbox that only watches."""

    def __init__(self) -> None:
        self.commands: list[Sequence[str]] = []
        self.writable: list[Path] = []
        self.instead: list[str] | None = None

    def __call__(self, argv: Sequence[str], *, writable: Sequence[Path], readable: Sequence[Path]) -> Sequence[str]:
        self.commands.append(argv[1:3])
        self.writable.extend(writable)
        assert all(path.is_absolute() for path in (*writable, *readable))
        return self.instead or argv


class Clock:
    """A clock to set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def now_s(self) -> float:
        return self.now

    def monotonic_s(self) -> float:
        return self.now


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = Index(tmp_path / "index")
    for version in ("1.0", "1.1", "2.0"):
        index.add("alpha", version)
    index.add("beta", "1.0", "alpha<2")
    index.add("beta", "2.0", "alpha>=2")
    index.add("gamma", "1.0", "beta>=2")
    return index


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "environments"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
async def store(root, index, recorder):
    store = make_store(root, index, wrap=recorder)
    yield store
    await store.aclose()


def make_store(root: Path, index: Index | None, **more) -> EnvironmentStore:
    more.setdefault("uv", uv.find_uv_bin())
    return EnvironmentStore(root, index_url=index.url if index else None, **more)


def image(*pins: str) -> ImageRequest:
    return ImageRequest(
        image="registry/tiny:1",
        repository="registry/tiny",
        family="python",
        version="1",
        pythons=(PythonPins(python=RUNNING, pins=pins),),
    )


def versions(environment: Environment) -> dict[str, str]:
    program = (
        "import json\nfound = {}\nfor name in ('alpha', 'beta', 'gamma'):\n"
        "    try: found[name] = __import__(name).VERSION\n    except ImportError: pass\nprint(json.dumps(found))"
    )
    return json.loads(subprocess.run([environment.python, "-c", program], check=True, capture_output=True).stdout)


async def test_an_image_and_its_requirements_become_an_environment(store, lines):
    environment = await store.ensure(image("alpha==1.0"), b"beta\n", lines.append)
    assert versions(environment) == {"alpha": "1.0", "beta": "1.0"}
    assert environment.resolved_image == f"registry/tiny@sha256:{environment.lock_sha256}"
    assert all(path.exists() for path in environment.mounts())
    assert os.path.realpath(environment.python).startswith(str(environment.base_prefix))
    assert any("alpha==1.0" in line for line in lines)
    assert lines[-1].endswith(f"Python {environment.python_version}, {environment.resolved_image}")


async def test_a_known_environment_needs_neither_uv_nor_the_index(store, root, index, lines):
    built = await store.ensure(image("alpha==1.0"), b"beta\n", lines.append)
    again = make_store(root, index, uv="/nonexistent/uv")
    assert await again.ensure(image("alpha==1.0"), b"beta\n", lines.append) == built


async def test_the_plain_image_needs_no_index_at_all(root, lines):
    request = images.recognise("mooring-python:3")
    assert request is not None
    environment = await make_store(root, None, environ={"PATH": ""}).ensure(request, None, lines.append)
    assert environment.python_version.startswith(RUNNING)
    assert versions(environment) == {}


async def test_programs_in_the_environment_work_where_it_was_published(store, lines):
    environment = await store.ensure(image(), None, lines.append)
    done = subprocess.run(
        [environment.python, "-c", "import sys; print(sys.prefix)"], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(environment.path)


async def test_what_the_user_names_wins_over_the_image(store, lines):
    environment = await store.ensure(image("alpha==1.0"), b"alpha>=1.1,<2\n", lines.append)
    assert versions(environment) == {"alpha": "1.1"}
    assert any("alpha 1.1 instead of the image's 1.0" in line for line in lines)


async def test_a_package_named_without_a_version_stays_at_the_images(store, lines):
    assert versions(await store.ensure(image("alpha==1.0"), b"alpha\n", lines.append)) == {"alpha": "1.0"}


async def test_what_a_users_package_needs_moves_the_image_as_pip_would(store, lines):
    environment = await store.ensure(image("alpha==1.0"), b"gamma\n", lines.append)
    assert versions(environment) == {"alpha": "2.0", "beta": "2.0", "gamma": "1.0"}
    assert any("alpha 2.0 instead of the image's 1.0" in line for line in lines)


@pytest.mark.parametrize(
    ("requirements", "words"), [(b"alpha==9.9\n", "alpha==9.9"), (b"no-such-package\n", "no-such-package")]
)
async def test_a_requirement_that_does_not_install_is_named(store, lines, requirements, words):
    with pytest.raises(DriverError) as error:
        await store.ensure(image("alpha==1.0"), requirements, lines.append)
    assert words in error.value.reason
    assert "registry/tiny:1" in error.value.reason
    assert not error.value.retryable


async def test_an_index_out_of_reach_may_be_tried_again(root, lines):
    store = EnvironmentStore(
        root, uv=uv.find_uv_bin(), index_url="http://127.0.0.1:9/simple", environ={**os.environ, "UV_HTTP_RETRIES": "0"}
    )
    with pytest.raises(DriverError) as error:
        await store.ensure(image("alpha==1.0"), None, lines.append)
    assert error.value.retryable


async def test_a_missing_interpreter_is_named_with_those_that_are_here(store, lines):
    request = ImageRequest(
        image="tiny:2", repository="tiny", family="python", version="2", pythons=(PythonPins(python="3.99"),)
    )
    with pytest.raises(DriverError, match=r"needs Python 3\.99, and this machine has .*" + RUNNING) as error:
        await store.ensure(request, None, lines.append)
    assert not error.value.retryable


async def test_a_missing_uv_is_a_driver_error(root, index, lines):
    with pytest.raises(DriverError, match="cannot be started"):
        await make_store(root, index, uv="/nonexistent/uv").ensure(image("alpha==1.0"), None, lines.append)


async def test_those_who_want_the_same_share_one_build(store, recorder):
    progress: list[list[str]] = [[] for _ in range(8)]
    built = await asyncio.gather(*(store.ensure(image("alpha==1.0"), None, said.append) for said in progress))
    assert len(set(built)) == 1
    assert recorder.commands == [["pip", "compile"], ["venv", "--quiet"], ["pip", "sync"]]
    assert all(any("building an environment" in line for line in said) for said in progress)


async def test_all_who_wait_for_a_failing_build_get_its_reason(store, recorder):
    outcomes = await asyncio.gather(
        *(store.ensure(image("alpha==9"), None, lambda line: None) for _ in range(4)), return_exceptions=True
    )
    assert all(isinstance(outcome, DriverError) for outcome in outcomes)
    assert len(recorder.commands) == 1


async def test_two_servers_on_one_cache_build_once(root, index, lines):
    wraps = Recorder(), Recorder()
    stores = [make_store(root, index, wrap=wrap) for wrap in wraps]
    built = await asyncio.gather(*(store.ensure(image("alpha==1.0"), None, lines.append) for store in stores))
    assert built[0] == built[1]
    assert sorted(len(wrap.commands) for wrap in wraps) == [0, 3]


async def test_commands_may_write_their_work_and_the_cache_alone(store, recorder, root, lines):
    await store.ensure(image("alpha==1.0"), None, lines.append)
    assert all(path == root / "uv" or path.parent == root / "envs" for path in recorder.writable)


async def test_one_waiter_may_leave_and_the_others_get_the_environment(store, recorder, lines):
    first = asyncio.ensure_future(store.ensure(image("alpha==1.0"), None, lines.append))
    second = asyncio.ensure_future(store.ensure(image("alpha==1.0"), None, lines.append))
    await until(lambda: recorder.commands)
    first.cancel()
    assert versions(await second) == {"alpha": "1.0"}
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_build_that_nobody_waits_for_is_ended_with_all_its_processes(store, recorder, root, tmp_path, lines):
    pids = tmp_path / "pids"
    recorder.instead = ["/bin/sh", "-c", f"sleep 3600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"]
    waiting = asyncio.ensure_future(store.ensure(image("alpha==1.0"), None, lines.append))
    await until(pids.exists)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: not any(runs(int(pid)) for pid in pids.read_text().split()))
    await until(lambda: not list((root / "envs").glob(".tmp-*")))
    recorder.instead = None
    assert versions(await store.ensure(image("alpha==1.0"), None, lines.append)) == {"alpha": "1.0"}


async def test_a_replacement_runs_the_versions_its_pool_began_with(root, index, lines, tmp_path):
    store = make_store(root, index)
    first = await store.ensure(image(), b"alpha\n", lines.append)
    assert versions(first) == {"alpha": "2.0"}
    index.add("alpha", "3.0")
    for path in (root / "resolutions").iterdir():
        path.unlink()
    newer = make_store(root, index)
    (root / "envs" / first.name / MARKER).unlink()
    again = await newer.ensure(image(), b"alpha\n", lines.append, pinned=first.resolved_image)
    assert (versions(again), again.resolved_image) == ({"alpha": "2.0"}, first.resolved_image)
    unpinned = await newer.ensure(image(), b"alpha\n", lines.append)
    assert versions(unpinned) == {"alpha": "3.0"}
    assert unpinned.resolved_image != first.resolved_image


async def test_equal_requests_resolve_to_the_same_versions_for_good(root, index, lines):
    first = await make_store(root, index).ensure(image(), b"alpha\n", lines.append)
    index.add("alpha", "3.0")
    await make_store(root, index, clock=Clock()).collect(0, [], min_idle_s=-1e12)
    assert not first.path.exists()
    assert await make_store(root, index).ensure(image(), b"alpha\n", lines.append) == first
    assert versions(first) == {"alpha": "2.0"}


@pytest.mark.parametrize("damage", ["no marker", "no interpreter"])
async def test_a_damaged_environment_is_built_anew(store, root, index, lines, damage):
    environment = await store.ensure(image("alpha==1.0"), None, lines.append)
    if damage == "no marker":
        (environment.path / MARKER).unlink()
    else:
        environment.python.unlink()
        environment.python.symlink_to("/nonexistent/python")
    assert await store.ensure(image("alpha==1.0"), None, lines.append) == environment
    assert versions(environment) == {"alpha": "1.0"}


async def test_collection_takes_leftovers_the_cache_and_the_longest_unused(root, index, lines):
    clock = Clock()
    store = make_store(root, index, clock=clock)
    made = []
    for version in ("1.0", "1.1", "2.0"):
        made.append(await store.ensure(image(f"alpha=={version}"), None, lines.append))
        clock.now += 1000
    (root / "envs/.tmp-crashed").mkdir()
    (root / "envs/.tmp-crashed/file").write_bytes(b"x" * 100_000)
    oldest, used, newest = made
    await store.ensure(image("alpha==1.0"), None, lines.append)  # the oldest is the newest now
    freed = await store.collect(1, in_use=[newest.name], min_idle_s=600)
    assert freed >= 100_000
    assert [environment.path.exists() for environment in (oldest, used, newest)] == [True, False, True]
    assert sorted(path.name for path in (root / "envs").iterdir()) == sorted([oldest.name, newest.name])
    assert not list((root / "uv").iterdir())
    assert versions(newest) == {"alpha": "2.0"}
    assert versions(await store.ensure(image("alpha==1.1"), None, lines.append)) == {"alpha": "1.1"}


async def test_collection_leaves_everything_under_the_limit(store, lines):
    environment = await store.ensure(image("alpha==1.0"), None, lines.append)
    assert await store.collect(1 << 40, [], min_idle_s=-1) == 0
    assert environment.path.exists()


async def test_collection_waits_for_no_build(store, recorder, tmp_path, lines):
    begun = tmp_path / "begun"
    recorder.instead = ["/bin/sh", "-c", f"touch {begun}; sleep 3600"]
    waiting = asyncio.ensure_future(store.ensure(image("alpha==1.0"), None, lines.append))
    await until(begun.exists)
    assert await store.collect(0, []) == 0
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_password_of_the_index_is_in_no_argument(root, tmp_path, lines):
    recorder = Recorder()
    arguments = tmp_path / "arguments"
    recorder.instead = ["/bin/sh", "-c", f"cat /proc/$$/cmdline > {arguments}; exit 1"]
    store = EnvironmentStore(
        root, uv=uv.find_uv_bin(), index_url="https://user:hidden@127.0.0.1:9/simple", wrap=recorder
    )
    with pytest.raises(DriverError):
        await store.ensure(image("alpha==1.0"), None, lines.append)
    assert "hidden" not in str(recorder.commands) + arguments.read_text() + "".join(lines)


async def test_builds_see_none_of_the_servers_environment(root, index, tmp_path, lines):
    recorder = Recorder()
    seen = tmp_path / "environment"
    recorder.instead = ["/bin/sh", "-c", f"env > {seen}; exit 1"]
    store = make_store(root, index, wrap=recorder, environ={**os.environ, "AWS_SECRET_ACCESS_KEY": "hidden"})
    with pytest.raises(DriverError):
        await store.ensure(image("alpha==1.0"), None, lines.append)
    assert "hidden" not in seen.read_text()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition, deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
