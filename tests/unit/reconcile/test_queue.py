import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mooring.reconcile.queue import BACKOFF_CAP_S, Queue

KEYS = st.sampled_from(["a", "b", "c"])


class QueueMachine(RuleBasedStateMachine):
    """Any order of calls: no key is in two hands, none that was added is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue[str] = Queue()
        self.now_s = 0.0
        self.running: set[str] = set()
        self.owed: set[str] = set()  # added, and not taken since

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(key=KEYS, after_s=st.sampled_from([0.0, 5.0]))
    def add(self, key: str, after_s: float) -> None:
        self.queue.add(key, now_s=self.now_s, after_s=after_s)
        self.owed.add(key)

    @rule()
    def take(self) -> None:
        key = self.queue.take(now_s=self.now_s)
        if key is not None:
            assert key not in self.running
            self.running.add(key)
            self.owed.discard(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), again_in_s=st.none() | st.floats(0, 20))
    def done(self, data: st.DataObject, again_in_s: float | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(key)
        self.queue.done(key, now_s=self.now_s, again_in_s=again_in_s)
        if again_in_s is not None:
            self.owed.add(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fails(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(key)
        assert 0 < self.queue.failed(key, now_s=self.now_s) <= BACKOFF_CAP_S
        self.owed.add(key)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        waiting = self.owed - self.running
        assert len(self.queue) == len(waiting) + len(self.running)
        due_s = self.queue.next_due_s()
        assert (due_s is not None) == bool(waiting)
        assert due_s is None or due_s <= self.now_s + 20


TestQueue = QueueMachine.TestCase


def test_a_key_added_often_waits_once() -> None:
    queue: Queue[str] = Queue()
    for _ in range(5):
        queue.add("a", now_s=0)
    assert queue.take(now_s=0) == "a"
    assert queue.take(now_s=0) is None


def test_a_key_added_while_running_runs_again_after() -> None:
    queue: Queue[str] = Queue()
    queue.add("a", now_s=0)
    assert queue.take(now_s=0) == "a"
    queue.add("a", now_s=1)
    assert queue.take(now_s=1) is None
    queue.done("a", now_s=2)
    assert queue.take(now_s=2) == "a"


def test_keys_are_taken_in_the_order_of_their_due_times() -> None:
    queue: Queue[str] = Queue()
    queue.add("late", now_s=0, after_s=2)
    queue.add("soon", now_s=0, after_s=1)
    assert queue.take(now_s=0.5) is None
    assert [queue.take(now_s=3), queue.take(now_s=3)] == ["soon", "late"]


def test_waking_does_not_cut_a_back_off_short() -> None:
    queue: Queue[str] = Queue()
    queue.add("a", now_s=0)
    for _ in range(4):
        queue.take(now_s=queue.next_due_s() or 0.0)
        wait_s = queue.failed("a", now_s=100)
    queue.add("a", now_s=100)
    assert queue.next_due_s() == 100 + wait_s


def test_success_forgets_earlier_failures() -> None:
    queue: Queue[str] = Queue()
    waits = []
    for outcome in (False, False, True, False):
        queue.add("a", now_s=0)
        assert queue.take(now_s=1e9) == "a"
        if outcome:
            queue.done("a", now_s=0)
        else:
            waits.append(queue.failed("a", now_s=0))
    assert waits == [0.1, 0.2, 0.1]


def test_only_a_running_key_can_be_done() -> None:
    with pytest.raises(ValueError, match="not running"):
        Queue[str]().done("a", now_s=0)


@given(st.integers(1, 200))
def test_back_off_is_capped(times: int) -> None:
    queue: Queue[str] = Queue()
    queue.add("a", now_s=0)
    for _ in range(times):
        queue.take(now_s=1e9)
        assert queue.failed("a", now_s=0) <= BACKOFF_CAP_S
