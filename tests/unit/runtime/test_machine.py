from pathlib import Path

import pytest

from mooring.runtime import machine

MEMINFO = "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:    12000 kB\nHugePages_Total:       0\n"


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(machine, "_PROC_MEMINFO", tmp_path / "meminfo")
    limits = ((tmp_path / "memory.max", tmp_path / "memory.current"),)
    monkeypatch.setattr(machine, "_CGROUP_MEMORY", limits)
    return tmp_path


def test_a_machine_without_a_group_limit_has_what_proc_says(at: Path) -> None:
    (at / "memory.max").write_text("max\n")
    (at / "memory.current").write_text("1\n")
    found = machine.read_inventory()
    assert (found.memory_bytes, found.memory_available_bytes) == (16000 << 10, 12000 << 10)
    assert found.vcpu >= 1
    assert found.gpus == 0


def test_a_group_limit_below_the_machines_memory_counts_and_file_cache_is_not_used_up(at: Path) -> None:
    (at / "memory.max").write_text(str(8000 << 10))
    (at / "memory.current").write_text(str(6000 << 10))
    (at / "memory.stat").write_text(f"anon 5\ninactive_file {2000 << 10}\n")
    found = machine.read_inventory()
    assert (found.memory_bytes, found.memory_available_bytes) == (8000 << 10, 4000 << 10)


@pytest.mark.parametrize(("said", "meant"), [("aarch64", "arm64"), ("AMD64", "x86_64"), ("x86_64", "x86_64")])
def test_architectures_have_one_name(said: str, meant: str) -> None:
    assert machine._architecture(said) == meant
