from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain.endpoint import EndpointKey
from mooring.domain.ids import EndpointName, Scope
from mooring.reconcile import slotfile
from mooring.reconcile.slots import Slots, SlotsExhausted
from mooring.reconcile.table import VariantKey, key_of, owner_of

KEY = EndpointKey(scope=Scope(account="000000000000", region="us-east-1"), name=EndpointName("e"))


def test_a_slot_is_given_again_only_when_acknowledged_and_idle() -> None:
    slots: Slots[str] = Slots(1, of_what="instances")
    assert slots.claim("a") == (0, True)
    assert slots.claim("a") == (0, False)
    slots.release("a", generation=5)
    assert slots.reclaim(acknowledged=4, idle=lambda *_: True) == []
    assert slots.reclaim(acknowledged=5, idle=lambda *_: False) == []
    with pytest.raises(SlotsExhausted, match="all 1 places for instances"):
        slots.claim("b")
    assert slots.reclaim(acknowledged=5, idle=lambda *_: True) == [("a", 0)]
    assert slots.claim("b") == (0, True)


def test_a_key_that_comes_back_before_its_slot_was_reclaimed_keeps_it() -> None:
    slots: Slots[str] = Slots(2, of_what="x")
    slots.claim("a")
    slots.release("a", generation=1)
    assert slots.claim("a") == (0, False)
    assert slots.reclaim(acknowledged=9, idle=lambda *_: True) == []


@given(st.lists(st.tuples(st.sampled_from(["claim", "release", "reclaim"]), st.integers(0, 5), st.integers(0, 9))))
def test_no_two_keys_ever_hold_one_slot(steps: list[tuple[str, int, int]]) -> None:
    slots: Slots[int] = Slots(4, of_what="x")
    for step, key, number in steps:
        if step == "claim":
            try:
                slots.claim(key)
            except SlotsExhausted:
                assert len(slots.all()) == 4
        elif step == "release":
            slots.release(key, generation=number)
        else:
            slots.reclaim(acknowledged=number, idle=lambda *_: True)
        held = list(slots.all().values())
        assert len(set(held)) == len(held)
        assert all(0 <= slot < 4 for slot in held)


def test_what_an_earlier_life_gave_out_is_kept_and_gaps_are_used() -> None:
    slots: Slots[str] = Slots(4, of_what="x")
    slots.seed({"a": 2, "b": 0, "twice": 2, "beyond": 9})
    assert slots.all() == {"a": 2, "b": 0}
    assert {slots.claim("c")[0], slots.claim("d")[0]} == {1, 3}
    slots.retain({"a"}, generation=1)
    freed = slots.reclaim(acknowledged=1, idle=lambda *_: True)
    assert sorted(freed) == [("b", 0), ("c", 1), ("d", 3)]


def test_the_slot_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "slots"
    held = slotfile.Held(instances={"i-1": 3}, variants={VariantKey(KEY, "a"): 1})
    slotfile.save(path, held)
    assert slotfile.load(path) == held
    assert [each.name for each in tmp_path.iterdir()] == ["slots"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"instances": {"a": "x"}, "variants": []}'])
def test_a_slot_file_that_makes_no_sense_counts_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "slots"
    path.write_bytes(content)
    assert slotfile.load(path) == slotfile.Held()


def test_owners_are_endpoints_as_text() -> None:
    assert key_of(owner_of(KEY)) == KEY
    assert key_of("") is None
