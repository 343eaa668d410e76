"""The memory of an instance, read from /proc."""

import asyncio
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


def test_fields_are_summed_where_there_are_any() -> None:
    text = "Name:\tx y\nVmRSS:\t  900 kB\nRssAnon:\t 100 kB\nRssFile:\t 750 kB\nRssShmem:\t 50 kB\nGroups:\n"
    assert footprint.sum_fields(text, ("RssAnon:", "RssShmem:")) == 150 * 1024
    assert footprint.sum_fields(text, ("Pss_Anon:",)) is None


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")
async def test_what_processes_below_the_shim_hold_counts_and_what_they_share_counts_once() -> None:
    own = f"""
import os
held = bytearray(b"x" * {60 * MIB})
ends = os.pipe()
for _ in range(3):
    if not os.fork():
        os.close(ends[1])
        os.read(ends[0], 1)
        os._exit(0)
print(1, flush=True)
input()
"""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {own!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shim:
        try:
            assert shim.stdout is not None
            assert await asyncio.to_thread(shim.stdout.readline)
            identity = beats.identify(shim.pid)
            assert identity is not None
            taken = await footprint.measure(handle(shim.pid, identity.start_ticks))
            assert taken is not None
            assert 60 * MIB < taken < 120 * MIB
            other = await footprint.measure(handle(shim.pid, identity.start_ticks + 1))
            assert other is None, "another process had that id"
        finally:
            await asyncio.to_thread(shim.communicate, b"\n")
    assert await footprint.measure(handle(shim.pid, identity.start_ticks)) is None
    assert await footprint.measure(handle(0, 0)) is None
