"""Virtual environments for recognised images: built once by uv per image and requirements, then found in milliseconds.

Called by the process driver: `ensure` before an instance starts, `collect` now and then. It must not know of instances
beyond the names of the environments in use.

    <root>/resolutions/<key>.json   image pins + requirements + Python → lock       kept: replacements run the same
    <root>/locks/<sha256>.txt       exact versions with hashes                      kept, named by content
    <root>/envs/<key>/              the environment; mooring.json marks it whole    by lock + interpreter; collected by size
    <root>/envs/.tmp-…/             being built                                     swept after a crash
    <root>/uv/                      uv's cache of wheels                            collected by size
    <root>/guard/*.lock             flock: one builder per resolution, no collection meanwhile

    image, requirements ─▶ interpreter ─▶ lock (known, or `uv pip compile`) ─▶ environment (known, or venv + sync ─▶ rename)

Wheels come first: unpacking them runs none of their code, so it needs no sandbox and may share a cache. Only requirements
that do not resolve to wheels are built from source, in the sandbox with a cache of their own; so is bytecode compiled, for a
package may bring start-up files (.pth).
"""

import asyncio
import json
import os
import re
import shutil
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from mooring.kit.clock import Clock, SystemClock, token_hex
from mooring.kit.durable import write_private
from mooring.kit.tasks import Group
from mooring.runtime import disk, flocks, locks
from mooring.runtime.driver import DriverError, Progress
from mooring.runtime.images import ImageRequest, PythonPins
from mooring.runtime.interpreters import Interpreter, Interpreters
from mooring.runtime.requirements import MAIN, Requirements, parse_requirements
from mooring.runtime.uv import Uv, Wrap, to_the_end

MARKER = "mooring.json"
RESOLVE_TIMEOUT_S = 600.0
INSTALL_TIMEOUT_S = 1200.0
GUARD_TIMEOUT_S = 1800.0
KEPT_LINES = 500  # of a build, for those who join it later
_FORMAT = "1"  # part of every key: raise it when an environment is made differently
# pip's choice among several indexes; what a requirements.txt with --extra-index-url was written for
_INDEX_OPTIONS = ("--index-strategy", "unsafe-best-match")
_COMPILE = (
    "-I",
    "-m",
    "compileall",
    "-qq",
    "-j",
    "0",
    "-x",
    "/tests?/",
)  # tests are half of the files of SciPy and its like
_WHEELS_ONLY = ("--only-binary", ":all:")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A whole environment. It must be seen by its processes at the very same paths."""

    path: Path
    python: Path  # the program to start
    python_version: str
    base_prefix: Path  # the interpreter that it links to
    resolved_image: str
    lock_sha256: str

    @property
    def name(self) -> str:
        """What `collect` knows it by."""
        return self.path.name

    def mounts(self) -> list[Path]:
        """What a sandbox must show, read-only."""
        return [self.path, self.base_prefix]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What to build, before anything slow."""

    request: ImageRequest
    requirements: Requirements | None
    interpreter: Interpreter
    pins: Sequence[str]
    key: str  # of the resolution
    lock: bytes | None  # known already

    @property
    def what(self) -> str:
        return self.request.image

    @property
    def interpreter_paths(self) -> tuple[Path, ...]:
        return (self.interpreter.base_prefix, self.interpreter.path.parent)


@dataclass(slots=True)
class _Build:
    """A build under way and who listens to it."""

    task: asyncio.Task[Environment | DriverError]  # a user's mistake is a result, no failure of the task
    listeners: list[Progress] = field(default_factory=list)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    waiting: int = 0

    def say(self, line: str) -> None:
        self.lines.append(line)
        for listener in self.listeners:
            listener(line)


class EnvironmentStore:
    """See the module. `uv`: the program. `wrap`: a sandbox for what a package's build runs; None: no sandbox."""

    def __init__(
        self,
        root: Path,
        *,
        uv: str,
        index_url: str | None = None,
        wrap: Wrap | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._root = root
        self._envs = root / "envs"
        self._locks = root / "locks"
        self._resolutions = root / "resolutions"
        self._guard = root / "guard"
        environ = os.environ if environ is None else environ
        self._interpreters = Interpreters(environ)
        self._index_url = index_url
        self._uv = Uv(program=uv, cache_dir=root / "uv", index_url=index_url, environ=environ, wrap=wrap)
        self._clock = clock or SystemClock()
        self._builds: dict[str, _Build] = {}
        self._tasks = Group("environments")

    async def ensure(
        self,
        request: ImageRequest,
        requirements: Requirements | bytes | None,
        progress: Progress,
        *,
        pinned: str | None = None,
    ) -> Environment:
        """The environment of an image and a requirements.txt, built where it is not there. Raises DriverError.

        `pinned`: the ResolvedImage of an instance that this one replaces; its exact versions are used as long as their lock
        is known. Single-flight in this process and across processes; cancellable.
        """
        if isinstance(requirements, bytes):
            requirements = parse_requirements(requirements)
        plan, found = await asyncio.to_thread(self._look_up, request, requirements, pinned)
        if found is None:
            found = await self._join_build(plan, progress)
        progress(f"{request.image}: Python {found.python_version}, {found.resolved_image}")
        return found

    async def aclose(self) -> None:
        """End builds under way."""
        await self._tasks.aclose()

    # --- looking up: milliseconds, in a thread ---

    def _look_up(
        self, request: ImageRequest, requirements: Requirements | None, pinned: str | None
    ) -> tuple[_Plan, Environment | None]:
        for directory in (self._envs, self._locks, self._resolutions, self._guard, self._uv.cache_dir):
            directory.mkdir(parents=True, exist_ok=True)
        pinned_lock = self._pinned_lock(pinned)
        python, interpreter = self._pick_python(request, locks.python_of(pinned_lock or b""))
        key = self._resolution_key(python, requirements, interpreter)
        lock = pinned_lock if pinned_lock is not None else self._known_lock(key)
        if lock is None and not python.pins and requirements is None:
            lock = locks.compose(interpreter, from_source=False, options=(), body=b"")
        plan = _Plan(
            request=request, requirements=requirements, interpreter=interpreter, pins=python.pins, key=key, lock=lock
        )
        return plan, self._existing(plan, lock) if lock is not None else None

    def _pick_python(self, request: ImageRequest, minor: str | None) -> tuple[PythonPins, Interpreter]:
        choices = [p for p in request.pythons if minor is None or p.python == minor]
        if request.prefer_running_python:
            choices.sort(key=lambda p: p.python != self._interpreters.running_minor())
        for choice in choices:
            interpreter = self._interpreters.find(choice.python)
            if interpreter is not None:
                return choice, interpreter
        wanted = " or ".join(p.python for p in choices) or f"{minor}"
        raise DriverError(
            f"{request.image} needs Python {wanted}, and this machine has {', '.join(self._interpreters.installed())}. "
            "Install one of them (`uv python install`, pyenv or the system's packages), or use an image tag for a Python "
            "that is here.",
            retryable=False,
        )

    def _resolution_key(self, python: PythonPins, requirements: Requirements | None, interpreter: Interpreter) -> str:
        parts = [_FORMAT, interpreter.minor, interpreter.machine, self._index_url or "", *python.pins]
        parts.append(requirements.digest if requirements is not None else "")
        return sha256("\0".join(parts).encode()).hexdigest()

    def _pinned_lock(self, pinned: str | None) -> bytes | None:
        name = (pinned or "").rpartition("@sha256:")[2]
        return self._read_lock(name) if _SHA256.fullmatch(name) else None

    def _known_lock(self, key: str) -> bytes | None:
        try:
            name = json.loads((self._resolutions / f"{key}.json").read_bytes())["lock"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return self._read_lock(name) if isinstance(name, str) and _SHA256.fullmatch(name) else None

    def _read_lock(self, name: str) -> bytes | None:
        try:
            lock = (self._locks / f"{name}.txt").read_bytes()
        except FileNotFoundError:
            return None
        return lock if sha256(lock).hexdigest() == name else None

    def _existing(self, plan: _Plan, lock: bytes) -> Environment | None:
        environment = self._environment(plan, lock)
        marker = environment.path / MARKER
        if not marker.exists() or not environment.python.exists():
            return None
        now = self._clock.now_s()
        os.utime(marker, (now, now))
        return environment

    def _environment(self, plan: _Plan, lock: bytes) -> Environment:
        name = sha256("\0".join((_FORMAT, plan.interpreter.identity)).encode() + b"\0" + lock).hexdigest()
        path = self._envs / name[:40]
        lock_sha256 = sha256(lock).hexdigest()
        return Environment(
            path=path,
            python=path / "bin" / "python",
            python_version=plan.interpreter.version,
            base_prefix=plan.interpreter.base_prefix,
            resolved_image=f"{plan.request.repository}@sha256:{lock_sha256}",
            lock_sha256=lock_sha256,
        )

    # --- building: one task per resolution, any number of waiters ---

    async def _join_build(self, plan: _Plan, progress: Progress) -> Environment:
        # a pinned lock may differ from what the resolution would give today
        key = plan.key + (sha256(plan.lock).hexdigest() if plan.lock is not None else "")
        build = self._builds.get(key)
        if build is None:
            build = _Build(task=self._tasks.start(key[:12], self._build_caught(plan, key)))
            self._builds[key] = build
            build.task.add_done_callback(lambda _: self._forget(key, build))
        for line in build.lines:
            progress(line)
        build.listeners.append(progress)
        build.waiting += 1
        try:
            outcome = await asyncio.shield(build.task)
        finally:
            build.listeners.remove(progress)
            build.waiting -= 1
            if build.waiting == 0 and not build.task.done():
                build.task.cancel()
                self._forget(key, build)
        if isinstance(outcome, DriverError):
            raise DriverError(outcome.reason, retryable=outcome.retryable) from outcome
        return outcome

    def _forget(self, key: str, build: _Build) -> None:
        if self._builds.get(key) is build:
            del self._builds[key]

    async def _build_caught(self, plan: _Plan, key: str) -> Environment | DriverError:
        try:
            return await self._build_guarded(plan, key)
        except DriverError as error:
            return error
        except flocks.Busy as error:
            return DriverError(f"{plan.what}: another process builds it and does not end: {error}.", retryable=True)

    async def _build_guarded(self, plan: _Plan, key: str) -> Environment:
        def say(line: str) -> None:
            build = self._builds.get(key)
            if build is not None:
                build.say(line)

        async with (
            flocks.hold(self._guard / "store.lock", shared=True, timeout_s=GUARD_TIMEOUT_S),
            flocks.hold(self._guard / f"{plan.key[:40]}.lock", shared=False, timeout_s=GUARD_TIMEOUT_S),
        ):
            lock = plan.lock or await asyncio.to_thread(self._known_lock, plan.key)
            if lock is not None:
                found = await asyncio.to_thread(self._existing, plan, lock)
                if found is not None:
                    return found  # another process was first
            return await self._build(plan, lock, say)

    async def _build(self, plan: _Plan, lock: bytes | None, say: Progress) -> Environment:
        work = self._envs / f".tmp-{plan.key[:16]}-{token_hex(4)}"
        await asyncio.to_thread(work.mkdir)
        try:
            say(f"{plan.request.image}: building an environment with Python {plan.interpreter.version}")
            if lock is None:
                lock = await self._resolve(plan, work, say)
                await asyncio.to_thread(self._keep_lock, plan.key, lock)
            await self._install(plan, lock, work, say)
            return await asyncio.to_thread(self._publish, plan, lock, work)
        except OSError as error:
            raise DriverError(f"{plan.what}: the environment cannot be written: {error}.", retryable=True) from error
        finally:
            await to_the_end(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))

    async def _resolve(self, plan: _Plan, work: Path, say: Progress) -> bytes:
        """The lock. The image's packages stay at its versions where the user's requirements leave them; what the user asks
        for by name wins, as it does where pip installs a requirements.txt into the image.
        """
        user = plan.requirements
        named = user.names if user is not None else frozenset()
        exact = [locks.name_of(pin) if locks.name_of(pin) in named else pin for pin in plan.pins]
        loose = [locks.name_of(pin) for pin in plan.pins]
        attempts = [(exact, False)]
        if user is not None:
            attempts += [(loose, False)] if plan.pins else []
            attempts += [(exact, True), (loose, True)] if plan.pins else [(exact, True)]
        for image, from_source in attempts[:-1]:
            try:
                return await self._compile(plan, work, image, from_source, say)
            except DriverError as error:
                if error.retryable:
                    raise
        image, from_source = attempts[-1]
        return await self._compile(plan, work, image, from_source, say)

    async def _compile(self, plan: _Plan, work: Path, image: Sequence[str], from_source: bool, say: Progress) -> bytes:
        inputs = await asyncio.to_thread(_write_inputs, plan, work, image)
        arguments = ["pip", "compile", "--quiet", "--python", str(plan.interpreter.path), "--output-file", "lock.txt"]
        arguments += ["--generate-hashes", "--no-header", "--no-annotate", *_INDEX_OPTIONS]
        if not from_source:
            arguments += _WHEELS_ONLY
        for pin in plan.pins:
            # never hours of compiling NumPy: a version without a wheel for this Python is an answer
            arguments += ["--only-binary", locks.name_of(pin)]
        await self._uv.run(
            [*arguments, *inputs],
            directory=work,
            runs_code=from_source,
            readable=plan.interpreter_paths,
            timeout_s=RESOLVE_TIMEOUT_S,
            what=f"{plan.what}: its packages do not resolve for Python {plan.interpreter.version}",
            progress=lambda _: None,  # with --output-file and --quiet only errors remain, and they are in the reason
        )
        body = await asyncio.to_thread((work / "lock.txt").read_bytes)
        for line in locks.differences(plan.pins, body):
            say(line)
        options = plan.requirements.options if plan.requirements is not None else ()
        return locks.compose(plan.interpreter, from_source=from_source, options=options, body=body)

    async def _install(self, plan: _Plan, lock: bytes, work: Path, say: Progress) -> None:
        await self._uv.run(
            ["venv", "--quiet", "--relocatable", "--no-project", "--python", str(plan.interpreter.path), "env"],
            directory=work,
            runs_code=False,
            readable=plan.interpreter_paths,
            timeout_s=RESOLVE_TIMEOUT_S,
            what=f"{plan.what}: no environment with Python {plan.interpreter.version} can be made",
            progress=say,
        )
        if locks.is_empty(lock):
            return
        from_source = locks.is_from_source(lock)
        # what runs in the sandbox may write the environment, and must not reach the cache by a shared file
        mode = "hardlink" if self._uv.wrap is None else "copy"
        options = ["--link-mode", mode, *_INDEX_OPTIONS, *(() if from_source else _WHEELS_ONLY)]
        await asyncio.to_thread((work / "lock.txt").write_bytes, lock)
        await self._uv.run(
            ["pip", "sync", "--python", "env/bin/python", *options, "lock.txt"],
            directory=work,
            runs_code=from_source,
            readable=plan.interpreter_paths,
            timeout_s=INSTALL_TIMEOUT_S,
            what=f"{plan.what}: its packages cannot be installed for Python {plan.interpreter.version}",
            progress=say,
        )
        await self._compile_bytecode(plan, work, say)

    async def _compile_bytecode(self, plan: _Plan, work: Path, say: Progress) -> None:
        """Now, for instances cannot write and would compile at every start. Files that do not compile (templates, Python 2)
        are no failure.
        """
        try:
            await self._uv.execute(
                [str(work / "env/bin/python"), *_COMPILE, str(work / "env/lib")],
                directory=work,
                cache_dir=work / "uv",
                runs_code=True,
                readable=plan.interpreter_paths,
                timeout_s=INSTALL_TIMEOUT_S,
                take=lambda _: None,
            )
        except TimeoutError:
            say(
                f"{plan.what}: the packages are not all compiled after {INSTALL_TIMEOUT_S:.0f} s; they load more slowly"
            )

    def _keep_lock(self, key: str, lock: bytes) -> None:
        name = sha256(lock).hexdigest()
        write_private(self._locks / f"{name}.txt", lock)
        write_private(self._resolutions / f"{key}.json", json.dumps({"lock": name}).encode())

    def _publish(self, plan: _Plan, lock: bytes, work: Path) -> Environment:
        environment = self._environment(plan, lock)
        if not (self._locks / f"{environment.lock_sha256}.txt").exists():
            write_private(self._locks / f"{environment.lock_sha256}.txt", lock)
        built = work / "env"
        marker = {"python": plan.interpreter.identity, "lock": environment.lock_sha256}
        (built / MARKER).write_text(json.dumps(marker))
        now = self._clock.now_s()
        os.utime(built / MARKER, (now, now))  # last used, for collect
        disk.sync_tree(built)
        if environment.path.exists():
            if self._existing(plan, lock) is not None:
                return environment  # built from another resolution with the same outcome
            environment.path.rename(work / "broken")  # its interpreter went away, or someone took files out
        built.rename(environment.path)
        disk.sync_directory(self._envs)
        return environment

    # --- keeping it bounded ---

    async def collect(self, max_bytes: int, in_use: Collection[str], *, min_idle_s: float = 600.0) -> int:
        """Bring the directory under `max_bytes`: leftovers of crashes, then uv's cache, then environments not used for the
        longest. Never one named in `in_use` or used within `min_idle_s`. Returns the bytes freed; 0 while a build runs.
        """
        try:
            async with flocks.hold(self._guard / "store.lock", shared=False, timeout_s=0.0):
                return await asyncio.to_thread(self._collect, max_bytes, frozenset(in_use), min_idle_s)
        except flocks.Busy:
            return 0

    def _collect(self, max_bytes: int, in_use: frozenset[str], min_idle_s: float) -> int:
        before = disk.used_bytes(self._root)
        for leftover in self._envs.glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if disk.used_bytes(self._root) > max_bytes:
            shutil.rmtree(self._uv.cache_dir, ignore_errors=True)
            self._uv.cache_dir.mkdir(exist_ok=True)
        newest_to_go = self._clock.now_s() - min_idle_s
        candidates = sorted(
            (used_s, path)
            for path in self._envs.iterdir()
            if path.name not in in_use and (used_s := _last_used_s(path)) <= newest_to_go
        )
        for _, path in candidates:
            if disk.used_bytes(self._root) <= max_bytes:
                break
            doomed = path.rename(path.with_name(f".tmp-{path.name}"))  # at once invalid, then gone
            shutil.rmtree(doomed, ignore_errors=True)
        return max(0, before - disk.used_bytes(self._root))


def _last_used_s(path: Path) -> float:
    try:
        return (path / MARKER).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _write_inputs(plan: _Plan, work: Path, image: Sequence[str]) -> list[str]:
    """The files that uv resolves; the image's versions are there as a former answer, which uv keeps where it can."""
    (work / "image.in").write_text("".join(f"{line}\n" for line in image))
    (work / "lock.txt").write_text("".join(f"{pin}\n" for pin in plan.pins if "==" in pin))
    if plan.requirements is None:
        return ["image.in"]
    for name, content in plan.requirements.files.items():
        target = work / "code" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return ["image.in", f"code/{MAIN}"]
