"""One server per data directory."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mooring.supervisor import data_dir
from mooring.supervisor.data_dir import DataDirError


def test_a_directory_is_made_private_and_gets_an_id_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    claim = data_dir.claim(path)
    claim.release()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "run").stat().st_mode) == 0o700
    again = data_dir.claim(path)
    again.release()
    assert claim.id == again.id
    assert len(claim.id) == 16


def test_a_directory_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    data_dir.claim(tmp_path).release()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_directory_of_ours_that_was_opened_to_others_is_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "data"
    data_dir.claim(path).release()
    path.chmod(0o755)
    data_dir.claim(path).release()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_directory_of_other_things_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()  # as in /var
    tmp_path.chmod(0o1777)
    with pytest.raises(DataDirError, match="holds other things and is open to other users"):
        data_dir.claim(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777
    assert os.listdir(tmp_path) == ["lock"]


def test_a_second_claim_is_refused_naming_the_first_process(tmp_path: Path) -> None:
    claim = data_dir.claim(tmp_path)
    try:
        with pytest.raises(DataDirError, match=rf"in use by another Mooring server \(process {os.getpid()}\)$"):
            data_dir.claim(tmp_path)
    finally:
        claim.release()


def test_a_lock_left_by_dying_children_of_a_dead_server_is_waited_for(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from mooring.supervisor import data_dir
claim = data_dir.claim(Path(sys.argv[1]))
if os.fork() == 0:           # a child that outlives its supervisor by a moment
    os.setsid()
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE) as old:
        assert old.wait() == 0
        fds_before = os.listdir("/proc/self/fd")
        assert old.stdin is not None
        os.set_inheritable(old.stdin.fileno(), False)
        import threading

        threading.Timer(0.2, old.stdin.close).start()
        claim = data_dir.claim(tmp_path)
        claim.release()
    assert len(os.listdir("/proc/self/fd")) <= len(fds_before)


@pytest.mark.parametrize("text", ["", "a b", "../x", "x" * 65])
def test_a_broken_id_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "id").write_text(text)
    with pytest.raises(DataDirError, match="does not hold an id"):
        data_dir.claim(tmp_path)
    (tmp_path / "id").unlink()
    data_dir.claim(tmp_path).release()  # the refused claim let the lock go


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(DataDirError, match="cannot use the data directory"):
        data_dir.claim(tmp_path / "x")
