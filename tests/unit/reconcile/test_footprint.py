"""The memory of an instance, read from /proc."""

import subprocess
import sys
from pathlib import Path

import pytest

from mooring.domain.ids import InstanceId
from mooring.domain.instance import Handle
from mooring.reconcile import beats, footprint

MIB = 1 << 20


def handle(pid: int, start_ticks: int) -> Handle:
    return Handle(
        instance_id=InstanceId("i-1"),
        driver="process",
        directory="/",
        address="unix:x",
        resolved_image="x",
        shim_pid=pid,
        shim_start_ticks=start_ticks,
    )


def test_mapped_files_do_not_count_where_they_are_told_apart() -> None:
    text = "Name:\tx y\nVmRSS:\t  900 kB\nRssAnon:\t 100 kB\nRssFile:\t 750 kB\nRssShmem:\t 50 kB\nThreads:\t3\n"
    assert footprint.own_bytes(text) == 150 * 1024
    assert footprint.own_bytes("VmRSS:\t  900 kB\n") == 900 * 1024
    assert footprint.own_bytes("Name:\tkthreadd\n") == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_processes_below_the_shim_count_too() -> None:
    own = f"held = bytearray(b'x' * {40 * MIB}); print(1, flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {own!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shim:
        try:
            assert shim.stdout is not None
            assert shim.stdout.readline()
            identity = beats.identify(shim.pid)
            assert identity is not None
            taken = footprint.measure(handle(shim.pid, identity.start_ticks))
            assert taken is not None
            assert 40 * MIB < taken < 400 * MIB
            assert footprint.measure(handle(shim.pid, identity.start_ticks + 1)) is None, "another process of that id"
        finally:
            shim.communicate(b"\n")
    assert footprint.measure(handle(shim.pid, identity.start_ticks)) is None
    assert footprint.measure(handle(0, 0)) is None
