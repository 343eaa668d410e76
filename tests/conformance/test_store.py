"""Every Store does the same. An engine joins by a line in `ENGINES`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mooring.domain import ids
from mooring.domain.endpoint import (
    Active,
    Change,
    DeployedImage,
    Deployment,
    Endpoint,
    EndpointStatus,
    Variant,
    status_of,
)
from mooring.domain.endpoint_config import EndpointConfig, ProductionVariant
from mooring.domain.instance import Handle, InstanceRecord, InstanceSpec, Limits, Phase
from mooring.domain.listing import Cursor, ListQuery
from mooring.domain.model import Container, Model
from mooring.domain.tags import Tag
from mooring.store.base import AlreadyExists, Conflict, NotFound, Store, StoreError
from mooring.store.sqlite import SqliteStore

ENGINES: dict[str, Callable[[Path], Store]] = {"sqlite": lambda path: SqliteStore(path / "state.db")}

HERE = ids.Scope(account="000000000000", region="us-east-1")
THERE = ids.Scope(account="000000000000", region="eu-west-1")


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> Callable[[Path], Store]:
    return ENGINES[request.param]


@pytest.fixture
async def store(make: Callable[[Path], Store], tmp_path: Path) -> AsyncIterator[Store]:
    store = make(tmp_path)
    await store.start()
    yield store
    await store.aclose()


def a_model(name: str = "demo", scope: ids.Scope = HERE, created_at_s: float = 1.5) -> Model:
    container = Container(image="img:1", model_data_url="s3://b/k.tar.gz", environment={"A": "1", "É": "ü"})
    return Model(scope=scope, name=ids.ModelName(name), created_at_s=created_at_s, containers=(container,))


def a_variant(name: str = "v") -> ProductionVariant:
    return ProductionVariant(
        name=ids.VariantName(name), model_name=ids.ModelName("demo"), instance_type="ml.m5.large", weight=0.3
    )


def a_config(name: str = "conf", scope: ids.Scope = HERE) -> EndpointConfig:
    return EndpointConfig(
        scope=scope, name=ids.EndpointConfigName(name), created_at_s=2.25, variants=(a_variant("a"), a_variant("b"))
    )


def a_deployment(id_: str = "d1", weight: float = 1.0) -> Deployment:
    variant = Variant(config=a_variant(), model=a_model(), desired_weight=weight, desired_count=2)
    return Deployment(id=ids.DeploymentId(id_), config_name=ids.EndpointConfigName("conf"), variants=(variant,))


def an_endpoint(name: str = "Ep", scope: ids.Scope = HERE, created_at_s: float = 3.125) -> Endpoint:
    return Endpoint(
        scope=scope,
        name=ids.EndpointName(name),
        created_at_s=created_at_s,
        modified_at_s=created_at_s,
        generation=1,
        change=Change.CREATE,
        desired=a_deployment(),
    )


ACTIVE = Active(
    deployment=a_deployment(),
    current_counts={"v": 2},
    images={"v": (DeployedImage(specified_image="i", resolved_image="i@sha256:0", resolved_at_s=0.1),)},
)


# models and endpoint configs
async def test_a_model_reads_back_as_it_was_written(store: Store) -> None:
    await store.create_model(a_model(), [])
    assert await store.get_model(HERE, "demo") == a_model()


async def test_names_are_matched_exactly_and_in_their_own_scope(store: Store) -> None:
    await store.create_model(a_model("Demo"), [])
    assert await store.get_model(HERE, "demo") is None
    assert await store.get_model(THERE, "Demo") is None
    await store.create_model(a_model("Demo", scope=THERE), [])
    await store.delete_model(THERE, "Demo")
    assert await store.get_model(HERE, "Demo") is not None


async def test_a_duplicate_is_refused_whatever_its_letter_case(store: Store) -> None:
    await store.create_model(a_model("Demo"), [])
    await store.create_endpoint_config(a_config("Conf"), [])
    await store.create_endpoint(an_endpoint("Ep"), [])
    for name in ("Demo", "demo"):
        with pytest.raises(AlreadyExists):
            await store.create_model(a_model(name), [Tag(key="k", value="v")])
    with pytest.raises(AlreadyExists):
        await store.create_endpoint_config(a_config("CONF"), [])
    with pytest.raises(AlreadyExists):
        await store.create_endpoint(an_endpoint("eP"), [])
    assert await store.get_tags(a_model("Demo").arn) == {}


async def test_deleting_what_is_not_there_is_an_error(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.delete_model(HERE, "demo")
    with pytest.raises(NotFound):
        await store.delete_endpoint_config(HERE, "conf")


async def test_a_name_can_be_used_again_after_its_deletion_without_the_old_tags(store: Store) -> None:
    await store.create_endpoint_config(a_config(), [Tag(key="old", value="1")])
    await store.delete_endpoint_config(HERE, "conf")
    assert await store.get_endpoint_config(HERE, "conf") is None
    assert await store.get_tags(a_config().arn) is None
    await store.create_endpoint_config(a_config(), [])
    assert await store.get_endpoint_config(HERE, "conf") == a_config()
    assert await store.get_tags(a_config().arn) == {}


# endpoints
async def test_an_endpoint_reads_back_as_it_was_written(store: Store) -> None:
    endpoint = replace(an_endpoint(), active=ACTIVE, failure_reason="was bad", observed_generation=1)
    await store.create_endpoint(endpoint, [])
    assert await store.get_endpoint(HERE, "Ep") == endpoint
    assert await store.all_endpoints() == [endpoint]


async def test_a_new_wish_raises_the_generation_and_clears_the_last_failure(store: Store) -> None:
    await store.create_endpoint(replace(an_endpoint(), failure_reason="old", observed_generation=1), [])
    wish = a_deployment("d2")
    got = await store.set_desired(HERE, "Ep", expected_generation=1, change=Change.UPDATE, desired=wish, now_s=9.0)
    assert (got.generation, got.change, got.desired) == (2, Change.UPDATE, wish)
    assert (got.failure_reason, got.modified_at_s, got.created_at_s) == (None, 9.0, 3.125)
    assert await store.get_endpoint(HERE, "Ep") == got


async def test_a_wish_on_an_old_generation_loses(store: Store) -> None:
    await store.create_endpoint(an_endpoint(), [])
    await store.set_desired(HERE, "Ep", expected_generation=1, change=Change.UPDATE, desired=a_deployment(), now_s=4.0)
    with pytest.raises(Conflict):
        await store.set_desired(
            HERE, "Ep", expected_generation=1, change=Change.UPDATE, desired=a_deployment("x"), now_s=5.0
        )
    with pytest.raises(Conflict):
        await store.set_deleting(HERE, "Ep", expected_generation=1, now_s=5.0)
    with pytest.raises(Conflict):
        await store.set_observed(HERE, "Ep", generation=1, active=ACTIVE, failure_reason=None, now_s=5.0)
    kept = await store.get_endpoint(HERE, "Ep")
    assert kept is not None
    assert (kept.desired.id, kept.generation, kept.observed_generation) == ("d1", 2, 0)


async def test_exactly_one_of_many_concurrent_wishes_wins(store: Store) -> None:
    await store.create_endpoint(an_endpoint(), [])

    async def wish(number: int) -> bool:
        try:
            await store.set_desired(
                HERE,
                "Ep",
                expected_generation=1,
                change=Change.UPDATE,
                desired=a_deployment(f"w{number}"),
                now_s=4.0,
            )
        except Conflict:
            return False
        return True

    won = await asyncio.gather(*(wish(number) for number in range(20)))
    assert won.count(True) == 1
    kept = await store.get_endpoint(HERE, "Ep")
    assert kept is not None
    assert kept.desired.id == f"w{won.index(True)}"


async def test_an_outcome_is_recorded_and_moves_the_time_only_when_asked(store: Store) -> None:
    await store.create_endpoint(an_endpoint(), [])
    await store.set_observed(HERE, "Ep", generation=1, active=ACTIVE, failure_reason=None, now_s=None)
    quiet = await store.get_endpoint(HERE, "Ep")
    assert quiet is not None
    assert (quiet.observed_generation, quiet.active, quiet.modified_at_s) == (1, ACTIVE, 3.125)
    await store.set_observed(HERE, "Ep", generation=1, active=None, failure_reason="dead", now_s=8.00049)
    loud = await store.get_endpoint(HERE, "Ep")
    assert loud is not None
    assert (loud.active, loud.failure_reason, loud.modified_at_s) == (None, "dead", 8.0)


async def test_what_serves_may_change_without_an_outcome(store: Store) -> None:
    await store.create_endpoint(an_endpoint(), [])
    await store.set_active(HERE, "Ep", active=ACTIVE)
    found = await store.get_endpoint(HERE, "Ep")
    assert found is not None
    assert (found.active, found.observed_generation) == (ACTIVE, 0)


async def test_writes_to_an_endpoint_that_is_not_there_say_so(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.set_desired(
            HERE, "Ep", expected_generation=1, change=Change.UPDATE, desired=a_deployment(), now_s=1.0
        )
    with pytest.raises(NotFound):
        await store.set_deleting(HERE, "Ep", expected_generation=1, now_s=1.0)
    with pytest.raises(NotFound):
        await store.set_observed(HERE, "Ep", generation=1, active=None, failure_reason=None, now_s=None)
    with pytest.raises(NotFound):
        await store.set_active(HERE, "Ep", active=ACTIVE)
    with pytest.raises(NotFound):
        await store.remove_endpoint(HERE, "Ep", generation=1)


async def test_an_endpoint_goes_only_when_it_is_deleting_at_that_generation(store: Store) -> None:
    await store.create_endpoint(an_endpoint(), [Tag(key="k", value="v")])
    with pytest.raises(Conflict):
        await store.remove_endpoint(HERE, "Ep", generation=1)
    marked = await store.set_deleting(HERE, "Ep", expected_generation=1, now_s=5.0)
    assert (marked.deleting, marked.generation, marked.modified_at_s) == (True, 2, 5.0)
    with pytest.raises(Conflict):
        await store.set_desired(
            HERE, "Ep", expected_generation=2, change=Change.UPDATE, desired=a_deployment(), now_s=6.0
        )
    with pytest.raises(Conflict):
        await store.remove_endpoint(HERE, "Ep", generation=1)
    await store.remove_endpoint(HERE, "Ep", generation=2)
    assert await store.get_endpoint(HERE, "Ep") is None
    assert await store.get_tags(marked.arn) is None


# lists
async def _names(store: Store, query: ListQuery) -> list[str]:
    """Walk all pages."""
    found: list[str] = []
    for _ in range(100):
        page = await store.list_endpoints(HERE, query)
        found += [endpoint.name for endpoint in page.items]
        if page.next is None:
            return found
        query = replace(query, after=page.next)
    raise AssertionError("the pages do not end")


async def test_lists_sort_by_name_time_and_status_with_the_name_as_tie_break(store: Store) -> None:
    for name, created in (("b", 1.0), ("a", 1.0), ("C", 2.0), ("d", 0.5)):
        await store.create_endpoint(an_endpoint(name, created_at_s=created), [])
    await store.set_observed(HERE, "a", generation=1, active=ACTIVE, failure_reason=None, now_s=None)
    for limit in (1, 2, 3, 10):
        up, down = (ListQuery(descending=False, limit=limit), ListQuery(limit=limit))
        assert await _names(store, up) == ["d", "a", "b", "C"]
        assert await _names(store, down) == ["C", "b", "a", "d"]
        assert await _names(store, replace(up, sort_by="Name")) == ["C", "a", "b", "d"]
        assert await _names(store, replace(down, sort_by="Status")) == ["a", "d", "b", "C"]


async def test_a_page_that_ends_exactly_at_the_last_row_has_no_next(store: Store) -> None:
    for name in ("a", "b"):
        await store.create_endpoint(an_endpoint(name), [])
    page = await store.list_endpoints(HERE, ListQuery(limit=2))
    assert len(page.items) == 2
    assert page.next is None


async def test_pages_stay_right_while_rows_come_and_go(store: Store) -> None:
    for number in range(6):
        await store.create_model(a_model(f"m{number}", created_at_s=float(number)), [])
    query = ListQuery(descending=False, limit=2)
    first = await store.list_models(HERE, query)
    assert [model.name for model in first.items] == ["m0", "m1"]
    await store.delete_model(HERE, "m1")  # the cursor's own row
    await store.create_model(a_model("early", created_at_s=0.5), [])
    await store.create_model(a_model("late", created_at_s=2.5), [])
    second = await store.list_models(HERE, replace(query, after=first.next))
    assert [model.name for model in second.items] == ["m2", "late"]


async def test_filters_of_times_are_from_inclusive_to_exclusive(store: Store) -> None:
    for number in range(4):
        await store.create_endpoint(an_endpoint(f"e{number}", created_at_s=float(number)), [])
    base = ListQuery(sort_by="Name", descending=False)
    assert await _names(store, replace(base, created_after_s=1.0, created_before_s=3.0)) == ["e1", "e2"]
    assert await _names(store, replace(base, modified_after_s=2.0)) == ["e2", "e3"]
    assert await _names(store, replace(base, modified_before_s=1.0)) == ["e0"]


async def test_name_contains_is_a_plain_case_sensitive_substring(store: Store) -> None:
    for name in ("a-b", "A-B", "axb", "a_b", "a%b"):
        await store.create_model(a_model(name) if name != "A-B" else a_model("A-Bx"), [])

    async def found(part: str) -> set[str]:
        page = await store.list_models(HERE, ListQuery(name_contains=part))
        return {model.name for model in page.items}

    assert await found("a-b") == {"a-b"}
    assert await found("A") == {"A-Bx"}
    assert await found("_") == {"a_b"}
    assert await found("%") == {"a%b"}
    assert await found("x") == {"A-Bx", "axb"}
    assert await found("zz") == set()


async def test_lists_show_one_scope_alone(store: Store) -> None:
    await store.create_endpoint_config(a_config("here"), [])
    await store.create_endpoint_config(a_config("there", scope=THERE), [])
    page = await store.list_endpoint_configs(HERE, ListQuery())
    assert [config.name for config in page.items] == ["here"]


endpoints_in_any_state = st.builds(
    replace,
    st.just(an_endpoint()),
    generation=st.integers(1, 3),
    observed_generation=st.integers(0, 3),
    change=st.sampled_from(Change),
    deleting=st.booleans(),
    active=st.sampled_from([None, ACTIVE]),
)


@given(states=st.lists(endpoints_in_any_state, min_size=1, max_size=8))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_status_in_sql_is_the_status_of_the_domain(
    make: Callable[[Path], Store], tmp_path_factory: pytest.TempPathFactory, states: list[Endpoint]
) -> None:
    async def check() -> None:
        store = make(tmp_path_factory.mktemp("store"))
        await store.start()
        try:
            expected: dict[EndpointStatus, set[str]] = {status: set() for status in EndpointStatus}
            for number, state in enumerate(states):
                endpoint = replace(state, name=ids.EndpointName(f"e{number}"))
                await store.create_endpoint(endpoint, [])
                expected[status_of(endpoint)].add(endpoint.name)
            for status, names in expected.items():
                page = await store.list_endpoints(HERE, ListQuery(status=status.value, limit=100))
                assert {endpoint.name for endpoint in page.items} == names
            page = await store.list_endpoints(HERE, ListQuery(sort_by="Status", descending=False, limit=100))
            shown = [status_of(endpoint).value for endpoint in page.items]
            assert shown == sorted(shown)
        finally:
            await store.aclose()

    asyncio.run(check())


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_walking_pages_shows_every_staying_row_once_whatever_changes_meanwhile(
    make: Callable[[Path], Store], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.text("aBc9", min_size=1, max_size=3), unique_by=str.lower, min_size=1, max_size=10))
    times = {name: float(data.draw(st.integers(0, 2))) for name in names}
    staying = {name for name in names if data.draw(st.booleans())}
    query = ListQuery(
        sort_by=data.draw(st.sampled_from(["Name", "CreationTime"])),
        descending=data.draw(st.booleans()),
        limit=data.draw(st.integers(1, 4)),
    )

    async def walk() -> list[str]:
        store = make(tmp_path_factory.mktemp("store"))
        await store.start()
        try:
            for name in names:
                await store.create_model(a_model(name, created_at_s=times[name]), [])
            leaving = [name for name in names if name not in staying]
            shown: list[str] = []
            after: Cursor | None = None
            for step in range(50):
                page = await store.list_models(HERE, replace(query, after=after))
                shown += [model.name for model in page.items]
                if page.next is None:
                    return shown
                after = page.next
                if leaving:
                    await store.delete_model(HERE, leaving.pop())
                await store.create_model(a_model(f"new{step}", created_at_s=1.0), [])
            return shown
        finally:
            await store.aclose()

    shown = asyncio.run(walk())
    assert len(shown) == len(set(shown))
    assert staying <= set(shown)


# instances
def an_instance(instance_id: str = "i-1") -> InstanceRecord:
    spec = InstanceSpec(
        instance_id=ids.InstanceId(instance_id),
        pool_id=ids.PoolId("d1.v"),
        scope=HERE,
        owner="endpoint/Ep",
        image="img",
        environment={"K": "v"},
        model_data_url=None,
        limits=Limits(vcpu=1.5, memory_bytes=1 << 30, notes=("limited",)),
        log_group="g",
        log_stream="v/i-1",
    )
    return InstanceRecord(spec=spec, phase=Phase.INTENT, created_at_s=1.0, labels={"l": "1"})


async def test_an_instance_goes_from_intent_to_gone(store: Store) -> None:
    record = an_instance()
    await store.put_instance_intent(record)
    assert await store.all_instances() == [record]
    with pytest.raises(AlreadyExists):
        await store.put_instance_intent(record)
    handle = Handle(
        instance_id=record.spec.instance_id,
        driver="process",
        directory="/d",
        address="unix:/d/s",
        resolved_image="img@0",
        shim_pid=5,
    )
    await store.set_instance(record.spec.instance_id, phase=Phase.STARTED, handle=handle)
    assert await store.all_instances() == [replace(record, phase=Phase.STARTED, handle=handle)]
    await store.remove_instance(record.spec.instance_id)
    await store.remove_instance(record.spec.instance_id)
    assert await store.all_instances() == []
    with pytest.raises(NotFound):
        await store.set_instance(record.spec.instance_id, phase=Phase.STOPPING, handle=None)


# tags
async def test_tags_are_overwritten_by_key_and_come_in_key_order(store: Store) -> None:
    arn = a_model().arn
    await store.create_model(a_model(), [Tag(key="b", value="1"), Tag(key="c", value="1")])
    assert await store.put_tags(arn, [Tag(key="a", value="2"), Tag(key="b", value="2")], limit=50) == {
        "a": "2",
        "b": "2",
        "c": "1",
    }
    found = await store.get_tags(arn)
    assert found is not None
    assert list(found.items()) == [("a", "2"), ("b", "2"), ("c", "1")]
    await store.remove_tags(arn, ["a", "absent"])
    assert await store.get_tags(arn) == {"b": "2", "c": "1"}


async def test_tags_over_the_limit_change_nothing(store: Store) -> None:
    arn = a_model().arn
    await store.create_model(a_model(), [Tag(key="a", value="1"), Tag(key="b", value="1")])
    with pytest.raises(Conflict):
        await store.put_tags(arn, [Tag(key="b", value="2"), Tag(key="c", value="2")], limit=2)
    assert await store.get_tags(arn) == {"a": "1", "b": "1"}
    await store.put_tags(arn, [Tag(key="b", value="3")], limit=2)
    assert await store.get_tags(arn) == {"a": "1", "b": "3"}


async def test_tags_of_what_is_not_there(store: Store) -> None:
    arn = a_model().arn
    assert await store.get_tags(arn) is None
    with pytest.raises(NotFound):
        await store.put_tags(arn, [], limit=50)
    with pytest.raises(NotFound):
        await store.remove_tags(arn, ["a"])


# durability and concurrency
async def test_everything_is_there_after_a_new_start(make: Callable[[Path], Store], tmp_path: Path) -> None:
    first = make(tmp_path)
    await first.start()
    await first.create_model(a_model(), [Tag(key="k", value="v")])
    await first.create_endpoint(an_endpoint(), [])
    await first.aclose()
    second = make(tmp_path)
    await second.start()
    try:
        assert await second.get_model(HERE, "demo") == a_model()
        assert await second.get_tags(a_model().arn) == {"k": "v"}
        assert await second.all_endpoints() == [an_endpoint()]
    finally:
        await second.aclose()


async def test_every_writer_reads_its_own_write_at_once(store: Store) -> None:
    async def write_and_read(number: int) -> None:
        await store.create_model(a_model(f"m{number}"), [])
        assert await store.get_model(HERE, f"m{number}") is not None

    await asyncio.gather(*(write_and_read(number) for number in range(64)))


async def test_a_failing_write_does_not_touch_its_neighbours_in_the_group(store: Store) -> None:
    async def write(number: int) -> bool:
        try:
            await store.create_model(a_model(f"m{number // 2}"), [Tag(key="n", value=str(number))])
        except AlreadyExists:
            return False
        return True

    done = await asyncio.gather(*(write(number) for number in range(40)))
    assert done.count(True) == 20
    for number, won in enumerate(done):
        tags = await store.get_tags(a_model(f"m{number // 2}").arn)
        assert (tags == {"n": str(number)}) == won


async def test_a_write_after_close_is_refused_and_close_is_idempotent(
    make: Callable[[Path], Store], tmp_path: Path
) -> None:
    store = make(tmp_path)
    await store.start()
    await store.aclose()
    await store.aclose()
    with pytest.raises(StoreError):
        await store.create_model(a_model(), [])
    with pytest.raises(StoreError):
        await store.get_model(HERE, "demo")


async def test_closing_finishes_the_writes_that_were_queued(make: Callable[[Path], Store], tmp_path: Path) -> None:
    store = make(tmp_path)
    await store.start()
    writes = [asyncio.ensure_future(store.create_model(a_model(f"m{n}"), [])) for n in range(30)]
    await asyncio.sleep(0)
    await store.aclose()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert results == [None] * 30
    again = make(tmp_path)
    await again.start()
    try:
        assert len((await again.list_models(HERE, ListQuery(limit=100))).items) == 30
    finally:
        await again.aclose()
