"""Environments are built by a real uv from an index of tiny packages on disk, kept, shared and collected."""

import ast
import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import uv

from mooring.runtime import build_sandbox, images
from mooring.runtime.driver import DriverError
from mooring.runtime.environments import MARKER, Environment, EnvironmentStore
from mooring.runtime.images import ImageRequest, PythonPins

RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Index:
    """A package index in a directory (PEP 503)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.as_uri()

    def add(self, name: str, version: str, *needs: str, more: dict[str, str] | None = None) -> None:
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
        files.update(more or {})
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
        self._list(directory)

    def add_source(self, name: str, code: str) -> None:
        """Version 1.0 without a wheel; `code` runs when it is built. It installs seen.txt, where there is one, as SEEN."""
        directory = self.root / name
        directory.mkdir(parents=True, exist_ok=True)
        files = {
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            "backend.py": f"""
import os, zipfile
{code}
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "{name}-1.0-py3-none-any.whl"
    seen = open("seen.txt").read() if os.path.exists("seen.txt") else "None"
    info = "{name}-1.0.dist-info/"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("{name}.py", "SEEN = " + seen)
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
""",
        }
        with tarfile.open(directory / f"{name}-1.0.tar.gz", "w:gz") as archive:
            for path, text in files.items():
                member = tarfile.TarInfo(f"{name}-1.0/{path}")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        self._list(directory)

    def _list(self, directory: Path) -> None:
        files = sorted(path.name for path in directory.iterdir() if path.name != "index.html")
        links = "".join(f'<a href="{name}">{name}</a>\n' for name in files)
        (directory / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


class WatchedUv:
    """uv, with a record of its calls; `instead` is a shell script to run in its place."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.program = root / "uv"
        self._log = root / "log"
        self._instead = root / "instead"
        self.program.write_text(
            f"""#!/bin/sh
echo "$1 $2" >> {self._log}
if [ -e {self._instead} ]; then exec /bin/sh {self._instead} "$@"; fi
exec {uv.find_uv_bin()} "$@"
"""
        )
        self.program.chmod(0o755)

    @property
    def commands(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def replace(self, script: str) -> None:
        self._instead.write_text(script)

    def restore(self) -> None:
        self._instead.unlink()


class Watch:
    """A sandbox that only watches."""

    def __init__(self) -> None:
        self.commands: list[Sequence[str]] = []
        self.writable: list[Path] = []

    def __call__(self, argv: Sequence[str], *, writable: Sequence[Path], readable: Sequence[Path]) -> Sequence[str]:
        self.commands.append(argv)
        self.writable.extend(writable)
        assert all(path.is_absolute() for path in (*writable, *readable))
        return argv


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
def watched(tmp_path: Path) -> WatchedUv:
    return WatchedUv(tmp_path / "watched")


@pytest.fixture
def sandbox():
    found = build_sandbox.find(os.environ)
    if found is None:
        pytest.skip("bubblewrap cannot make a sandbox here")
    return found


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
async def store(root, index, watched):
    store = make_store(root, index, uv=str(watched.program))
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


async def test_those_who_want_the_same_share_one_build(store, watched):
    progress: list[list[str]] = [[] for _ in range(8)]
    built = await asyncio.gather(*(store.ensure(image("alpha==1.0"), None, said.append) for said in progress))
    assert len(set(built)) == 1
    assert watched.commands == ["pip compile", "venv --quiet", "pip sync"]
    assert all(any("building an environment" in line for line in said) for said in progress)


async def test_all_who_wait_for_a_failing_build_get_its_reason(store, watched):
    outcomes = await asyncio.gather(
        *(store.ensure(image("alpha==9"), None, lambda line: None) for _ in range(4)), return_exceptions=True
    )
    assert all(isinstance(outcome, DriverError) for outcome in outcomes)
    assert watched.commands == ["pip compile"]


async def test_two_servers_on_one_cache_build_once(root, index, watched, lines):
    stores = [make_store(root, index, uv=str(watched.program)) for _ in range(2)]
    built = await asyncio.gather(*(store.ensure(image("alpha==1.0"), None, lines.append) for store in stores))
    assert built[0] == built[1]
    assert len(watched.commands) == 3


async def test_code_of_packages_may_write_its_own_build_alone(root, index, lines):
    index.add_source("delta", "pass")
    watch = Watch()
    environment = await make_store(root, index, wrap=watch).ensure(image("alpha==1.0"), b"delta\n", lines.append)
    assert versions(environment) == {"alpha": "1.0"}
    assert len(set(watch.writable)) == 1
    assert watch.writable[0].parent == root / "envs"
    assert [list(argv[1:3]) for argv in watch.commands] == [["pip", "compile"], ["pip", "sync"], ["-I", "-m"]]


async def test_wheels_alone_need_the_sandbox_for_their_bytecode_only(root, index, lines):
    watch = Watch()
    environment = await make_store(root, index, wrap=watch).ensure(image("alpha==1.0"), b"beta\n", lines.append)
    assert [list(argv[1:4]) for argv in watch.commands] == [["-I", "-m", "compileall"]]
    assert list(environment.path.glob("lib/*/site-packages/__pycache__/alpha.*.pyc"))


async def test_what_a_package_runs_while_it_is_built_sees_nothing_of_the_host(root, index, sandbox, tmp_path, lines):
    (tmp_path / "secret").write_text("hidden")
    index.add_source(
        "delta",
        f"""
import os
def attempt(function):
    try: function()
    except OSError: return False
    return True
SEEN = dict(
    read=attempt(lambda: open({str(tmp_path / "secret")!r}).read()),
    shadow=attempt(lambda: open("/etc/shadow").read()),
    store=attempt(lambda: os.listdir({str(root / "uv")!r})),
    system=attempt(lambda: open("/usr/mine", "w")),
    processes=sum(name.isdigit() for name in os.listdir("/proc")),
)
open("seen.txt", "w").write(repr(SEEN))
""",
    )
    store = make_store(root, index, wrap=sandbox)
    environment = await store.ensure(image("alpha==1.0"), b"delta\n", lines.append)
    done = subprocess.run(
        [environment.python, "-c", "import delta; print(delta.SEEN)"], check=True, capture_output=True
    )
    seen = ast.literal_eval(done.stdout.decode())
    assert seen.pop("processes") < 10
    assert not any(seen.values()), seen


async def test_start_up_files_of_a_package_reach_neither_host_nor_cache(root, index, sandbox, tmp_path, lines):
    target = tmp_path / "escaped"
    code = (
        f"import os, glob; os.path.isdir({str(root / 'uv')!r}) and open('/cache-seen', 'w'); open({str(target)!r}, 'w')"
    )
    index.add("epsilon", "1.0", more={"epsilon.pth": code + "\n"})
    environment = await make_store(root, index, wrap=sandbox).ensure(image(), b"epsilon\n", lines.append)
    assert list(environment.path.glob("lib/*/site-packages/epsilon.pth"))
    assert not target.exists()
    assert all(path.stat().st_nlink == 1 for path in environment.path.rglob("epsilon*") if path.is_file())


async def test_one_waiter_may_leave_and_the_others_get_the_environment(store, watched, lines):
    first = asyncio.ensure_future(store.ensure(image("alpha==1.0"), None, lines.append))
    second = asyncio.ensure_future(store.ensure(image("alpha==1.0"), None, lines.append))
    await until(lambda: watched.commands)
    first.cancel()
    assert versions(await second) == {"alpha": "1.0"}
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_build_that_nobody_waits_for_is_ended_with_all_its_processes(store, watched, root, tmp_path, lines):
    pids = tmp_path / "pids"
    watched.replace(f"sleep 3600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait")
    waiting = asyncio.ensure_future(store.ensure(image("alpha==1.0"), None, lines.append))
    await until(pids.exists)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: not any(runs(int(pid)) for pid in pids.read_text().split()))
    await until(lambda: not list((root / "envs").glob(".tmp-*")))
    watched.restore()
    assert versions(await store.ensure(image("alpha==1.0"), None, lines.append)) == {"alpha": "1.0"}


async def test_a_build_cancelled_while_its_process_starts_leaves_nothing_of_it(store, watched, tmp_path, lines):
    """Looked at from a thread, so that the loop learns of the process only after it is told to give up."""
    pids = tmp_path / "pids"
    watched.replace(f"sleep 3600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait")
    waiting = asyncio.ensure_future(store.ensure(image("alpha==1.0"), None, lines.append))
    while not pids.exists():  # one turn of the loop, then hold it until what was begun in that turn has run
        await asyncio.sleep(0)
        held_until = time.monotonic() + 0.05
        while not pids.exists() and time.monotonic() < held_until:
            pass
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: not any(runs(int(pid)) for pid in pids.read_text().split()))


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


async def test_collection_waits_for_no_build(store, watched, tmp_path, lines):
    begun = tmp_path / "begun"
    watched.replace(f"touch {begun}; sleep 3600")
    waiting = asyncio.ensure_future(store.ensure(image("alpha==1.0"), None, lines.append))
    await until(begun.exists)
    assert await store.collect(0, []) == 0
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_password_of_the_index_is_in_no_argument(root, watched, tmp_path, lines):
    arguments = tmp_path / "arguments"
    watched.replace(f'echo "$@" > {arguments}; exit 1')
    index_url = "https://user:hidden@127.0.0.1:9/simple"
    store = EnvironmentStore(root, uv=str(watched.program), index_url=index_url)
    with pytest.raises(DriverError):
        await store.ensure(image("alpha==1.0"), None, lines.append)
    assert "compile" in arguments.read_text()
    assert "hidden" not in arguments.read_text() + "".join(lines)


async def test_builds_see_none_of_the_servers_environment(root, index, watched, tmp_path, lines):
    seen = tmp_path / "environment"
    watched.replace(f"env > {seen}; exit 1")
    environ = {**os.environ, "AWS_SECRET_ACCESS_KEY": "hidden"}
    store = make_store(root, index, uv=str(watched.program), environ=environ)
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
