"""Driver over processes: one bubblewrap sandbox and one shim per instance (contract.shim draws the directory).

    prepare   image → environment, model data → cache          (slow, shared)
    start     directory + spec.json + lock ─▶ control group ─▶ shim ─▶ bwrap ─▶ server
    recover   the lock is held? ─▶ ask the shim                 sweep   directories, groups and shims that nobody knows

Called by reconcile. All files and waits of more than a moment are in threads. Every step leaves something on disk from which
a later server life can go on: spec.json names the control group before that is made, and the lock is held from before the
shim exists (its descriptor is inherited) until the shim is dead.
"""

import asyncio
import hashlib
import os
import shutil
import signal
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mooring import contract
from mooring.contract import shim as names
from mooring.domain.ids import InstanceId
from mooring.domain.instance import Exit, Handle, InstanceSpec
from mooring.kit.clock import Clock
from mooring.kit.tasks import Group
from mooring.runtime import archive, cgroups, images, instance_dir, instance_log, network, recipes, sandbox, shim_client
from mooring.runtime.artifacts import Artifact, ArtifactCache
from mooring.runtime.driver import Capabilities, DriverError, Prepared, Progress
from mooring.runtime.environments import EnvironmentStore
from mooring.runtime.instance_dir import InstanceDirectory, Record
from mooring.runtime.network import Network, Server
from mooring.runtime.recipes import Recipe
from mooring.runtime.requirements import read_requirements
from mooring.runtime.sandbox import Mode, Program, Room, System
from mooring.s3 import base as s3

DRIVER = "process"
_ANSWER_S = 5.0  # for a shim to say that it lives
_KILL_S = 5.0
_STOP_SLACK_S = 15.0  # beyond the grace, for a shim to end
_COLLECT_EVERY_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What an operator may change."""

    egress: network.Wish = "none"
    sandbox: bool = True
    bounds: archive.Bounds = field(default_factory=archive.Bounds)
    artifacts_max_bytes: int = 20 << 30
    environments_max_bytes: int = 10 << 30


class ProcessDriver:
    """See the module. Made by `open`."""

    def __init__(
        self,
        *,
        data_dir: Path,
        artifacts: ArtifactCache,
        environments: EnvironmentStore,
        clock: Clock,
        settings: ProcessSettings,
        system: System,
        outside: Network,
        server: Server | None,
        groups: cgroups.ControlGroups,
    ) -> None:
        self._data_dir = os.path.abspath(data_dir)
        self._instances = os.path.join(self._data_dir, "instances")
        self._server_root = os.path.join(self._data_dir, "cache", "server")
        self._artifacts = artifacts
        self._environments = environments
        self._clock = clock
        self._settings = settings
        self._system = system
        self._network = outside
        self._server = server
        self._groups = groups
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._uids: dict[str, int] = {}  # of starts under way
        self._collect_at_s = clock.monotonic_s() + _COLLECT_EVERY_S
        self._tasks = Group("process-driver")

    @classmethod
    async def open(
        cls,
        *,
        data_dir: Path,
        node_id: str,
        objects: s3.ObjectStore,
        environments: EnvironmentStore,
        clock: Clock,
        settings: ProcessSettings | None = None,
        server: Server | None = None,
    ) -> "ProcessDriver":
        """Find out what this machine can do and make the directories. `node_id`: names control groups. `server`: what
        instances find as the AWS endpoint; None: nothing.
        """
        settings = settings or ProcessSettings()
        root = os.path.join(os.path.abspath(data_dir), "cache", "artifacts")  # noqa: ASYNC240  # no I/O
        artifacts = ArtifactCache(root, objects, clock, bounds=settings.bounds, max_bytes=settings.artifacts_max_bytes)
        await asyncio.to_thread(artifacts.start)
        system = await asyncio.to_thread(sandbox.probe, plain=not settings.sandbox)
        return cls(
            data_dir=data_dir,
            artifacts=artifacts,
            environments=environments,
            clock=clock,
            settings=settings,
            system=system,
            outside=await asyncio.to_thread(network.probe, system, settings.egress),
            server=server,
            groups=await asyncio.to_thread(cgroups.ControlGroups.probe, node_id),
        )

    @property
    def capabilities(self) -> Capabilities:
        """What was found at `open`."""
        notes = [*self._system.notes, *filter(None, (self._network.note,))]
        if self._groups.missing:
            notes.append(f"no hard limits for {', '.join(self._groups.missing)}: control groups cannot be made here")
        return Capabilities(
            sandbox=self._system.mode is not Mode.PLAIN,
            network_namespace=self._network.own,
            hard_limits=not self._groups.missing,
            notes=tuple(notes),
        )

    # prepare -----------------------------------------------------------------------------------------------------
    async def prepare(self, spec: InstanceSpec, progress: Progress) -> Prepared:
        """Model data into the cache, environment built; see Driver."""
        request = images.recognise(spec.image)
        if request is None:
            raise DriverError(recipes.unknown_image(spec.image), retryable=False)
        artifact, code = await self._fetch(spec, progress)
        code_directory = Path(code.directory) if code is not None else Path(artifact.directory, "code")
        requirements = await asyncio.to_thread(read_requirements, code_directory)
        environment = await self._environments.ensure(request, requirements, progress, pinned=spec.resolved_image)
        self._collect_sometimes()
        program = recipes.server_program(
            spec,
            environment,
            request.family,
            code,
            plain_root=self._server_root if self._system.mode is Mode.PLAIN else None,
            tcp=self._network.own,
            endpoint_url=self._network.endpoint_url(self._server),
        )
        return Prepared(
            resolved_image=environment.resolved_image,
            resolved_at_s=self._clock.now_s(),
            token=Recipe(program=program, artifact=artifact, code=code, environment=environment.name),
        )

    async def _fetch(self, spec: InstanceSpec, progress: Progress) -> tuple[Artifact, Artifact | None]:
        """(model data, code that SAGEMAKER_SUBMIT_DIRECTORY names in S3, as SDK v2 does without repacking)."""
        submit = spec.environment.get(contract.ENV_SUBMIT_DIRECTORY, "")
        uri = spec.model_data_url
        try:
            async with asyncio.timeout(spec.download_timeout_s):
                artifact, code = self._artifacts.empty, None
                if uri is not None:
                    artifact = await self._artifacts.ensure(uri, progress, deadline_s=spec.download_timeout_s)
                if submit.startswith("s3://"):
                    code = await self._artifacts.ensure(submit, progress, deadline_s=spec.download_timeout_s)
        except TimeoutError as error:
            raise DriverError(
                f"Downloading and unpacking model data took longer than {spec.download_timeout_s:g} seconds.",
                retryable=True,
            ) from error
        return artifact, code

    # start -------------------------------------------------------------------------------------------------------
    async def start(self, spec: InstanceSpec, prepared: Prepared) -> Handle:
        """See Driver. Takes tens of milliseconds."""
        recipe = prepared.token
        if not isinstance(recipe, Recipe):
            raise TypeError("prepared by another driver")
        for name, value in recipe.program.environment.items():
            if "\0" in name or "\0" in value:
                raise DriverError(f"the environment variable {name[:80]!r} holds a NUL character", retryable=False)
        async with self._lock(spec.instance_id):
            work = asyncio.ensure_future(asyncio.to_thread(self._start, spec, recipe, prepared.resolved_image))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])  # then nothing may be left of it
                await asyncio.shield(asyncio.to_thread(self._remove, spec.instance_id))
                raise

    def _start(self, spec: InstanceSpec, recipe: Recipe, resolved_image: str) -> Handle:
        directory = InstanceDirectory(self._instances, spec.instance_id)
        if directory.exists():  # what an attempt before a crash may have left
            self._remove(spec.instance_id)
        try:
            record = self._record(spec, recipe, directory, resolved_image)
            directory.make(record)
            lock_fd = directory.take_lock()
            try:
                identity = self._launch(spec, recipe, directory, record, lock_fd)
            finally:
                os.close(lock_fd)
            return _handle(directory, record, identity)
        except OSError as error:
            self._remove(spec.instance_id)
            raise DriverError(f"the instance could not be started: {error}", retryable=True) from error
        except BaseException:
            self._remove(spec.instance_id)
            raise
        finally:
            self._uids.pop(spec.instance_id, None)

    def _record(self, spec: InstanceSpec, recipe: Recipe, directory: InstanceDirectory, resolved_image: str) -> Record:
        tcp = recipe.program.tcp
        address = f"dial:{directory.file(names.SOCKET)}" if tcp else f"unix:{directory.serve_socket}"
        return Record(
            instance_id=spec.instance_id,
            control_group=tuple(self._groups.directories(spec.instance_id)),
            address=address,
            resolved_image=resolved_image,
            uid=self._pick_uid(spec.instance_id),
            artifacts=tuple(part.digest for part in (recipe.artifact, recipe.code) if part is not None),
            environment=recipe.environment,
            log_directory=instance_log.log_directory(self._data_dir, spec),
        )

    def _pick_uid(self, instance_id: InstanceId) -> int:
        """An id that no other instance of this directory has; from the instance's name, so that servers rarely meet."""
        system = self._system
        if system.mode is not Mode.ROOT:
            return os.geteuid()
        records = (InstanceDirectory(self._instances, other).record() for other in self._ids())
        taken = {record.uid for record in records if record is not None} | set(self._uids.values())
        offset = int.from_bytes(hashlib.sha256(f"{self._data_dir}\0{instance_id}".encode()).digest()[:8], "big")
        while (uid := system.uid_base + offset % system.uid_count) in taken:
            offset += 1
        self._uids[instance_id] = uid
        return uid

    def _launch(
        self, spec: InstanceSpec, recipe: Recipe, directory: InstanceDirectory, record: Record, lock_fd: int
    ) -> Mapping[str, object]:
        failures = self._groups.make(spec.instance_id, spec.limits)
        room = self._furnish(spec, recipe, directory, record)
        program = self._placed(recipe, directory, room)
        document = shim_client.launch_document(
            directory=directory.path,
            log_directory=record.log_directory,
            command=sandbox.plan_command(self._system, program, room, egress="none" if self._network.own else "host"),
            control_group=list(record.control_group),
            system=self._system,
            limits=spec.limits,
            slirp=list(self._network.slirp),
            forward=(self._network.forward_port(self._server), self._server.address_file if self._server else ""),
            preamble=self._preamble(spec, failures),
        )
        return shim_client.spawn(document, lock_fd=lock_fd)

    def _furnish(self, spec: InstanceSpec, recipe: Recipe, directory: InstanceDirectory, record: Record) -> Room:
        sockets, etc = directory.file(names.SERVE_DIRECTORY), directory.file("etc")
        os.mkdir(sockets, 0o700)
        if self._system.mode is Mode.ROOT:
            os.chown(sockets, record.uid, record.uid)
        os.mkdir(etc, 0o700)
        for name, content in sandbox.etc_files(record.uid, self._network.resolver()).items():
            path = Path(etc, name)
            path.write_text(content, "ascii")
            path.chmod(0o644)
        return Room(
            etc=etc,
            sockets=sockets,
            model=recipe.artifact.directory,
            tmp_bytes=spec.limits.tmp_bytes,
            memory_bytes=spec.limits.memory_bytes,
            uid=record.uid,
        )

    def _placed(self, recipe: Recipe, directory: InstanceDirectory, room: Room) -> Program:
        """The program with the places of this instance in its environment."""
        program, environment = recipe.program, dict(recipe.program.environment)
        if self._system.mode is not Mode.PLAIN:
            environment[contract.ENV_SOCKET] = f"{sandbox.SOCKET_DIRECTORY}/{names.SERVE_SOCKET}"
        else:
            environment[contract.ENV_SOCKET] = directory.serve_socket
            environment[contract.ENV_MODEL_DIR] = room.model
            environment["TMPDIR"] = _made(directory.file("tmp"))
            recipes.show_server(self._server_root)
        return Program(
            argv=program.argv,
            environment=environment,
            mounts=program.mounts,
            python=program.python,
            tcp=program.tcp,
        )

    def _preamble(self, spec: InstanceSpec, failures: Sequence[str]) -> list[str]:
        lines = [*spec.limits.notes, *self._system.notes]
        if failures:
            lines.append(f"not all limits of the instance type are in force: {'; '.join(failures)}")
        if self._network.note:
            lines.append(self._network.note)
        elif self._network.own and not self._network.slirp:
            lines.append("this container has no access to the network beyond the server (runtime_egress = none)")
        return [f"mooring: {line}" for line in lines]

    # afterwards --------------------------------------------------------------------------------------------------
    async def recover(self, spec: InstanceSpec, handle: Handle | None) -> Handle | None:
        """See Driver. An instance whose shim does not answer is killed and counts as gone."""
        directory = InstanceDirectory(self._instances, spec.instance_id)
        async with self._lock(spec.instance_id):
            identity = await self._identity(directory)
            if identity is None:
                return None
            record = await asyncio.to_thread(directory.record)
            if record is None or (handle is not None and handle.boot_id != identity["boot_id"]):
                await asyncio.to_thread(self._kill, directory)
                return None
            return _handle(directory, record, identity)

    async def _identity(self, directory: InstanceDirectory) -> Mapping[str, object] | None:
        """What the shim says of itself; None when it is dead, or killed here for saying nothing."""
        end_s = self._clock.monotonic_s() + _ANSWER_S
        while await asyncio.to_thread(directory.is_held):
            try:
                answer = await shim_client.ask(directory.path, {"op": "status"}, timeout_s=_ANSWER_S)
                if answer.get("ok"):
                    return answer
            except (shim_client.ShimGone, TimeoutError):
                pass  # it may be starting: asked again until the time is over
            if self._clock.monotonic_s() > end_s:
                await asyncio.to_thread(self._kill, directory)
                return None
            await asyncio.sleep(0.05)
        return None

    async def wait(self, handle: Handle) -> Exit:
        """See Driver."""
        directory = InstanceDirectory(self._instances, handle.instance_id)
        while True:
            try:
                return instance_dir.parse_exit(await shim_client.ask(directory.path, {"op": "wait"}, timeout_s=None))
            except shim_client.ShimGone:
                outcome = await asyncio.to_thread(self._outcome, directory)
            if outcome is not None:
                return outcome
            await asyncio.sleep(0.1)  # alive, but starting or ending

    def _outcome(self, directory: InstanceDirectory) -> Exit | None:
        """How it ended; None while the lock is held. A shim that left no record was killed, and all with it."""
        if directory.is_held():
            return None
        recorded = directory.exit()
        if recorded is not None:
            return recorded
        self._kill(directory)
        record = directory.record()
        words = "" if record is None else instance_log.tail(record.log_directory, names.LAST_WORDS_BYTES)
        return Exit(code=-signal.SIGKILL, last_words=words)

    async def stop(self, handle: Handle, *, grace_s: float) -> Exit:
        """See Driver."""
        directory = InstanceDirectory(self._instances, handle.instance_id)
        command = {"op": "stop", "grace_s": grace_s}
        for _ in range(3):  # a shim that has too many connections lets one go at times
            try:
                answer = await shim_client.ask(directory.path, command, timeout_s=grace_s + _STOP_SLACK_S)
                if "code" in answer:
                    return instance_dir.parse_exit(answer)
            except TimeoutError:
                break
            except shim_client.ShimGone:
                pass
            outcome = await asyncio.to_thread(self._outcome, directory)
            if outcome is not None:
                return outcome
            await asyncio.sleep(0.1)
        await asyncio.to_thread(self._kill, directory)
        return await asyncio.to_thread(self._outcome, directory) or Exit(code=None)

    async def remove(self, instance_id: InstanceId) -> None:
        """See Driver."""
        async with self._lock(instance_id):
            await asyncio.to_thread(self._remove, instance_id)

    async def sweep(self, known: Collection[InstanceId]) -> Sequence[InstanceId]:
        """See Driver. Also shims whose directory is deleted, and groups without a directory."""
        strays = sorted(await asyncio.to_thread(self._strays, frozenset(known)))
        for stray in strays:
            await self.remove(stray)
        return strays

    def _strays(self, known: frozenset[InstanceId]) -> set[InstanceId]:
        for leftover in self._entries("."):
            shutil.rmtree(os.path.join(self._instances, leftover), ignore_errors=True)
        shims = instance_dir.find_shims(self._instances)
        found = {*self._ids(), *self._groups.strays(), *(name for name in shims if "/" not in name)}
        return {InstanceId(name) for name in found} - known

    async def last_words(self, handle: Handle, *, max_bytes: int) -> str:
        """See Driver."""
        return await asyncio.to_thread(self._last_words, handle.instance_id, max_bytes)

    def _last_words(self, instance_id: InstanceId, max_bytes: int) -> str:
        record = InstanceDirectory(self._instances, instance_id).record()
        return "" if record is None else instance_log.tail(record.log_directory, max_bytes)

    # killing and removing: blocking --------------------------------------------------------------------------------
    def _kill(self, directory: InstanceDirectory) -> None:
        """SIGKILL the shim (its sandbox dies with it) and whatever is in the control group. Idempotent."""
        identity = directory.shim()
        if identity is not None and instance_dir.is_same_process(identity):
            _sigkill(identity[0])
        elif directory.is_held() or not directory.exists():  # it has not written its identity, or cannot any more
            for stray in instance_dir.find_shims(self._instances).get(directory.instance_id, ()):
                _sigkill(stray)
        record = directory.record()
        group = self._groups.directories(directory.instance_id) if record is None else record.control_group
        left = cgroups.empty(group, deadline_s=_KILL_S)
        if left or not directory.wait_free(_KILL_S):
            raise DriverError(
                f"the instance {directory.instance_id} cannot be killed: {left or 'its shim lives on'}", retryable=True
            )

    def _remove(self, instance_id: InstanceId) -> None:
        directory = InstanceDirectory(self._instances, instance_id)
        record = directory.record()
        self._kill(directory)
        group = self._groups.directories(instance_id) if record is None else record.control_group
        left = cgroups.remove(group)
        if left:
            raise DriverError(
                f"control groups of {instance_id} could not be removed: {'; '.join(left)}", retryable=True
            )
        directory.remove()

    def _ids(self) -> list[InstanceId]:
        return [InstanceId(name) for name in self._entries("")]

    def _entries(self, prefix: str) -> list[str]:
        try:
            entries = os.listdir(self._instances)
        except FileNotFoundError:
            return []
        return [name for name in entries if name.startswith(".") == bool(prefix)]

    def _lock(self, instance_id: str) -> asyncio.Lock:
        lock = self._locks.get(instance_id)
        if lock is None:
            lock = self._locks[instance_id] = asyncio.Lock()
        return lock

    # caches ----------------------------------------------------------------------------------------------------------
    async def collect(self) -> None:
        """Bring the caches within their bounds; what instances use stays."""
        records = await asyncio.to_thread(self._records)
        in_use = {digest for record in records for digest in record.artifacts}
        await asyncio.to_thread(self._artifacts.collect, in_use)
        await self._environments.collect(
            max_bytes=self._settings.environments_max_bytes, in_use={record.environment for record in records}
        )

    def _collect_sometimes(self) -> None:
        """Beside the work: measuring the caches takes its time, and nobody who starts an instance shall wait for it."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._collect_at_s:
            self._collect_at_s = now_s + _COLLECT_EVERY_S
            self._tasks.start("collect", self.collect())

    async def aclose(self) -> None:
        """End what runs beside. Instances live on."""
        await self._tasks.aclose()

    def _records(self) -> list[Record]:
        records = (InstanceDirectory(self._instances, instance_id).record() for instance_id in self._ids())
        return [record for record in records if record is not None]


def _made(path: str) -> str:
    os.mkdir(path, 0o700)
    return path


def _handle(directory: InstanceDirectory, record: Record, identity: Mapping[str, object]) -> Handle:
    return Handle(
        instance_id=directory.instance_id,
        driver=DRIVER,
        directory=directory.path,
        address=record.address,
        resolved_image=record.resolved_image,
        shim_pid=int(str(identity["pid"])),
        shim_start_ticks=int(str(identity["start_ticks"])),
        boot_id=str(identity["boot_id"]),
    )


def _sigkill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
