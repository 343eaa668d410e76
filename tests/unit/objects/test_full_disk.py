"""No room left: what may still be written, what is refused, and that nothing stays of what is refused."""

import errno
import os
import sqlite3

import pytest

from mooring.objects.blobs import Blobs
from mooring.objects.errors import NoSpaceError
from mooring.objects.index import Index
from mooring.objects.reserve import Reserve


class NarrowDisk:
    """Says of every file system how much is free."""

    def __init__(self, free):
        self.free = free
        self.asked = os.statvfs

    def __call__(self, path):
        real = self.asked(path)
        return type("Disk", (), {"f_bavail": self.free, "f_frsize": 1, "f_blocks": real.f_blocks * real.f_frsize})()


@pytest.fixture
def disk(monkeypatch):
    narrow = NarrowDisk(1 << 40)
    monkeypatch.setattr(os, "statvfs", narrow)
    return narrow


@pytest.fixture
def reserve(tmp_path, disk):
    made = Reserve(tmp_path / "reserve")
    made.start()
    return made


@pytest.fixture
def index(tmp_path, reserve):
    made = Index(tmp_path / "index.db", reserve)
    made.start()
    made.write(lambda connection: connection.execute("CREATE TABLE filler (data BLOB)") and None)
    yield made
    made.close()


def allocated(path):
    return path.stat().st_blocks * 512 if path.exists() else 0


def test_the_reserve_takes_real_space_and_gives_it_back(reserve, tmp_path):
    assert reserve.hold()
    assert reserve.hold()
    assert allocated(tmp_path / "reserve") >= reserve.size
    reserve.release()
    reserve.release()
    assert (allocated(tmp_path / "reserve"), reserve.held) == (0, False)


def test_the_reserve_comes_back_only_once_there_is_room_for_all_of_it(reserve, disk):
    disk.free = reserve.size - 1
    assert not reserve.hold()
    with pytest.raises(NoSpaceError):
        reserve.require()
    disk.free = reserve.size
    reserve.require()
    assert reserve.held


def test_of_a_small_disk_only_a_share_is_kept_back(reserve, disk, tmp_path, monkeypatch):
    real = disk(tmp_path)
    real.f_blocks = 24 << 20
    monkeypatch.setattr(os, "statvfs", lambda path: real)
    small = Reserve(tmp_path / "small")
    small.start()
    assert small.size == 3 << 20


def test_a_file_system_that_cannot_keep_space_back_is_used_without(reserve, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert reserve.hold()


def fill(connection):
    connection.execute("INSERT INTO filler VALUES (zeroblob(200000))")


def test_a_commit_without_room_writes_nothing_and_the_next_one_is_unharmed(index):
    index.write(lambda connection: connection.execute("PRAGMA max_page_count = 80").fetchone() and None)
    index.write(fill)
    with pytest.raises(NoSpaceError):
        index.write(fill)
    count = index.read(lambda connection: connection.execute("SELECT count(*) FROM filler").fetchone())
    assert count == (1,)
    index.write(lambda connection: connection.execute("DELETE FROM filler") and None, frees=True)
    index.write(fill)


def test_without_the_reserve_only_what_frees_is_let_in(index, reserve, disk):
    index.write(fill)
    reserve.release()
    disk.free = 0
    with pytest.raises(NoSpaceError):
        index.write(fill)
    index.write(lambda connection: connection.execute("DELETE FROM filler") and None, frees=True)
    disk.free = 1 << 40
    index.write(fill)
    assert reserve.held


def test_what_frees_is_tried_again_from_the_reserve(index, reserve, tmp_path):
    reserve.hold()
    held = []

    def delete(connection):
        held.append(reserve.held)
        if reserve.held:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return "done"

    assert index.write(delete, frees=True) == "done"
    assert held == [True, True, False]


def test_no_blob_is_begun_without_the_reserve_and_a_full_disk_is_named(tmp_path, reserve, disk, monkeypatch):
    blobs = Blobs(tmp_path, reserve)
    blobs.start()
    writer = blobs.create()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(NoSpaceError):
            writer.write(b"x")
    writer.abort()
    reserve.release()
    disk.free = 0
    with pytest.raises(NoSpaceError):
        blobs.create()
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_committed_blob_that_cannot_be_moved_is_read_where_it_is(tmp_path, reserve, monkeypatch):
    blobs = Blobs(tmp_path, reserve)
    blobs.start()
    writer = blobs.create()
    writer.write(b"kept")
    name = writer.finish()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", full)
        blobs.settle([name])
    fd = blobs.open(name)
    assert os.read(fd, 10) == b"kept"
    os.close(fd)
