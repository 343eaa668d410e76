"""Control groups: what is read of /proc, which limits are written, and the work on directories, on a tree of plain files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain.instance import Limits
from mooring.kit import control_groups
from mooring.runtime import cgroups

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / {root}/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / {root}/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 /docker/abc {root}/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / {root}/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2 = "30 23 0:26 / {root} rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_v1_mounts_are_found_by_controller() -> None:
    mounts = cgroups.parse_mounts(V1.format(root="/sys/fs/cgroup"))
    assert mounts.v1 == {
        "cpu": ("/sys/fs/cgroup/cpu,cpuacct", "/"),
        "memory": ("/sys/fs/cgroup/memory", "/"),
        "pids": ("/sys/fs/cgroup/pids", "/docker/abc"),
    }
    assert mounts.v2 == ("/sys/fs/cgroup/unified", "/")


def test_mount_points_with_spaces_are_read() -> None:
    assert cgroups.parse_mounts(V2.format(root="/with\\040space")).v2 == ("/with space", "/")


def test_membership_is_read_for_both_versions() -> None:
    v1, v2 = cgroups.parse_membership("4:memory:/a/b\n1:cpu,cpuacct:/\n9:name=systemd:/x\n0::/user.slice/s:1\n")
    assert v1 == {"memory": "/a/b", "cpu": "/"}
    assert v2 == "/user.slice/s:1"


def test_on_v1_groups_are_made_beneath_ones_own(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory/a/b", "pids"):
        (tmp_path / name).mkdir(parents=True)
    bases, missing = cgroups.find_bases(
        V1.format(root=tmp_path), "4:memory:/a/b\n1:cpu,cpuacct:/\n8:pids:/docker/abc\n"
    )
    assert {base.directory: base.controllers for base in bases} == {
        f"{tmp_path}/memory/a/b": ("memory",),
        f"{tmp_path}/cpu,cpuacct": ("cpu",),
        f"{tmp_path}/pids": ("pids",),
    }
    assert missing == []


def test_a_group_outside_of_what_is_mounted_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    bases, missing = cgroups.find_bases(V1.format(root=tmp_path), "8:pids:/docker/other\n")
    assert bases == []
    assert missing == ["memory", "cpu", "pids"]


def _v2_group(directory: Path, controllers: str, handed_on: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cgroup.controllers").write_text(controllers)
    (directory / "cgroup.subtree_control").write_text(handed_on)
    (directory / "cgroup.procs").write_text("")


def test_on_v2_the_nearest_ancestor_that_hands_on_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(cgroups, "_put", refuse)
    _v2_group(tmp_path, "cpu memory pids", "cpu memory pids")
    _v2_group(tmp_path / "app.slice", "cpu memory pids", "memory pids")
    _v2_group(tmp_path / "app.slice/mooring.service", "memory pids", "")
    bases, missing = cgroups.find_bases(V2.format(root=tmp_path), "0::/app.slice/mooring.service\n")
    assert bases == [cgroups.Base(directory=f"{tmp_path}/app.slice", controllers=("memory", "pids"))]
    assert missing == ["cpu"]


LIMITS = st.builds(
    Limits,
    vcpu=st.floats(0.01, 512),
    memory_bytes=st.integers(1 << 20, 1 << 44),
    pids=st.integers(1, 1 << 20),
)


@given(limits=LIMITS)
def test_limits_are_written_within_what_the_kernel_takes(limits: Limits) -> None:
    values = {name: value for _, name, value in cgroups.plan_limits(limits, swap=True)}
    quota, period = (int(word) for word in values["cpu.max"].split())
    assert quota >= 1000
    assert abs(quota / period - limits.vcpu) <= 0.01
    assert 1 <= int(values["cpu.weight"]) <= 10_000
    assert 2 <= int(values["cpu.shares"]) <= 262_144
    assert values["memory.max"] == values["memory.limit_in_bytes"] == str(limits.memory_bytes)
    order = [name for _, name, _ in cgroups.plan_limits(limits, swap=True)]
    assert order.index("memory.limit_in_bytes") < order.index("memory.memsw.limit_in_bytes")  # the kernel's order


def test_what_cannot_be_set_is_said_and_does_not_stop_the_start(tmp_path: Path) -> None:
    base = cgroups.Base(directory=str(tmp_path / "none" / "such\0"[:4]), controllers=("memory",))
    groups = cgroups.ControlGroups("n", [base], ["cpu"])
    (tmp_path / "none").write_text("a file")
    failures = groups.make("i-1", Limits(vcpu=1, memory_bytes=1 << 20))
    assert failures[0] == "no cpu controller"
    assert "Not a directory" in failures[1]


def test_groups_are_made_listed_and_removed_with_their_empty_parent(tmp_path: Path) -> None:
    base = cgroups.Base(directory=str(tmp_path), controllers=("memory",))
    groups = cgroups.ControlGroups("n", [base], [])
    limits = Limits(vcpu=1, memory_bytes=1 << 20)
    assert groups.make("i-1", limits) == groups.make("i-2", limits) == []
    assert groups.strays() == {"i-1", "i-2"}
    assert cgroups.remove(groups.directories("i-1")) == []
    assert groups.strays() == {"i-2"}
    assert cgroups.remove(groups.directories("i-2")) == cgroups.remove(groups.directories("i-2")) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("memory.oom_control", "under_oom 0\noom_kill 2\n"),
    ],
)
def test_kills_for_want_of_memory_are_counted_on_both_versions(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert control_groups.oom_kills([str(tmp_path), str(tmp_path / "gone")]) == 2
