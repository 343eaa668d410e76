"""Status reports and Prometheus text."""

import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain.endpoint import Active, Change, Deployment, Endpoint, Variant
from mooring.domain.endpoint_config import ProductionVariant
from mooring.domain.ids import DeploymentId, EndpointConfigName, EndpointName, InstanceId, ModelName, Scope, VariantName
from mooring.domain.instance import InstanceRecord, InstanceSpec, Limits, Phase
from mooring.domain.model import Model
from mooring.invoke import counts
from mooring.kit import counters
from mooring.kit.counters import Counters, Layout
from mooring.telemetry import metrics, status
from mooring.telemetry.status import Report, Slots

SCOPE = Scope(account="000000000000", region="us-east-1")


@pytest.fixture
def memory() -> Iterator[Counters]:
    layout = Layout(workers=2, gauges=8, groups=4)
    fd = counters.create(layout)
    made = Counters(fd, layout)
    yield made
    made.close()
    os.close(fd)


def endpoint() -> Endpoint:
    variant = Variant(
        config=ProductionVariant(name=VariantName("v"), model_name=ModelName("m"), instance_type="ml.m5.large"),
        model=Model(scope=SCOPE, name=ModelName("m"), created_at_s=0, containers=()),
        desired_weight=0.5,
        desired_count=2,
    )
    deployment = Deployment(id=DeploymentId("d"), config_name=EndpointConfigName("c"), variants=(variant,))
    return Endpoint(
        scope=SCOPE,
        name=EndpointName("Demo"),
        created_at_s=0,
        modified_at_s=0,
        generation=1,
        observed_generation=1,
        change=Change.CREATE,
        desired=deployment,
        active=Active(deployment=deployment, current_counts={"v": 1}),
    )


def instance() -> InstanceRecord:
    spec = InstanceSpec(
        instance_id=InstanceId("i-1"),
        pool_id=endpoint().desired.pool_id(VariantName("v")),
        scope=SCOPE,
        owner="endpoint/Demo",
        image="x",
        environment={},
        model_data_url=None,
        limits=Limits(vcpu=2, memory_bytes=1, notes=('limited to 2 of 4 "vCPU"',)),
        log_group="g",
        log_stream="s",
    )
    return InstanceRecord(spec=spec, phase=Phase.STARTED)


def report(memory: Counters) -> Report:
    slots = Slots(variant=lambda _key, _name: 1, instance=lambda _id: 3)
    return Report(
        version="1",
        url="http://x",
        account=SCOPE.account,
        region=SCOPE.region,
        endpoints=status.observe([endpoint()], [instance()], memory, slots),
        notes=[],
        workers=2,
    )


def put(memory: Counters, worker: int, latency_us: int) -> None:
    group = memory.group(worker, 1)
    memory.word[group + counts.INVOCATIONS] += 1
    memory.word[group + memory.layout.counters + counters.bucket_of(latency_us)] += 1


def test_counts_of_all_workers_are_summed(memory: Counters) -> None:
    put(memory, 0, 1000)
    put(memory, 1, 3000)
    memory.word[memory.gauge(0, 3)] = 2
    memory.word[memory.gauge(1, 3)] = 5
    text = metrics.render(report(memory), memory)
    assert 'mooring_invocations_total{endpoint="Demo",variant="v"} 2\n' in text
    assert 'mooring_model_latency_seconds_bucket{endpoint="Demo",variant="v",le="0.001024"} 1\n' in text
    assert 'mooring_model_latency_seconds_bucket{endpoint="Demo",variant="v",le="0.004096"} 2\n' in text
    assert 'mooring_model_latency_seconds_count{endpoint="Demo",variant="v"} 2\n' in text
    assert 'mooring_instance_requests_in_flight{endpoint="Demo",variant="v",instance="i-1"} 7\n' in text
    assert 'mooring_instances{endpoint="Demo",variant="v",state="healthy"} 1\n' in text
    assert r'note="limited to 2 of 4 \"vCPU\""} 1' in text


def test_an_endpoint_without_slots_is_shown_with_zeros(memory: Counters) -> None:
    slots = Slots(variant=lambda _key, _name: None, instance=lambda _id: None)
    (found,) = status.observe([endpoint()], [instance()], memory, slots)
    (variant,) = found.variants
    assert (found.name, found.status) == ("Demo", "InService")
    assert (variant.invocations, variant.in_flight, variant.desired, variant.healthy) == (0, 0, 2, 1)
    assert variant.notes == ['limited to 2 of 4 "vCPU"']


def test_every_line_is_a_sample_or_a_comment_and_every_series_is_unique(memory: Counters) -> None:
    sample = re.compile(r'mooring_[a-z0-9_]+(\{([a-z]+="([^"\\\n]|\\.)*",?)*\})? [0-9.e+]+')
    lines = metrics.render(report(memory), memory).splitlines()
    series = [line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#")]
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)
    assert len(series) == len(set(series))


@given(st.lists(st.integers(0, 1 << 36), max_size=30))
def test_cumulative_buckets_hold_exactly_the_values_below_their_bound(values: list[int]) -> None:
    layout = Layout(workers=1, gauges=8, groups=2)
    fd = counters.create(layout)
    memory = Counters(fd, layout)
    try:
        for value in values:
            put(memory, 0, value)
        text = metrics.render(report(memory), memory)
        found = re.findall(r'mooring_model_latency_seconds_bucket\{.*le="([^"]+)"\} (\d+)', text)
        for bound, count in found:
            limit = float("inf") if bound == "+Inf" else round(float(bound) * 1e6)
            below = sum(1 for value in values if value < limit)
            assert int(count) == below, (bound, count)
    finally:
        memory.close()
        os.close(fd)
