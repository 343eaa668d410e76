"""Archives that nobody vouches for."""

import contextlib
import gzip
import io
import os
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.runtime import archive
from mooring.runtime.archive import ArchiveError, Bounds

Add = Callable[[tarfile.TarFile], None]


def file(name: str, content: bytes = b"x", *, mode: int = 0o644) -> Add:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), mode
        tar.addfile(member, io.BytesIO(content))

    return add


def special(name: str, kind: bytes, target: str = "") -> Add:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.mode = kind, target, 0o755
        tar.addfile(member)

    return add


def directory(name: str) -> Add:
    return special(name, tarfile.DIRTYPE)


def link(name: str, target: str) -> Add:
    return special(name, tarfile.SYMTYPE, target)


def hard(name: str, target: str) -> Add:
    return special(name, tarfile.LNKTYPE, target)


def packed(adds: Sequence[Add], kind: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=kind) as tar:
        for add in adds:
            add(tar)
    return out.getvalue()


def unpack(root: Path, data: bytes, bounds: Bounds | None = None) -> archive.Unpacked:
    return archive.unpack(io.BytesIO(data), str(root), bounds or Bounds())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "outside" / "root"
    root.mkdir(parents=True)
    return root


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_model_is_unpacked_as_it_was(root: Path, kind: int) -> None:
    long = "d/" * 20 + "n" * 90
    adds = [
        directory("./"),
        file("./model.joblib", b"abc" * 9999),
        file("code/run.sh", mode=0o755),
        file(long),
        file("empty", b""),
    ]
    done = unpack(root, packed(adds, kind))
    assert (root / "model.joblib").read_bytes() == b"abc" * 9999
    assert (root / long).read_bytes() == b"x"
    assert done == archive.Unpacked(files=4, size_bytes=3 * 9999 + 2)
    assert (root / "model.joblib").stat().st_mode & 0o7777 == 0o444
    assert (root / "code/run.sh").stat().st_mode & 0o7777 == 0o555


@pytest.mark.parametrize(
    ("adds", "says"),
    [
        ([file("../evil")], "'..'"),
        ([file("a/../../evil")], "'..'"),
        ([file("/etc/evil")], "absolute"),
        ([directory("../evil")], "'..'"),
        ([link("a", "/etc/passwd")], "leads out"),
        ([link("a", "../outside")], "leads out"),
        ([link("d/a", "../../outside")], "leads out"),
        ([link("a", "d/../..")], "leads out"),
        ([link("a", "."), link("b", "a/../x")], "leads out"),
        ([link("a", "b"), link("b", "a")], "circles"),
        ([link("a", "d"), file("a/evil")], "through the link"),
        ([directory("d"), link("a", "d"), file("a/evil")], "through the link"),
        ([link("a", "../root/x")], "leads out"),
        ([hard("a", "../../evil")], "'..'"),
        ([hard("a", "/etc/passwd")], "absolute"),
        ([hard("a", "missing")], "does not hold"),
        ([link("l", "x"), hard("a", "l")], "does not hold"),
        ([special("p", tarfile.FIFOTYPE)], "special"),
        ([special("p", tarfile.CHRTYPE)], "special"),
        ([special("p", tarfile.BLKTYPE)], "special"),
        ([file("a"), file("a/b")], "both a file and a directory"),
        ([file("a/b"), file("a")], "both a file and a directory"),
        ([file("n" * 300)], "too long"),
        ([file("a/" * 200 + "b")], "deeper"),
    ],
)
def test_what_could_reach_outside_or_harm_is_refused(root: Path, adds: Sequence[Add], says: str) -> None:
    with pytest.raises(ArchiveError, match=says):
        unpack(root, packed(adds))
    assert os.listdir(root.parent) == ["root"]
    assert os.listdir(root.parent.parent) == ["outside"]


def test_links_that_stay_inside_are_kept(root: Path) -> None:
    unpack(
        root,
        packed(
            [file("v1/model", b"m"), link("latest", "v1"), link("v1/again", "../latest/model"), hard("h", "v1/model")]
        ),
    )
    assert (root / "latest/model").read_bytes() == (root / "v1/again").read_bytes() == (root / "h").read_bytes() == b"m"


def test_the_last_member_of_a_name_wins(root: Path) -> None:
    unpack(root, packed([file("a", b"1"), link("a", "b"), file("a", b"2"), file("b", b"3")]))
    assert (root / "a").read_bytes() == b"2"
    assert not (root / "a").is_symlink()


def test_privileged_bits_are_dropped(root: Path) -> None:
    unpack(root, packed([file("a", mode=0o6777)]))
    assert (root / "a").stat().st_mode & 0o7000 == 0


@pytest.mark.parametrize(
    "data",
    [b"", b"plain text", gzip.compress(b"not a tar" * 100), b"\x1f\x8b" + b"\0" * 50],
)
def test_what_is_no_gzip_tar_is_said_to_be_none(root: Path, data: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"gzip-compressed tar|damaged"):
        unpack(root, data)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_torn_or_flipped_archive_never_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    chance = random.Random(seed)
    data = bytearray(packed([file("model", bytes(chance.randbytes(3000))), link("l", "model"), directory("d")]))
    if chance.random() < 0.5:
        data = data[: chance.randrange(len(data))]
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    root = tmp_path_factory.mktemp("torn")
    with contextlib.suppress(ArchiveError):
        unpack(root, bytes(data))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_lying_tar_never_escapes_as_another_error(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    chance = random.Random(seed)
    raw = bytearray(gzip.decompress(packed([file("model", b"m" * 700), link("l", "model"), file("n" * 200)])))
    for _ in range(chance.randrange(1, 12)):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    base = tmp_path_factory.mktemp("lying")
    root = base / "root"
    root.mkdir()
    with contextlib.suppress(ArchiveError):
        unpack(root, gzip.compress(bytes(raw)))
    assert os.listdir(base) == ["root"]


def test_bombs_are_noticed_before_the_disk_is_full(root: Path) -> None:
    bomb = packed([file("zeros", bytes(40 << 20))])
    with pytest.raises(ArchiveError, match="times its size"):
        unpack(root, bomb, Bounds(ratio=100, ratio_from_bytes=1 << 20))
    with pytest.raises(ArchiveError, match="more than"):
        unpack(root, bomb, Bounds(unpacked_bytes=1 << 20))
    assert sum(path.stat().st_size for path in root.rglob("*")) <= 4 << 20


def test_too_many_members_are_refused(root: Path) -> None:
    with pytest.raises(ArchiveError, match="members"):
        unpack(root, packed([file(f"f{n}") for n in range(20)]), Bounds(members=10))


def test_a_header_that_would_fill_the_memory_is_refused(root: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    with pytest.raises(ArchiveError, match="header"):
        unpack(root, gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(4096)))


NAMES = st.sampled_from(["a", "b", "..", ".", "a/b", "../a", "b/../a", "", "/x"])


@given(
    links=st.dictionaries(st.sampled_from([("a",), ("b",), ("c",), ("c", "a")]), NAMES, max_size=4),
    path=st.lists(st.sampled_from("abc.")),
)
def test_resolving_agrees_with_the_file_system(
    tmp_path_factory: pytest.TempPathFactory, links: dict[tuple[str, ...], str], path: list[str]
) -> None:
    """What is resolved inside, the kernel resolves to the same place."""
    parts = tuple(part for part in path if part != ".")
    if ("c",) in links and ("c", "a") in links:
        del links["c", "a"]
    links = {name: target for name, target in links.items() if target}
    try:
        inside = archive.resolve_inside(links, parts)
    except ArchiveError:
        return
    root = tmp_path_factory.mktemp("links")
    (root / "c").mkdir() if ("c",) not in links else None
    for name, target in links.items():
        (root.joinpath(*name[:-1])).mkdir(exist_ok=True)
        os.symlink(target, root.joinpath(*name))
    real = os.path.realpath(root.joinpath(*parts))
    assert real == os.path.join(os.path.realpath(root), *inside)
