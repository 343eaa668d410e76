from pathlib import Path

import pytest

from mooring.domain import capacity
from mooring.runtime import instance_types


def test_the_packaged_table_holds_the_common_types() -> None:
    table = instance_types.load()
    assert len(table) > 250
    large = table["ml.m5.large"]
    assert (large.vcpu, large.memory_bytes, large.gpus, large.usd_per_hour) == (2, 8 << 30, 0, 0.115)
    assert table["ml.g4dn.xlarge"].gpus == 1
    assert table["ml.c6g.large"].architecture == "arm64"
    assert table["ml.inf1.xlarge"].accelerator


def test_a_users_file_overrides_and_extends_it(tmp_path: Path) -> None:
    path = tmp_path / "types.csv"
    path.write_text("instance_type,vcpu,memory_gib,usd_per_hour\nml.local,1,2,\nml.m5.large,,,9\n")
    table = instance_types.load(path)
    assert table["ml.local"] == capacity.InstanceType(name="ml.local", vcpu=1, memory_bytes=2 << 30)
    assert table["ml.m5.large"].usd_per_hour == 9
    assert table["ml.m5.large"].memory_bytes == 8 << 30


@pytest.mark.parametrize("content", [b"nonsense", b"\xff\xfe", b"x" * (instance_types.MAX_FILE_BYTES + 1)])
def test_a_users_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "types.csv"
    path.write_bytes(content)
    with pytest.raises(capacity.TableError, match=r"types\.csv"):
        instance_types.load(path)
