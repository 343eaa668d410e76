"""The control process is killed at its n-th call out, for every n, before and after the call's effect; then it starts again.

Whatever n is: the wish comes true, no instance is lost, doubled or left over, and what serves never has less than it had.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.reconcile.harness import Freeze, Scene, deployment, run_virtual, scene

from mooring.domain.endpoint import Change, EndpointStatus


@dataclass(frozen=True)
class Story:
    before: tuple | None  # deployment in service when it begins
    change: Callable[[Scene], None]
    status: EndpointStatus | None
    counts: dict[str, int]  # routed instances by variant at the end
    deployment_id: str | None
    floor: int  # routed instances, in every table that the edge ever saw
    most_alive: int


def create(on: Scene) -> None:
    on.store.create("e", deployment("new", ("a", 2, 1.0)))


def create_bad(on: Scene) -> None:
    on.store.create("e", deployment("new", ("a", 2, 1.0), model="unloadable"))


def update(on: Scene) -> None:
    on.store.update("e", deployment("new", ("a", 2, 1.0)))


def update_badly(on: Scene) -> None:
    on.store.update("e", deployment("new", ("a", 2, 1.0), model="unloadable"))


def scale_out(on: Scene) -> None:
    on.store.update("e", deployment("old", ("a", 3, 1.0)), Change.WEIGHTS)


def scale_in(on: Scene) -> None:
    on.store.update("e", deployment("old", ("a", 1, 1.0)), Change.WEIGHTS)


def delete(on: Scene) -> None:
    on.store.delete("e")


def lose_one(on: Scene) -> None:
    on.driver.alive()[0].die(-9)


OLD = (("a", 2, 1.0),)
IN_SERVICE, FAILED = EndpointStatus.IN_SERVICE, EndpointStatus.FAILED
STORIES = {
    "create": Story(None, create, IN_SERVICE, {"a": 2}, "new", 0, 2),
    "create that fails": Story(None, create_bad, FAILED, {}, None, 0, 2),
    "update": Story(OLD, update, IN_SERVICE, {"a": 2}, "new", 2, 4),
    "update that fails": Story(OLD, update_badly, IN_SERVICE, {"a": 2}, "old", 2, 4),
    "scale out": Story(OLD, scale_out, IN_SERVICE, {"a": 3}, "old", 2, 3),
    "scale in": Story(OLD, scale_in, IN_SERVICE, {"a": 1}, "old", 1, 2),
    "delete": Story(OLD, delete, None, {}, None, 0, 2),
    "lost instance": Story(OLD, lose_one, IN_SERVICE, {"a": 2}, "old", 1, 2),
}


async def _live(on: Scene, story: Story, at: int, *, after_effect: bool) -> bool:
    """Play a story with one kill; whether it came so far."""
    if story.before is not None:
        await on.in_service("e", deployment("old", *story.before))
        await on.until(lambda: len(on.store.instances) == 2)
    seen = len(on.edge.tables)
    freeze = Freeze(at, after_effect=after_effect)
    on.store.freeze = on.driver.freeze = freeze
    story.change(on)
    if "e" in on.store.endpoints:
        on.wake("e")

    def done() -> bool:
        counts = {name: len(ids) for name, ids in on.edge.instances("e").items()}
        return (
            on.status("e") is story.status
            and counts == story.counts
            and on.edge.routed("e") == {each.spec.instance_id for each in on.driver.alive()}
            and len(on.store.instances) == len(on.driver.instances) == sum(story.counts.values())
        )

    await on.until(lambda: freeze.frozen.is_set() or done(), within_s=300)
    killed = freeze.frozen.is_set()
    if killed:
        await on.restart()
        await on.until(done, within_s=300)
    on.assert_converged()
    row = on.store.endpoints.get("e")
    active = None if row is None or row.active is None else row.active.deployment.id
    assert active == story.deployment_id
    assert on.driver.most_alive <= story.most_alive
    routed = on.edge.routed("e")
    assert routed == set(on.driver.instances)
    if story.floor:
        for table in on.edge.tables[seen:]:
            assert len(table.endpoints[0].variants[0].instances) >= story.floor
    return killed


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_a_kill_at_any_call_changes_nothing_in_the_end(tmp_path: Path, story: Story, after_effect: bool) -> None:
    async def play(at: int) -> bool:
        folder = tmp_path / str(at)
        folder.mkdir()
        async with scene(folder) as on:
            return await _live(on, story, at, after_effect=after_effect)

    at = 1
    while run_virtual(play(at)):
        at += 1
        assert at < 200
    assert at > 5, "the story makes more calls than that"
