import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain import capacity
from mooring.domain.capacity import GIB, CapacityRules, Holding, InstanceType, Inventory
from mooring.domain.instance import Limits

HEADER = "instance_type,vcpu,memory_gib,gpus,gpu_memory_gib,accelerator,local_storage,usd_per_hour\n"
MACHINE = Inventory(vcpu=2, memory_bytes=16 * GIB, memory_available_bytes=12 * GIB)
LARGE = InstanceType(name="ml.m5.large", vcpu=2, memory_bytes=8 * GIB)


def types(**fields: object) -> InstanceType:
    return InstanceType(**({"name": "ml.m5.large", "vcpu": 2, "memory_bytes": 8 * GIB} | fields))  # type: ignore[arg-type]


def test_a_type_that_fits_gets_its_own_limits_without_notes() -> None:
    limits = capacity.fit(LARGE, MACHINE, CapacityRules())
    assert limits == Limits(vcpu=2, memory_bytes=8 * GIB)


def test_an_oversize_type_is_shrunk_and_says_so() -> None:
    limits = capacity.fit(types(vcpu=4, memory_bytes=32 * GIB), MACHINE, CapacityRules())
    assert limits == Limits(
        vcpu=2, memory_bytes=16 * GIB, notes=("limited to 2 of 4 vCPU", "limited to 16 of 32 GiB of memory")
    )


def test_an_oversize_type_is_refused_where_the_operator_wants_it_with_everything_that_lacks() -> None:
    refused = capacity.fit(types(vcpu=4, memory_bytes=32 * GIB), MACHINE, CapacityRules(oversize="refuse"))
    assert refused == capacity.Refused(
        missing="ml.m5.large has 4 vCPU, this machine has 2; ml.m5.large has 32 GiB of memory, this machine has 16 GiB"
    )


@pytest.mark.parametrize("oversize", ["shrink", "refuse"])
def test_gpus_and_other_accelerators_are_never_shrunk_away(oversize: capacity.Oversize) -> None:
    rules = CapacityRules(oversize=oversize)
    assert capacity.fit(types(gpus=1, accelerator="nvidia-t4 x1"), MACHINE, rules) == capacity.Refused(
        missing="ml.m5.large has 1 GPU, this machine has 0"
    )
    assert capacity.fit(types(accelerator="aws-inferentia x1"), MACHINE, rules) == capacity.Refused(
        missing="ml.m5.large has aws-inferentia x1, this machine has none"
    )


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("ml.m5.large", "x86_64"),
        ("ml.g4dn.xlarge", "x86_64"),
        ("ml.g5.xlarge", "x86_64"),
        ("ml.p6-b200.48xlarge", "x86_64"),
        ("ml.c6g.large", "arm64"),
        ("ml.c6gn.large", "arm64"),
        ("ml.r7gd.large", "arm64"),
        ("ml.p6e-gb200.36xlarge", "arm64"),
        ("ml.local", "x86_64"),
    ],
)
def test_arm_families_are_known_by_name(name: str, architecture: str) -> None:
    assert types(name=name).architecture == architecture


def test_an_arm_type_runs_on_what_the_machine_is_with_a_note() -> None:
    limits = capacity.fit(types(name="ml.c7g.large"), MACHINE, CapacityRules())
    assert isinstance(limits, Limits)
    assert limits.notes == ("ml.c7g.large is of architecture arm64, this machine is x86_64",)


@given(
    st.floats(0.5, 512), st.integers(1, 1 << 42), st.floats(0.5, 512), st.integers(1, 1 << 42),
    st.sampled_from(["shrink", "refuse"]),
)  # fmt: skip
def test_limits_never_exceed_the_machine_nor_the_type(
    vcpu: float, memory: int, machine_vcpu: float, machine_memory: int, oversize: capacity.Oversize
) -> None:
    machine = Inventory(vcpu=machine_vcpu, memory_bytes=machine_memory, memory_available_bytes=machine_memory)
    limits = capacity.fit(types(vcpu=vcpu, memory_bytes=memory), machine, CapacityRules(oversize=oversize))
    if isinstance(limits, capacity.Refused):
        assert oversize == "refuse"
        assert limits.missing
    else:
        assert 0 < limits.vcpu <= min(vcpu, machine_vcpu)
        assert 0 < limits.memory_bytes <= min(memory, machine_memory)
        assert bool(limits.notes) == (vcpu > machine_vcpu or memory > machine_memory)


def test_sharing_admits_while_available_memory_stays_above_the_floor() -> None:
    limits = Limits(vcpu=2, memory_bytes=8 * GIB)
    many = Holding(reserved_bytes=80 * GIB, starting=2)
    assert capacity.admit(limits, MACHINE, many, CapacityRules()) == capacity.Admitted()
    tight = CapacityRules(memory_floor_bytes=12 * GIB)
    refused = capacity.admit(limits, MACHINE, Holding(), tight)
    assert isinstance(refused, capacity.Refused)
    assert refused.missing.startswith("12 GiB of memory are available, the floor is 12 GiB")
    assert isinstance(capacity.admit(limits, MACHINE, Holding(leaving=1), tight), capacity.Wait)


def test_what_is_starting_counts_with_what_it_will_take_and_is_waited_for() -> None:
    limits = Limits(vcpu=2, memory_bytes=8 * GIB)
    rules = CapacityRules(memory_floor_bytes=0)
    starting = Holding(starting=2, starting_bytes=8 * GIB)
    assert capacity.admit(limits, MACHINE, starting, rules, expected=4 * GIB) == capacity.Admitted()
    assert isinstance(capacity.admit(limits, MACHINE, starting, rules, expected=5 * GIB), capacity.Wait)
    refused = capacity.admit(limits, MACHINE, starting, rules, expected=13 * GIB)
    assert isinstance(refused, capacity.Refused), "also alone it would not fit"
    assert refused.missing.endswith("with 2 other instances starting, one takes about 13 GiB")


def test_an_instance_is_expected_to_take_what_one_like_it_does_within_its_limit() -> None:
    limits = Limits(vcpu=2, memory_bytes=2 * GIB)
    assert capacity.expected_bytes(limits, None) == capacity.START_ALLOWANCE_BYTES
    assert capacity.expected_bytes(limits, 1) == capacity.START_ALLOWANCE_BYTES
    assert capacity.expected_bytes(limits, GIB) == GIB
    assert capacity.expected_bytes(limits, 3 * GIB) == 2 * GIB


def test_a_count_that_can_never_fit_is_known_before() -> None:
    small, share = Limits(vcpu=1, memory_bytes=GIB), CapacityRules(memory_floor_bytes=GIB)
    reserve = CapacityRules(memory="reserve", memory_floor_bytes=GIB)

    def why(rules: CapacityRules, *counts: int, places: int = 4096) -> str | None:
        return capacity.outgrown([(small, count) for count in counts], MACHINE, rules, places=places)

    assert why(share, 1000, 920) is None
    assert why(share, 1000, 921) == (
        "1921 instances take at least 15 GiB of memory, this machine has 15 GiB for instances"
    )
    assert why(share, 3, 2, places=4) == "5 instances are wanted, this server has places for 4"
    assert why(reserve, 10, 5) is None
    assert why(reserve, 10, 6) == "16 instances ask for 16 GiB of memory, this machine has 15 GiB for instances"
    assert why(share) is None


def test_one_instance_alone_may_always_be_tried() -> None:
    whole = [(Limits(vcpu=2, memory_bytes=16 * GIB), 1)]
    for rules in (CapacityRules(memory_floor_bytes=16 * GIB), CapacityRules(memory="reserve", memory_floor_bytes=GIB)):
        assert capacity.outgrown(whole, MACHINE, rules, places=4096) is None


def test_reserving_counts_the_sum_of_limits() -> None:
    limits = Limits(vcpu=2, memory_bytes=8 * GIB)
    rules = CapacityRules(memory="reserve", memory_floor_bytes=0)
    assert capacity.admit(limits, MACHINE, Holding(reserved_bytes=8 * GIB), rules) == capacity.Admitted()
    assert isinstance(capacity.admit(limits, MACHINE, Holding(reserved_bytes=9 * GIB), rules), capacity.Refused)


def test_a_type_as_large_as_the_machine_may_have_it_alone() -> None:
    limits = Limits(vcpu=2, memory_bytes=16 * GIB)
    rules = CapacityRules(memory="reserve", memory_floor_bytes=GIB)
    assert capacity.admit(limits, MACHINE, Holding(), rules) == capacity.Admitted()


@given(st.lists(st.integers(1, 8), max_size=12), st.integers(0, 8))
def test_what_reserving_admitted_never_sums_up_to_more_than_memory_less_the_floor(sizes: list[int], floor: int) -> None:
    rules = CapacityRules(memory="reserve", memory_floor_bytes=floor * GIB)
    reserved, count = 0, 0
    for size in sizes:
        limits = Limits(vcpu=1, memory_bytes=size * GIB)
        if capacity.admit(limits, MACHINE, Holding(reserved_bytes=reserved), rules) == capacity.Admitted():
            reserved += limits.memory_bytes
            count += 1
    assert reserved <= MACHINE.memory_bytes - rules.memory_floor_bytes or count == 1


def test_a_users_file_overrides_prices_and_adds_types() -> None:
    base = capacity.parse_types(HEADER + "ml.m5.large,2,8,0,,,no,0.115\n")
    table = capacity.parse_types(HEADER + "ml.m5.large,,,,,,,0.5\nml.local,1,0.5,,,,,\n", base=base)
    assert table["ml.m5.large"] == types(usd_per_hour=0.5)
    assert table["ml.local"] == InstanceType(name="ml.local", vcpu=1, memory_bytes=GIB // 2)
    assert base["ml.m5.large"].usd_per_hour == 0.115


def test_a_users_file_needs_only_the_columns_it_speaks_of() -> None:
    table = capacity.parse_types("instance_type,vcpu,memory_gib\nml.local,1,1\n")
    assert table["ml.local"].memory_bytes == GIB


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line must name the columns"),
        ("type,vcpu\n", "the first line must name the columns"),
        (HEADER + "m5.large,2,8,,,,,\n", "line 2: instance_type 'm5.large' is not of the form"),
        (HEADER + "ml.new.x,,8,,,,,\n", "line 2: ml.new.x: vcpu and memory_gib must be given"),
        (HEADER + "ml.new.x,two,8,,,,,\n", "line 2: ml.new.x: could not convert"),
        (HEADER + "ml.new.x,-2,8,,,,,\n", "line 2: ml.new.x: vcpu is -2"),
        (HEADER + "ml.new.x,nan,8,,,,,\n", "line 2: ml.new.x: vcpu is nan"),
        (HEADER + "ml.new.x,2,8,,,,perhaps,\n", "line 2: ml.new.x: local_storage is 'perhaps'"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(text: str, said: str) -> None:
    with pytest.raises(capacity.TableError, match=said.split("'")[0].replace("(", r"\(")):
        capacity.parse_types(text)
