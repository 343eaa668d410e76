"""PoolClient's choice and what becomes of connections when its instances change. No sockets: connections are made up."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain.routing import InstanceRoute
from mooring.invoke.pool import Instance, PoolClient, PoolLimits
from mooring.kit import counters as kit_counters
from mooring.kit import tasks
from mooring.net.upstream import Upstream


class Transport(asyncio.Transport):
    closed = False

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def route(index: int) -> InstanceRoute:
    return InstanceRoute(instance_id=f"i{index}", slot=index, address=f"unix:/{index}")


class Pool:
    def __init__(self) -> None:
        layout = kit_counters.Layout(workers=2, gauges=8, groups=1)
        memory = kit_counters.create(layout)
        self.counters = kit_counters.Counters(memory, layout)
        os.close(memory)
        limits = PoolLimits(connections=2, idle_connections=2, idle_timeout_s=10)
        self.client = PoolClient(counters=self.counters, worker=0, group=tasks.Group("pool"), limits=limits)

    def upstream(self, instance: Instance) -> tuple[Upstream, Transport]:
        upstream, transport = Upstream(instance._gone), Transport()
        upstream.connection_made(transport)
        return upstream, transport


@pytest.fixture
def pool() -> Iterator[Pool]:
    one = Pool()
    yield one
    one.counters.close()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6), st.floats(0, 0.999))
def test_the_least_loaded_instance_of_all_workers_is_picked(loads: list[tuple[int, int]], ticket: float) -> None:
    pool = Pool()
    pool.client.assign([route(index) for index in range(len(loads))])
    for index, (mine, other) in enumerate(loads):
        pool.counters.word[pool.counters.gauge(0, index)] = mine
        pool.counters.word[pool.counters.gauge(1, index)] = other
    picked = pool.client.pick(lambda: ticket)
    assert picked is not None
    assert sum(loads[picked.slot]) == min(map(sum, loads))
    avoided = pool.client.pick(lambda: ticket, [picked])
    assert avoided is not picked
    assert (avoided is None) == (len(loads) == 1)
    pool.counters.close()


def test_an_empty_pool_has_no_instance_to_pick(pool: Pool) -> None:
    assert pool.client.pick(lambda: 0.0) is None


def test_the_gauge_follows_begin_and_end(pool: Pool) -> None:
    pool.client.assign([route(3)])
    (instance,) = pool.client.instances
    instance.begin()
    instance.begin()
    assert pool.counters.gauge_total(3) == instance.outstanding() == 2
    instance.end()
    instance.end()
    assert instance.outstanding() == 0


def test_the_warmest_connection_is_used_first_and_gone_ones_are_skipped(pool: Pool) -> None:
    pool.client.assign([route(0)])
    (instance,) = pool.client.instances
    (first, _), (second, second_transport) = pool.upstream(instance), pool.upstream(instance)
    instance.give(first, 1.0)
    instance.give(second, 1.0)
    assert instance.take(1.1) is second
    instance.give(second, 1.2)
    second_transport.closed = True
    assert instance.take(1.3) is first
    assert first.reused
    assert instance.take(1.3) is None


def test_idle_connections_are_bounded_in_number_and_time(pool: Pool) -> None:
    pool.client.assign([route(0)])
    (instance,) = pool.client.instances
    made = [pool.upstream(instance) for _ in range(3)]
    for upstream, _ in made:
        instance.give(upstream, 0.0)
    assert [transport.closed for _, transport in made] == [False, False, True]
    pool.client.sweep(10.5)
    assert all(transport.closed for _, transport in made)
    assert instance.idle == 0


def test_connections_of_those_who_stay_are_kept_and_of_those_who_go_closed(pool: Pool) -> None:
    pool.client.assign([route(0), route(1)])
    stays, goes = pool.client.instances
    (kept, kept_transport), (idle, idle_transport), (busy, busy_transport) = (
        pool.upstream(stays),
        pool.upstream(goes),
        pool.upstream(goes),
    )
    stays.give(kept, 0.0)
    goes.give(idle, 0.0)
    pool.client.assign([route(2), route(0)])
    assert pool.client.instances[1] is stays
    assert idle_transport.closed
    assert not kept_transport.closed
    goes.give(busy, 0.0)  # its answer came after the swap
    assert busy_transport.closed
    assert stays.take(0.1) is kept


def test_an_instance_at_another_address_is_another_instance(pool: Pool) -> None:
    pool.client.assign([route(0)])
    (before,) = pool.client.instances
    pool.client.assign([InstanceRoute(instance_id="i0", slot=0, address="unix:/elsewhere")])
    assert pool.client.instances[0] is not before
