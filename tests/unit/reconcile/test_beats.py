import os
import subprocess
import sys
from dataclasses import replace

from mooring.reconcile import beats
from mooring.reconcile.beats import Identity, Watch

WORKER = Identity(pid=10, parent_pid=1, start_ticks=5)


def looks(watch: Watch, *, beating: bool, identity: Identity | None = WORKER, seconds: int = 20) -> list[int]:
    return [
        second for second in range(seconds) if watch.observe(0, identity, second if beating else 7, now_s=float(second))
    ]


def test_a_worker_whose_heart_stands_still_for_five_seconds_is_silent() -> None:
    assert looks(Watch(), beating=False)[0] == 5


def test_a_beating_worker_and_an_absent_one_are_left_alone() -> None:
    assert not looks(Watch(), beating=True)
    assert not looks(Watch(), beating=False, identity=None)


def test_a_new_process_of_the_same_id_is_watched_from_the_start() -> None:
    watch = Watch()
    looks(watch, beating=False, seconds=5)
    assert not watch.observe(0, replace(WORKER, start_ticks=6), 7, now_s=5)
    assert not watch.observe(0, replace(WORKER, start_ticks=6), 7, now_s=9)


def test_a_watcher_that_was_held_up_itself_blames_nobody() -> None:
    watch = Watch()
    watch.observe(0, WORKER, 7, now_s=0)
    assert not watch.observe(0, WORKER, 7, now_s=60)


def test_a_stat_line_is_read_whatever_the_command_is_called() -> None:
    line = "42 (evil) S 1 9) R 7 " + " ".join(str(field) for field in range(5, 53))
    assert beats.parse_stat(line) == Identity(pid=42, parent_pid=7, start_ticks=22)


def test_only_the_supervisors_own_child_that_was_watched_is_killed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        identity = beats.identify(child.pid)
        assert identity is not None
        assert identity.parent_pid == os.getpid()
        assert not beats.kill(identity, supervisor_pid=1)
        assert not beats.kill(replace(identity, start_ticks=1), supervisor_pid=os.getpid())
        assert child.poll() is None
        assert beats.kill(identity, supervisor_pid=os.getpid())
        assert child.wait(timeout=30) == -9
        assert beats.identify(child.pid) is None
        assert not beats.kill(identity, supervisor_pid=os.getpid())
    finally:
        child.kill()
        child.communicate()
