"""Turns: how many starts at once, and whose is next."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.reconcile.turns import Turns


def take(turns: Turns, pool: str, instance: str) -> bool:
    if not turns.may(pool):
        return False
    turns.hold(pool, instance)
    return True


def test_a_flood_leaves_a_turn_to_others() -> None:
    turns = Turns(4)
    assert [take(turns, "flood", f"f{number}") for number in range(5)] == [True, True, True, False, False]
    assert take(turns, "small", "s1")
    assert not take(turns, "other", "o1")


def test_a_turn_that_ends_goes_to_the_one_with_the_fewest_and_then_to_the_longest_wait() -> None:
    turns = Turns(3)
    assert take(turns, "a", "a1")
    assert take(turns, "a", "a2")
    assert take(turns, "b", "b1")
    assert not turns.may("a")
    assert not turns.may("c")
    assert not turns.may("d")
    turns.over("a1")
    assert turns.next() == ["c"]
    assert not turns.may("a"), "the pool whose turn ended takes it back from those who wait"
    assert take(turns, "c", "c1")
    turns.over("a2")
    turns.withdraw("a")
    assert turns.next() == ["d"]


def test_who_wants_nothing_any_more_stands_in_nobodys_way() -> None:
    turns = Turns(2)
    assert take(turns, "a", "a1")
    assert take(turns, "b", "b1")
    assert not turns.may("c")
    assert not turns.may("d")
    turns.withdraw("c")
    turns.over("b1")
    assert turns.next() == ["d"]
    turns.over("never had one")


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["ask", "over", "withdraw"]), st.integers(0, 4)), max_size=60),
)
def test_no_limit_is_passed_and_no_free_turn_lies_idle_while_somebody_waits(
    limit: int, steps: list[tuple[str, int]]
) -> None:
    turns, held, waiting = Turns(limit), dict[str, str](), set[str]()
    for number, (step, which) in enumerate(steps):
        pool = f"p{which}"
        if step == "ask":
            if take(turns, pool, f"i{number}"):
                held[f"i{number}"] = pool
                waiting.discard(pool)
            else:
                waiting.add(pool)
        elif step == "withdraw":
            turns.withdraw(pool)
            waiting.discard(pool)
        elif held:
            instance = sorted(held)[which % len(held)]
            turns.over(instance)
            del held[instance]
        share = max(limit - 1, 1)
        assert len(held) <= limit
        assert all(list(held.values()).count(each) <= share for each in held.values())
        able = {each for each in waiting if list(held.values()).count(each) < share}
        assert len(turns.next()) == min(len(able), limit - len(held))
        assert set(turns.next()) <= able
