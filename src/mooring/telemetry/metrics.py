"""`/_mooring/metrics`: Prometheus text of what was counted in shared memory. Names follow CloudWatch's where it has one.

Latencies are kept in buckets of 12.5 % width; here they are shown at powers of two, whose bounds those buckets share, so
every cumulative count is exact. A `_sum` is taken from bucket middles and is right within 6 %.
Source: Prometheus text exposition format 0.0.4.
"""

from collections.abc import Iterable, Iterator, Sequence

from mooring.invoke import counts
from mooring.kit.counters import BUCKETS, Counters, bucket_bounds, bucket_of
from mooring.telemetry.status import EndpointReport, Report, VariantReport

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LOWEST, _HIGHEST = 7, 27  # powers of two in µs: 128 µs … 134 s

_COUNTERS = (
    ("invocations_total", "Requests sent to the model.", "invocations"),
    ("invocation_4xx_errors_total", "Requests that the model answered with 4xx.", "errors_4xx"),
    ("invocation_5xx_errors_total", "Requests that the model answered with 5xx.", "errors_5xx"),
    ("invocation_model_errors_total", "Requests without a 2xx of the model, time-outs included.", "model_errors"),
    ("invocations_refused_total", "Requests that no instance could take; nothing ran.", "refused"),
)
_HISTOGRAMS = (
    ("model_latency_seconds", "From sending to the instance until its whole answer.", counts.MODEL_LATENCY),
    ("overhead_latency_seconds", "Total minus model latency.", counts.OVERHEAD_LATENCY),
)


def render(report: Report, counters: Counters) -> str:
    """The whole page."""
    return "\n".join(_lines(report, counters)) + "\n"


def _lines(report: Report, counters: Counters) -> Iterator[str]:
    yield from _head("build_info", "gauge", "The server's version.")
    yield f"mooring_build_info{_labels(version=report.version)} 1"
    yield from _head("edge_workers_ready", "gauge", "Edge workers that have the newest routes.")
    yield f"mooring_edge_workers_ready {report.workers}"
    variants = [(endpoint, variant) for endpoint in report.endpoints for variant in endpoint.variants]
    yield from _endpoints(report.endpoints)
    for name, text, member in _COUNTERS:
        yield from _head(name, "counter", text)
        for endpoint, variant in variants:
            yield f"mooring_{name}{_of(endpoint, variant)} {getattr(variant, member)}"
    for name, text, histogram in _HISTOGRAMS:
        yield from _head(name, "histogram", text)
        for endpoint, variant in variants:
            if variant.slot is not None:
                buckets = counters.histogram_total(variant.slot, histogram)
                yield from _histogram(name, endpoint, variant, buckets)
    yield from _instances(variants)


def _endpoints(endpoints: Iterable[EndpointReport]) -> Iterator[str]:
    yield from _head("endpoint_info", "gauge", "Endpoints and their status.")
    for endpoint in endpoints:
        yield f"mooring_endpoint_info{_labels(endpoint=endpoint.name, status=endpoint.status)} 1"


def _instances(variants: Sequence[tuple[EndpointReport, VariantReport]]) -> Iterator[str]:
    yield from _head("instances_desired", "gauge", "Instances wanted.")
    for endpoint, variant in variants:
        yield f"mooring_instances_desired{_of(endpoint, variant)} {variant.desired}"
    yield from _head("instances", "gauge", "Instances by state; healthy ones take requests.")
    for endpoint, variant in variants:
        states = {"healthy": variant.healthy}
        for instance in variant.instances:
            states[instance.phase] = states.get(instance.phase, 0) + 1
        for state, count in sorted(states.items()):
            yield f"mooring_instances{_of(endpoint, variant, state=state)} {count}"
    yield from _head("instance_requests_in_flight", "gauge", "Requests that an instance has now.")
    for endpoint, variant in variants:
        for instance in variant.instances:
            yield f"mooring_instance_requests_in_flight{_of(endpoint, variant, instance=instance.id)} {instance.in_flight}"
    yield from _head("instance_limits_info", "gauge", "What instances of a variant do not get on this machine.")
    for endpoint, variant in variants:
        for note in variant.notes:
            yield f"mooring_instance_limits_info{_of(endpoint, variant, note=note)} 1"


def _histogram(name: str, endpoint: EndpointReport, variant: VariantReport, buckets: Sequence[int]) -> Iterator[str]:
    seen = at = 0
    for power in range(_LOWEST, _HIGHEST + 1):
        bound = bucket_of(1 << power)
        seen += sum(buckets[at:bound])
        at = bound
        yield f"mooring_{name}_bucket{_of(endpoint, variant, le=repr((1 << power) / 1e6))} {seen}"
    total = seen + sum(buckets[at:])
    yield f"mooring_{name}_bucket{_of(endpoint, variant, le='+Inf')} {total}"
    middles = sum(sum(bucket_bounds(index)) / 2 * count for index, count in enumerate(buckets) if count)
    yield f"mooring_{name}_sum{_of(endpoint, variant)} {middles / 1e6:.6f}"
    yield f"mooring_{name}_count{_of(endpoint, variant)} {total}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP mooring_{name} {text}"
    yield f"# TYPE mooring_{name} {kind}"


def _of(endpoint: EndpointReport, variant: VariantReport, **more: str) -> str:
    return _labels(endpoint=endpoint.name, variant=variant.name, **more)


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


assert bucket_of(1 << _HIGHEST) < BUCKETS
