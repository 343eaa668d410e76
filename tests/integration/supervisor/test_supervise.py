"""The supervisor with real child processes that do next to nothing."""

import asyncio
import os
import signal
from pathlib import Path

from mooring.kit.clock import SystemClock
from mooring.kit.tasks import Group
from mooring.supervisor import children, supervise
from mooring.supervisor.children import ChildSpec, Start
from mooring.supervisor.supervise import Supervisor

OBEDIENT = """
import os, signal, sys, time
def end(*_):
    open(sys.argv[1] + ".ended", "w").write(str(time.monotonic()))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1], "a").write(f"{os.getpid()} {os.getsid(0)}\\n")
while True:
    time.sleep(60)
"""
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "a").write(f"{os.getpid()} {os.getsid(0)}\\n")
while True:
    time.sleep(60)
"""


def child(tmp_path: Path, name: str, *, stage: int = 0, script: str = OBEDIENT, grace_s: float = 5.0) -> ChildSpec:
    return ChildSpec(
        name=name,
        arguments=("-c", script, str(tmp_path / name)),
        prepare=lambda: Start(environment=dict(os.environ), pass_fds=()),
        grace_s=grace_s,
        stage=stage,
    )


def starts(tmp_path: Path, name: str) -> list[int]:
    try:
        return [int(line.split()[0]) for line in (tmp_path / name).read_text().splitlines() if " " in line]
    except FileNotFoundError:
        return []


async def until(true: object, timeout_s: float = 20.0) -> None:
    assert callable(true)
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Run:
    """A supervisor running in this loop."""

    def __init__(self, *specs: ChildSpec) -> None:
        self.supervisor = Supervisor(specs, SystemClock())
        self.stops = 0
        self.tasks = Group("test")
        self.result = self.tasks.start("run", self.supervisor.run(on_stop=self._on_stop))

    def _on_stop(self) -> None:
        self.stops += 1


async def test_a_child_that_dies_is_started_again_and_the_others_are_left_alone(tmp_path: Path) -> None:
    run = Run(child(tmp_path, "a"), child(tmp_path, "b"))
    await until(lambda: starts(tmp_path, "a") and starts(tmp_path, "b"))
    os.kill(starts(tmp_path, "a")[0], signal.SIGKILL)
    await until(lambda: len(starts(tmp_path, "a")) == 2)
    assert len(starts(tmp_path, "b")) == 1
    os.kill(os.getpid(), signal.SIGTERM)
    assert await run.result == 0
    assert not any(is_alive(pid) for name in "ab" for pid in starts(tmp_path, name))


async def test_children_are_stopped_stage_by_stage(tmp_path: Path) -> None:
    run = Run(child(tmp_path, "last", stage=2), child(tmp_path, "first", stage=0), child(tmp_path, "middle", stage=1))
    names = ("first", "middle", "last")
    await until(lambda: all(starts(tmp_path, name) for name in names))
    os.kill(os.getpid(), signal.SIGINT)
    assert await run.result == 0
    ends = [float((tmp_path / f"{name}.ended").read_text()) for name in names]
    assert ends == sorted(ends)
    assert run.stops == 1


async def test_a_child_that_will_not_end_is_killed(tmp_path: Path) -> None:
    run = Run(child(tmp_path, "a", script=STUBBORN, grace_s=0.2))
    await until(lambda: starts(tmp_path, "a"))
    os.kill(os.getpid(), signal.SIGTERM)
    assert await run.result == 0
    assert not is_alive(starts(tmp_path, "a")[0])


async def test_a_second_signal_kills_at_once(tmp_path: Path) -> None:
    run = Run(child(tmp_path, "a", script=STUBBORN, grace_s=600))
    await until(lambda: starts(tmp_path, "a"))
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: run.stops)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(run.result, 20) == supervise.EXIT_FORCED
    assert not is_alive(starts(tmp_path, "a")[0])


async def test_children_have_a_session_of_their_own_so_that_ctrl_c_is_not_theirs(tmp_path: Path) -> None:
    run = Run(child(tmp_path, "a"))
    await until(lambda: starts(tmp_path, "a"))
    pid, session = (tmp_path / "a").read_text().split()
    assert pid == session
    os.kill(os.getpid(), signal.SIGTERM)
    assert await run.result == 0


async def test_a_stop_while_a_child_waits_to_be_started_again_ends(tmp_path: Path) -> None:
    run = Run(child(tmp_path, "a", script="import sys; open(sys.argv[1], 'a').write('0 0\\n'); sys.exit(3)"))
    await until(lambda: len(starts(tmp_path, "a")) >= 3)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(run.result, 20) == 0


async def test_a_child_that_says_it_is_hopeless_ends_the_server(tmp_path: Path) -> None:
    run = Run(
        child(tmp_path, "good"),
        child(tmp_path, "bad", script=f"import sys; sys.exit({children.EXIT_HOPELESS})"),
    )
    assert await asyncio.wait_for(run.result, 20) == supervise.EXIT_BROKEN
    assert run.supervisor.children[1].starts == 1
    assert not any(is_alive(pid) for pid in starts(tmp_path, "good"))


async def test_a_child_dies_when_its_supervisor_does(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from mooring.supervisor import parent\n"
        "if (pid := os.fork()) == 0:\n"
        "    parent.die_with(os.getppid())\n"
        "    open(sys.argv[1], 'a').write(f'{os.getpid()} 0\\n')\n"
        "    time.sleep(600)\n"
        "while not os.path.exists(sys.argv[1]):\n"
        "    time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    import subprocess
    import sys

    process = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, str(tmp_path / "a")], timeout=20)
    assert process.returncode == -signal.SIGKILL
    await until(lambda: starts(tmp_path, "a") and not is_alive(starts(tmp_path, "a")[0]))
