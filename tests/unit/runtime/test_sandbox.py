"""bubblewrap's command line: what is in it, what must not be."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.runtime import sandbox

ROOT = sandbox.System(
    mode=sandbox.Mode.ROOT, bwrap="/usr/bin/bwrap", setpriv="/usr/bin/setpriv", uid_base=0x70000000, uid_count=100
)
USER = sandbox.System(mode=sandbox.Mode.USER_NAMESPACE, bwrap="/usr/bin/bwrap")
PLAIN = sandbox.System(mode=sandbox.Mode.PLAIN, setpriv="/usr/bin/setpriv")
ROOM = sandbox.Room(
    etc="/data/etc", sockets="/data/sock", model="/data/model", tmp_bytes=1 << 20, memory_bytes=1 << 30, uid=0x70000001
)


def program(environment: Mapping[str, str] | None = None) -> sandbox.Program:
    return sandbox.Program(
        argv=("/env/bin/python", "-m", "mooring.serving", "serve"),
        environment=environment or {},
        mounts=(sandbox.Mount(source="/env", target="/env"), sandbox.Mount(source="/a/b/c", target="/a/b/c")),
        python="/env/bin/python",
    )


def words(command: sandbox.Command) -> list[str]:
    """bwrap's own arguments, which it reads from a descriptor."""
    return command.memory_files[int(command.argv[2])].split("\0")[:-1]


@given(text=st.text(alphabet=st.characters(exclude_characters="\0")))
def test_the_models_environment_is_in_no_argv_and_not_in_bwraps_environment(text: str) -> None:
    value = f"{text}§hush§"  # nothing that stands in a command line anyway
    for system in (ROOT, USER):
        command = sandbox.plan_command(system, program({"LD_PRELOAD": value}), ROOM, egress="none")
        assert value not in command.argv
        assert "LD_PRELOAD" not in command.environment
        assert any(f"LD_PRELOAD={value}" in text or value in text for text in command.memory_files.values())


def test_as_root_privileges_are_dropped_before_the_environment_is_taken() -> None:
    command = sandbox.plan_command(ROOT, program({"LD_PRELOAD": "x"}), ROOM, egress="none")
    inside = command.argv[command.argv.index("--") + 1 :]
    assert inside[0] == "/usr/bin/setpriv"
    assert inside[1:3] == ("--reuid", str(ROOM.uid))
    assert "--no-new-privs" in inside
    assert "--bounding-set=-all" in inside
    assert "LD_PRELOAD" not in "\0".join(words(command))
    assert "--setenv" not in words(command)


@pytest.mark.parametrize("system", [ROOT, USER])
def test_every_instance_has_namespaces_of_its_own_and_dies_with_its_shim(system: sandbox.System) -> None:
    got = words(sandbox.plan_command(system, program(), ROOM, egress="none"))
    assert {"--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--die-with-parent"} <= set(got)
    assert ("--unshare-user" in got) is (system is USER)
    assert got.index("--clearenv") < got.index("--ro-bind")


def test_egress_through_the_host_keeps_its_network() -> None:
    assert "--unshare-net" not in words(sandbox.plan_command(ROOT, program(), ROOM, egress="host"))


def test_only_the_socket_directory_is_writable_on_the_host() -> None:
    got = words(sandbox.plan_command(ROOT, program(), ROOM, egress="none"))
    writable = [got[at + 1 : at + 3] for at, word in enumerate(got) if word in ("--bind", "--dev-bind", "--bind-try")]
    assert writable == [["/data/sock", "/run/mooring"]]
    assert got[got.index("/data/model") - 1 :][:3] == ["--ro-bind", "/data/model", "/opt/ml/model"]
    assert got[-4:] == ["--remount-ro", "/", "--chdir", "/opt/ml"]


def test_parents_of_mounts_are_made_where_anybody_may_pass() -> None:
    got = words(sandbox.plan_command(ROOT, program(), ROOM, egress="none"))
    at = got.index("/a/b/c")
    assert got[:at].count("/a") == 1
    assert [got[n + 1] for n, word in enumerate(got[:at]) if word == "--dir" and got[n + 1].startswith("/a")] == [
        "/a",
        "/a/b",
    ]


def test_without_a_sandbox_the_program_still_dies_with_its_shim() -> None:
    command = sandbox.plan_command(PLAIN, program({"A": "b"}), ROOM, egress="none")
    assert command.argv[:3] == ("/usr/bin/setpriv", "--pdeathsig", "KILL")
    assert command.environment == {"A": "b"}
    assert command.info_fd == -1


def test_etc_names_the_instances_user_and_no_other() -> None:
    files = sandbox.etc_files(4242)
    assert [line.split(":")[2] for line in files["passwd"].splitlines()] == ["0", "4242"]
    assert "shadow" not in files


def test_the_server_is_shown_without_the_rest_of_the_package() -> None:
    assert sorted(mount.target for mount in sandbox.server_mounts()) == [
        "/opt/mooring/mooring/__init__.py",
        "/opt/mooring/mooring/contract",
        "/opt/mooring/mooring/serving",
    ]


def test_the_machines_part_of_proc_is_read_only() -> None:
    got = words(sandbox.plan_command(USER, program(), ROOM, egress="none"))
    at = got.index("/proc/sys")
    assert got[at - 1 : at + 2] == ["--ro-bind", "/proc/sys", "/proc/sys"]
    assert got.index("--proc") < at
