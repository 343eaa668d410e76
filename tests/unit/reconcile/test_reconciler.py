"""Endpoints from wish to traffic, in virtual time over fakes: what callers see, what edges see, what runs."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.reconcile.harness import GIB, SCOPE, Scene, deployment, run_virtual, scene

from mooring.domain import capacity
from mooring.domain.endpoint import Change, EndpointStatus
from mooring.runtime.driver import DriverError
from mooring.store.base import StoreError


@pytest.fixture
def played(tmp_path: Path):
    """Run a coroutine function over a started scene, in virtual time."""

    def play(story, **arguments):
        async def run():
            async with scene(tmp_path, **arguments) as made:
                await story(made)

        run_virtual(run())

    return play


def test_a_created_endpoint_is_in_service_only_when_every_edge_has_its_routes(played) -> None:
    async def story(on: Scene) -> None:
        on.edges[1].acks = False
        on.store.create("e", deployment("d1", ("a", 2, 1.0), ("b", 1, 0.5)))
        on.wake("e")
        await on.until(lambda: on.edges[1].instances("e") != {})
        await asyncio.sleep(5)
        assert on.status("e") is EndpointStatus.CREATING
        on.edges[1].acks = True
        on.reconciler._routes.set_credentials([])  # nothing new: the next retry publishes nothing either
        await on.edges[1].aclose()
        on.edges[1].start()  # as a restarted worker: it gets the newest table
        await on.until_status("e", EndpointStatus.IN_SERVICE)
        assert {name: len(ids) for name, ids in on.edge.instances("e").items()} == {"a": 2, "b": 1}
        active = on.store.endpoints["e"].active
        assert active is not None
        assert active.current_counts == {"a": 2, "b": 1}
        assert on.images_of("e") == {"a": "good@sha256:1", "b": "good@sha256:1"}
        route = on.edge.route("e")
        assert route is not None
        assert [variant.weight for variant in route.variants] == [1.0, 0.5]
        on.assert_converged()

    played(story, workers=2)


def test_a_model_that_cannot_be_loaded_fails_the_endpoint_with_its_last_words_and_is_not_tried_again(played) -> None:
    async def story(on: Scene) -> None:
        on.store.create("e", deployment("d1", ("a", 1, 1.0), model="unloadable"))
        on.wake("e")
        await on.until_status("e", EndpointStatus.FAILED)
        reason = on.store.endpoints["e"].failure_reason
        assert reason.startswith(
            "The primary container for production variant a did not pass the ping health check. "
            "Please check CloudWatch logs for this endpoint."
        )
        assert reason.endswith("ModuleNotFoundError: No module named 'nothing'")
        await on.until(lambda: not on.store.instances)
        assert len(on.driver.started) == 1
        assert on.edge.route("e") is None
        on.assert_converged()

    played(story)


def test_an_instance_that_exits_early_is_tried_three_times_in_all(played) -> None:
    async def story(on: Scene) -> None:
        on.store.create("e", deployment("d1", ("a", 1, 1.0), model="dies"))
        on.wake("e")
        await on.until_status("e", EndpointStatus.FAILED)
        assert len(on.driver.started) == 3
        assert "exited with code 3. Last output: Traceback" in on.store.endpoints["e"].failure_reason

    played(story)


def test_an_instance_that_never_answers_pings_fails_the_endpoint_after_its_start_up_window(played) -> None:
    async def story(on: Scene) -> None:
        began = asyncio.get_running_loop().time()
        on.store.create("e", deployment("d1", ("a", 1, 1.0), model="deaf"))
        on.wake("e")
        await on.until_status("e", EndpointStatus.FAILED)
        assert 60 <= asyncio.get_running_loop().time() - began < 70
        assert "did not answer /ping with 200 within 60 s. Last output: still loading" in (
            on.store.endpoints["e"].failure_reason
        )
        assert len(on.driver.started) == 1

    played(story)


def test_a_download_failure_is_told_in_the_drivers_own_words(played) -> None:
    async def story(on: Scene) -> None:
        on.store.create("e", deployment("d1", ("a", 1, 1.0), model="missing"))
        on.wake("e")
        await on.until_status("e", EndpointStatus.FAILED)
        assert on.store.endpoints["e"].failure_reason == "Failed to download model data."
        assert not on.driver.started

    played(story)


def test_passing_trouble_of_the_driver_is_tried_again(played) -> None:
    async def story(on: Scene) -> None:
        on.driver.trouble["start"] = [DriverError("busy", retryable=True)]
        on.driver.trouble["prepare"] = [DriverError("busy", retryable=True)]
        await on.in_service("e", deployment("d1"))
        on.assert_converged()

    played(story)


def test_an_update_switches_when_the_new_pool_is_healthy_and_never_has_less_than_the_old(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 2, 1.0)))
        old = set(on.edge.instances("e")["a"])
        first = len(on.edge.tables)
        on.store.update("e", deployment("d2", ("a", 2, 1.0), model="slow"))
        on.wake("e")
        await on.until_status("e", EndpointStatus.IN_SERVICE)
        new = set(on.edge.instances("e")["a"])
        assert not new & old
        assert on.store.endpoints["e"].active.deployment.id == "d2"
        assert on.images_of("e") == {"a": "slow@sha256:1"}
        for table in on.edge.tables[first:]:
            assert len(table.endpoints[0].variants[0].instances) >= 2
        await on.until(lambda: len(on.store.instances) == 2)
        assert set(on.store.instances) == new
        on.assert_converged()

    played(story)


def test_a_failed_update_leaves_the_old_pool_and_its_traffic_untouched(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 2, 1.0)))
        old = on.edge.route("e")
        on.store.update("e", deployment("d2", ("a", 1, 1.0), ("b", 1, 1.0), model="unloadable"))
        on.wake("e")
        await on.until_status("e", EndpointStatus.IN_SERVICE)
        row = on.store.endpoints["e"]
        assert row.active.deployment.id == "d1"
        assert "variant a did not pass the ping health check" in row.failure_reason
        await on.until(lambda: len(on.store.instances) == 2)
        assert on.edge.route("e") == old
        on.assert_converged()

    played(story)


def test_weights_change_without_touching_instances(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 1, 1.0), ("b", 1, 1.0)))
        before = on.edge.instances("e")
        on.store.update("e", deployment("d1", ("a", 1, 0.0), ("b", 1, 3.0)), Change.WEIGHTS)
        on.wake("e")
        await on.until_status("e", EndpointStatus.IN_SERVICE)
        assert on.edge.instances("e") == before
        assert [variant.weight for variant in on.edge.route("e").variants] == [0.0, 3.0]
        assert len(on.driver.started) == 2

    played(story)


def test_scaling_out_waits_for_health_and_scaling_in_drains(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 1, 1.0)))
        on.store.update("e", deployment("d1", ("a", 3, 1.0)), Change.WEIGHTS)
        on.wake("e")
        await on.until_status("e", EndpointStatus.IN_SERVICE)
        assert len(on.edge.instances("e")["a"]) == 3
        assert on.store.endpoints["e"].active.current_counts == {"a": 3}
        busy = {instance.slot for instance in on.edge.route("e").variants[0].instances}
        for slot in busy:
            on.counters.word[on.counters.gauge(0, slot)] = 1
        on.store.update("e", deployment("d1", ("a", 1, 1.0)), Change.WEIGHTS)
        on.wake("e")
        await on.until(lambda: len(on.edge.instances("e")["a"]) == 1)
        await asyncio.sleep(10)
        assert len(on.driver.alive()) == 3, "requests are in flight"
        assert on.store.endpoints["e"].active.current_counts == {"a": 1}
        for slot in busy:
            on.counters.word[on.counters.gauge(0, slot)] = 0
        await on.until(lambda: len(on.store.instances) == 1)
        on.assert_converged()

    played(story)


def test_draining_is_bounded(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1"))
        on.counters.word[on.counters.gauge(0, on.edge.route("e").variants[0].instances[0].slot)] = 1
        on.store.delete("e")
        on.wake("e")
        await on.until_status("e", None)
        assert not on.driver.instances
        assert not on.store.instances

    played(story)


def test_a_scale_out_that_fails_goes_back_to_the_old_counts_and_weights(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 1, 1.0), ("b", 1, 1.0)))
        before = on.edge.route("e")
        on.driver.trouble["start"] = [DriverError("no room", retryable=False)]
        on.store.update("e", deployment("d1", ("a", 2, 5.0), ("b", 1, 1.0)), Change.WEIGHTS)
        on.wake("e")
        await on.until_status("e", EndpointStatus.IN_SERVICE)
        row = on.store.endpoints["e"]
        assert row.failure_reason == "no room"
        assert row.active.deployment.variants[0].desired_count == 1
        await on.until(lambda: len(on.store.instances) == 2)
        assert on.edge.route("e") == before

    played(story)


def test_a_crashed_instance_leaves_the_routes_and_is_replaced_with_the_same_image(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 2, 1.0)))
        victim = on.edge.instances("e")["a"][0]
        on.driver.instances[victim].die(-9)
        await on.until(lambda: victim not in on.edge.instances("e")["a"])
        await on.until(lambda: len(on.edge.instances("e")["a"]) == 2)
        await on.until(lambda: on.store.endpoints["e"].active.current_counts == {"a": 2})
        assert on.status("e") is EndpointStatus.IN_SERVICE
        assert all(instance.spec.resolved_image in (None, "good@sha256:1") for instance in on.driver.instances.values())
        newest = on.driver.instances[on.driver.started[-1]]
        assert newest.spec.resolved_image == "good@sha256:1"
        await on.until(lambda: len(on.store.instances) == 2)
        on.assert_converged()

    played(story)


def test_an_endpoint_without_a_healthy_instance_stays_in_service_and_comes_back_by_itself(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1"))
        for _ in range(6):
            instance = on.driver.alive()[0]
            started = len(on.driver.started)
            instance.die(1)
            await on.until(lambda seen=started: len(on.driver.started) > seen and bool(on.edge.instances("e")["a"]))
        on.driver.trouble["prepare"] = [DriverError("gone", retryable=False)] * 8
        on.driver.alive()[0].die(1)
        await on.until(lambda: on.edge.instances("e") == {"a": []})
        assert on.status("e") is EndpointStatus.IN_SERVICE
        await on.until(lambda: on.store.endpoints["e"].active.current_counts == {"a": 0})
        await on.until(lambda: len(on.edge.instances("e")["a"]) == 1, within_s=600)

    played(story)


def test_an_instance_that_fails_three_pings_in_a_row_is_replaced(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1"))
        victim = on.driver.alive()[0]
        victim.answers = False
        await on.until(lambda: victim.spec.instance_id in on.driver.stopped)
        await on.until(lambda: len(on.edge.instances("e")["a"]) == 1)
        assert victim.spec.instance_id not in on.edge.instances("e")["a"]

    played(story)


def test_an_instance_that_fails_two_pings_and_recovers_is_kept(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1"))
        instance = on.driver.alive()[0]
        instance.answers = False
        seen = instance.pings
        await on.until(lambda: instance.pings == seen + 2)
        instance.answers = True
        await asyncio.sleep(60)
        assert on.driver.alive() == [instance]

    played(story)


@pytest.mark.parametrize("model", ["good", "slow", "deaf", "dies"])
def test_an_endpoint_can_be_deleted_while_it_is_being_created(played, model: str) -> None:
    async def story(on: Scene) -> None:
        on.store.create("e", deployment("d1", ("a", 2, 1.0), model=model))
        on.wake("e")
        await on.until(lambda: bool(on.driver.started))
        on.store.delete("e")
        on.wake("e")
        await on.until_status("e", None)
        on.assert_converged()
        assert not on.driver.instances
        assert on.edge.route("e") is None

    played(story)


def test_a_deleted_endpoint_takes_no_traffic_before_its_instances_stop(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1"))
        on.edge.acks = False
        on.store.delete("e")
        on.wake("e")
        await on.until(lambda: on.edge.route("e") is None)
        await asyncio.sleep(9)
        assert on.driver.alive(), "no edge has said that it sends nothing any more"
        await on.edge.aclose()
        on.edge.acks = True
        on.edge.start()
        await on.until_status("e", None)
        assert not on.driver.instances

    played(story)


def test_a_lost_wake_up_only_delays(played) -> None:
    async def story(on: Scene) -> None:
        on.store.create("e", deployment("d1"))
        await on.until_status("e", EndpointStatus.IN_SERVICE)

    played(story)


def test_an_unknown_or_too_large_type_fails_with_insufficient_capacity_in_words(played) -> None:
    async def story(on: Scene) -> None:
        on.store.create("unknown", deployment("d1", instance_type="ml.none.large"))
        on.wake("unknown")
        await on.until_status("unknown", EndpointStatus.FAILED)
        reason = on.store.endpoints["unknown"].failure_reason
        assert "InsufficientInstanceCapacity" in reason
        assert "ml.none.large is not in this server's table" in reason
        on.store.create("large", deployment("d2", instance_type="ml.m5.24xlarge"))
        on.wake("large")
        await on.until_status("large", EndpointStatus.IN_SERVICE)
        assert [view.limits.notes for view in on.reconciler.status().instances] == [
            ("limited to 4 of 96 vCPU", "limited to 64 of 384 GiB of memory")
        ]
        assert any("limited to 4 of 96 vCPU" in text for _, _, text in on.lines)

    played(story)


def test_an_update_whose_pools_do_not_fit_together_fails_and_the_old_one_stays(played) -> None:
    async def story(on: Scene) -> None:
        on.reconciler._pools._room = type(on.reconciler._pools._room)(
            inventory=lambda: on.inventory,
            rules=capacity.CapacityRules(memory="reserve", memory_floor_bytes=45 * GIB),
        )
        await on.in_service("e", deployment("d1", ("a", 2, 1.0)))
        on.store.update("e", deployment("d2", ("a", 1, 1.0)))
        on.wake("e")
        await on.until_status("e", EndpointStatus.IN_SERVICE)
        row = on.store.endpoints["e"]
        assert row.active.deployment.id == "d1"
        assert "InsufficientInstanceCapacity" in row.failure_reason
        assert "8 GiB of memory are asked for, 3 GiB are not reserved" in row.failure_reason
        assert len(on.driver.alive()) == 2

    played(story)


def test_too_many_instances_for_the_counters_is_a_capacity_failure(played) -> None:
    async def story(on: Scene) -> None:
        on.store.create("e", deployment("d1", ("a", 65, 1.0)))
        on.wake("e")
        await on.until_status("e", EndpointStatus.FAILED)
        reason = on.store.endpoints["e"].failure_reason
        assert "65 instances are wanted, this server has places for 64" in reason
        assert not on.driver.started, "what cannot end well was begun"
        await on.in_service("most", deployment("d3", ("a", 60, 1.0)))
        on.store.create("rest", deployment("d4", ("a", 5, 1.0)))
        on.wake("rest")
        await on.until_status("rest", EndpointStatus.FAILED)
        assert "all 64 places for instances are taken" in on.store.endpoints["rest"].failure_reason
        on.store.delete("most")
        on.wake("most")
        await on.until(lambda: not on.store.instances)
        on.store.create("ok", deployment("d2", ("a", 20, 1.0)))
        on.wake("ok")
        await on.until_status("ok", EndpointStatus.IN_SERVICE)

    played(story)


def test_stopping_all_instances_is_parallel_and_starts_none_again(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 8, 1.0)))
        for instance in on.edge.route("e").variants[0].instances:
            on.counters.word[on.counters.gauge(0, instance.slot)] = 1
        assert await on.reconciler.stop_all_instances(timeout_s=30)
        assert not on.driver.instances
        assert not on.store.instances
        assert on.status("e") is EndpointStatus.IN_SERVICE
        for slot in range(64):
            on.counters.word[on.counters.gauge(0, slot)] = 0
        await on.restart()
        await on.until(lambda: len(on.edge.instances("e")["a"]) == 8)

    played(story)


def test_instances_that_outlived_the_server_are_adopted_and_stay_in_the_routes(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 2, 1.0)))
        before = on.edge.route("e")
        seen = len(on.edge.tables)
        await on.restart()
        await on.until(lambda: len(on.edge.tables) > seen)
        assert [len(t.endpoints[0].variants[0].instances) for t in on.edge.tables[seen:]] == [2]
        assert {i.instance_id for i in on.edge.route("e").variants[0].instances} == {
            i.instance_id for i in before.variants[0].instances
        }
        await asyncio.sleep(30)
        assert len(on.driver.started) == 2
        on.assert_converged()

    played(story)


def test_instances_that_died_while_the_server_was_away_are_replaced_and_strays_swept(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 2, 1.0)))
        await on.reconciler.aclose()
        dead, kept = on.edge.instances("e")["a"]
        on.driver.instances[dead].die(-9)
        stray = on.driver.instances[kept]
        on.driver.instances["i-stray"] = type(stray)(spec=stray.spec, handle=stray.handle)
        await on.restart()
        await on.until(lambda: len(on.edge.instances("e")["a"]) == 2)
        assert kept in on.edge.instances("e")["a"]
        assert "i-stray" not in on.driver.instances
        await on.until(lambda: dead not in on.store.instances)
        on.assert_converged()

    played(story)


def test_a_stop_under_way_is_cut_short_when_the_server_itself_stops(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 2, 1.0), model="stubborn"))
        on.store.update("e", deployment("d1", ("a", 1, 1.0), model="stubborn"), Change.WEIGHTS)
        on.wake("e")
        await on.until_status("e", EndpointStatus.IN_SERVICE)
        await asyncio.sleep(2)
        assert len(on.driver.alive()) == 2, "one is in its 30 s of grace"
        assert await on.reconciler.stop_all_instances(timeout_s=10)
        assert not on.driver.instances

    played(story)


def test_stopping_says_when_instances_are_left(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1"))
        on.driver.trouble["remove"] = [DriverError("busy", retryable=True)] * 50
        assert not await on.reconciler.stop_all_instances(timeout_s=5)
        assert on.store.instances, "its row stays for the next start"

    played(story)


def test_trouble_while_an_instance_ends_is_met_with_patience(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1"))
        on.driver.trouble["stop"] = [DriverError("busy", retryable=True), DriverError("odd", retryable=False)]
        on.driver.trouble["remove"] = [DriverError("busy", retryable=True)]
        on.store.delete("e")
        on.wake("e")
        await on.until_status("e", None)
        assert not on.driver.instances
        assert not on.store.instances

    played(story)


def test_a_store_that_fails_now_and_then_only_delays(played) -> None:
    async def story(on: Scene) -> None:
        calls: dict[str, int] = {}

        def fail(name: str) -> None:
            calls[name] = calls.get(name, 0) + 1
            if calls[name] % 2:
                raise StoreError("disk is away", retryable=True)

        on.store.fail = fail
        await on.in_service("e", deployment("d1", ("a", 2, 1.0)))
        on.store.update("e", deployment("d2", ("a", 1, 1.0)))
        on.wake("e")
        await on.until_status("e", EndpointStatus.IN_SERVICE)
        assert on.store.endpoints["e"].active.deployment.id == "d2"
        await on.until(lambda: len(on.store.instances) == 1)
        on.store.delete("e")
        on.wake("e")
        await on.until_status("e", None)
        on.assert_converged()

    played(story)


def test_a_replacement_runs_the_pinned_image_even_when_nothing_survived_the_restart(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1"))
        on.driver.alive()[0].die(-9)
        await on.restart()
        await on.until(lambda: len(on.driver.started) == 2 and len(on.driver.alive()) == 1)
        assert on.driver.alive()[0].spec.resolved_image == "good@sha256:1"

    played(story)


def test_an_instance_that_was_leaving_when_the_server_was_killed_gets_no_traffic_again(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 2, 1.0)))
        slots = {i.instance_id: i.slot for i in on.edge.route("e").variants[0].instances}
        for slot in slots.values():
            on.counters.word[on.counters.gauge(0, slot)] = 1
        on.store.update("e", deployment("d1", ("a", 1, 1.0)), Change.WEIGHTS)
        on.wake("e")
        await on.until(lambda: len(on.edge.instances("e")["a"]) == 1)
        await asyncio.sleep(1)
        (kept,) = on.edge.instances("e")["a"]
        seen = len(on.edge.tables)
        await on.restart()
        await on.until(lambda: len(on.store.instances) == 1)
        assert set(on.store.instances) == {kept}
        for table in on.edge.tables[seen:]:
            assert [i.instance_id for i in table.endpoints[0].variants[0].instances] == [kept]

    played(story)


def test_memory_below_the_floor_fails_a_create_and_delays_a_replacement(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1"))
        plenty = on.inventory
        on.inventory = replace(plenty, memory_available_bytes=100 << 20)
        on.store.create("f", deployment("d2"))
        on.wake("f")
        await on.until_status("f", EndpointStatus.FAILED)
        assert "GiB of memory are available, the floor is 0.5 GiB" in on.store.endpoints["f"].failure_reason
        on.driver.alive()[0].die(-9, oom_killed=True)
        await on.until(lambda: on.edge.instances("e") == {"a": []})
        await asyncio.sleep(30)
        assert not on.driver.alive()
        assert any("ran out of memory" in text for _, _, text in on.lines)
        on.inventory = plenty
        await on.until(lambda: len(on.edge.instances("e")["a"]) == 1)

    played(story)


def test_the_view_shows_endpoints_variants_slots_and_instances(played) -> None:
    async def story(on: Scene) -> None:
        await on.in_service("e", deployment("d1", ("a", 1, 1.0), ("b", 2, 0.5)))
        route = on.edge.route("e")
        status = on.reconciler.status()
        assert [(each.name, each.scope) for each in status.endpoints] == [("e", SCOPE)]
        assert [(v.name, v.slot, v.weight, len(v.instances)) for v in status.endpoints[0].variants] == [
            (v.name, v.slot, v.weight, len(v.instances)) for v in route.variants
        ]
        assert {(i.instance_id, i.slot, i.address) for i in status.instances} == {
            (i.instance_id, i.slot, i.address) for v in route.variants for i in v.instances
        }
        assert status.acknowledged_generation == status.generation == on.edge.table.generation

    played(story)
