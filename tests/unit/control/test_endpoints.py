import asyncio

from tests.unit.control.world import ARN, CALLER, SCOPE, Refused, World, variant

from mooring.domain.endpoint import Change, EndpointKey
from mooring.domain.ids import EndpointName

NAMED = {"EndpointName": "Ep"}
BUSY = f'ValidationException: Cannot update in-progress endpoint "{ARN}endpoint/ep".'
ABSENT = f'ValidationException: Could not find endpoint "{ARN}endpoint/ep".'


async def test_an_endpoint_is_recorded_and_the_reconciler_woken(world: World) -> None:
    await world.model()
    await world.config()
    assert await world.endpoint() == {"EndpointArn": ARN + "endpoint/ep"}
    assert world.woken == [EndpointKey(scope=SCOPE, name=EndpointName("Ep"))]
    described = await world.endpoints.describe(CALLER, NAMED)
    assert described == {
        "EndpointName": "Ep",
        "EndpointArn": ARN + "endpoint/ep",
        "EndpointConfigName": "conf",
        "EndpointStatus": "Creating",
        "CreationTime": described["CreationTime"],
        "LastModifiedTime": described["CreationTime"],
        "PendingDeploymentSummary": {
            "EndpointConfigName": "conf",
            "StartTime": described["CreationTime"],
            "ProductionVariants": [
                {
                    "VariantName": "v",
                    "DesiredWeight": 1.0,
                    "DesiredInstanceCount": 1,
                    "InstanceType": "ml.m5.large",
                }
            ],
        },
    }


async def test_an_endpoint_in_service_shows_what_serves(world: World) -> None:
    await world.model()
    await world.config("conf", variant("a", InitialVariantWeight=3.0), variant("b", InitialInstanceCount=2))
    await world.endpoint()
    await world.conclude(image="img@sha256:1")
    described = await world.endpoints.describe(CALLER, NAMED)
    images = [{"SpecifiedImage": "img:1", "ResolvedImage": "img@sha256:1", "ResolutionTime": 7.0}]
    assert described["EndpointStatus"] == "InService"
    assert described["LastModifiedTime"] == 2_000_000.0
    assert described["ProductionVariants"] == [
        {
            "VariantName": "a",
            "DeployedImages": images,
            "CurrentWeight": 3.0,
            "DesiredWeight": 3.0,
            "CurrentInstanceCount": 1,
            "DesiredInstanceCount": 1,
        },
        {
            "VariantName": "b",
            "DeployedImages": images,
            "CurrentWeight": 1.0,
            "DesiredWeight": 1.0,
            "CurrentInstanceCount": 2,
            "DesiredInstanceCount": 2,
        },
    ]
    assert "PendingDeploymentSummary" not in described
    assert "FailureReason" not in described


async def test_config_and_models_must_exist(world: World, refused: Refused) -> None:
    words = f'ValidationException: Could not find endpoint configuration "{ARN}endpoint-config/conf".'
    assert await refused(world.endpoint()) == words
    await world.serving()
    await world.models.delete(CALLER, {"ModelName": "demo"})
    assert await refused(world.endpoint("other")) == f'ValidationException: Could not find model "{ARN}model/demo".'
    assert await refused(world.endpoints.update(CALLER, {**NAMED, "EndpointConfigName": "Absent"})) == words.replace(
        "/conf", "/absent"
    )


async def test_a_duplicate_is_refused_whatever_its_letter_case(world: World, refused: Refused) -> None:
    await world.serving()
    for name in ("Ep", "eP"):
        assert await refused(world.endpoint(name)) == (
            f'ValidationException: Cannot create already existing endpoint "{ARN}endpoint/ep".'
        )


async def test_a_deployment_is_a_snapshot_with_an_id_of_its_own(world: World) -> None:
    await world.serving()
    first = await world.read()
    await world.endpoints.update(CALLER, {**NAMED, "EndpointConfigName": "conf"})
    await world.models.delete(CALLER, {"ModelName": "demo"})
    await world.configs.delete(CALLER, {"EndpointConfigName": "conf"})
    second = await world.read()
    assert first.active is not None
    assert second.active == first.active
    assert (second.generation, second.change) == (2, Change.UPDATE)
    assert second.desired.id != first.desired.id
    assert second.desired.variants[0].model.containers[0].image == "img:1"


async def test_during_an_update_the_old_config_is_shown_and_the_new_one_pending(world: World) -> None:
    await world.serving()
    await world.config("New", variant("w"))
    assert await world.endpoints.update(CALLER, {**NAMED, "EndpointConfigName": "New"}) == {
        "EndpointArn": ARN + "endpoint/ep"
    }
    described = await world.endpoints.describe(CALLER, NAMED)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("Updating", "conf")
    assert [row["VariantName"] for row in described["ProductionVariants"]] == ["v"]
    assert described["PendingDeploymentSummary"]["EndpointConfigName"] == "New"
    await world.conclude()
    after = await world.endpoints.describe(CALLER, NAMED)
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", "New")


async def test_a_failed_update_leaves_the_old_config_and_its_reason_until_the_next_one(world: World) -> None:
    await world.serving()
    await world.config("bad")
    await world.endpoints.update(CALLER, {**NAMED, "EndpointConfigName": "bad"})
    await world.conclude(failure="x" * 2000)
    described = await world.endpoints.describe(CALLER, NAMED)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "conf")
    assert described["FailureReason"] == "x" * 1024
    await world.endpoints.update(CALLER, {**NAMED, "EndpointConfigName": "conf"})
    assert "FailureReason" not in await world.endpoints.describe(CALLER, NAMED)


async def test_weights_after_a_failed_update_change_what_serves(world: World) -> None:
    await world.serving()
    await world.config("bad", variant("w"))
    await world.endpoints.update(CALLER, {**NAMED, "EndpointConfigName": "bad"})
    await world.conclude(failure="no")
    wish = {"VariantName": "v", "DesiredWeight": 5.0}
    await world.endpoints.update_weights_and_capacities(CALLER, {**NAMED, "DesiredWeightsAndCapacities": [wish]})
    endpoint = await world.read()
    assert endpoint.desired.config_name == "conf"
    assert endpoint.desired.variants[0].desired_weight == 5.0


async def test_while_busy_every_change_but_deleting_during_creation_is_refused(world: World, refused: Refused) -> None:
    await world.model()
    await world.config()
    await world.endpoint()
    update = {**NAMED, "EndpointConfigName": "conf"}
    shift = {**NAMED, "DesiredWeightsAndCapacities": [{"VariantName": "v", "DesiredWeight": 2.0}]}
    for state in ("creating", "updating", "deleting"):
        assert await refused(world.endpoints.update(CALLER, update)) == BUSY, state
        assert await refused(world.endpoints.update_weights_and_capacities(CALLER, shift)) == BUSY, state
        if state == "creating":
            await world.conclude()
            await world.endpoints.update(CALLER, update)
        elif state == "updating":
            assert await refused(world.endpoints.delete(CALLER, NAMED)) == BUSY
            await world.conclude()
            await world.endpoints.delete(CALLER, NAMED)
        else:
            assert await refused(world.endpoints.delete(CALLER, NAMED)) == BUSY


async def test_an_endpoint_stuck_in_creating_can_be_deleted(world: World, refused: Refused) -> None:
    await world.model()
    await world.config()
    await world.endpoint()
    assert await world.endpoints.delete(CALLER, NAMED) == {}
    assert (await world.endpoints.describe(CALLER, NAMED))["EndpointStatus"] == "Deleting"
    assert len(world.woken) == 2
    await world.store.remove_endpoint(SCOPE, "Ep", generation=2)
    assert await refused(world.endpoints.describe(CALLER, NAMED)) == ABSENT


async def test_a_failed_endpoint_says_why_and_can_only_be_deleted(world: World, refused: Refused) -> None:
    await world.model()
    await world.config()
    await world.endpoint()
    await world.conclude(failure="it would not start")
    described = await world.endpoints.describe(CALLER, NAMED)
    assert (described["EndpointStatus"], described["FailureReason"]) == ("Failed", "it would not start")
    text = await refused(world.endpoints.update(CALLER, {**NAMED, "EndpointConfigName": "conf"}))
    assert "its status is Failed. It can only be deleted." in text
    await world.endpoints.delete(CALLER, NAMED)


async def test_an_endpoint_that_is_not_there(world: World, refused: Refused) -> None:
    shift = {**NAMED, "DesiredWeightsAndCapacities": [{"VariantName": "v"}]}
    for call in (
        world.endpoints.describe(CALLER, NAMED),
        world.endpoints.delete(CALLER, NAMED),
        world.endpoints.update(CALLER, {**NAMED, "EndpointConfigName": "conf"}),
        world.endpoints.update_weights_and_capacities(CALLER, shift),
    ):
        assert await refused(call) == ABSENT


async def test_weights_change_only_the_listed_variants_and_show_current_and_desired(world: World) -> None:
    await world.model()
    await world.config("conf", variant("a"), variant("b"))
    await world.endpoint()
    await world.conclude()
    before = await world.read()
    wish = {"VariantName": "b", "DesiredWeight": 4.0, "DesiredInstanceCount": 3}
    answer = await world.endpoints.update_weights_and_capacities(
        CALLER, {**NAMED, "DesiredWeightsAndCapacities": [wish]}
    )
    assert answer == {"EndpointArn": ARN + "endpoint/ep"}
    endpoint = await world.read()
    assert (endpoint.change, endpoint.desired.id) == (Change.WEIGHTS, before.desired.id)
    described = await world.endpoints.describe(CALLER, NAMED)
    assert described["EndpointStatus"] == "Updating"
    assert "PendingDeploymentSummary" not in described
    a, b = described["ProductionVariants"]
    assert (a["CurrentWeight"], a["DesiredWeight"], a["DesiredInstanceCount"]) == (1.0, 1.0, 1)
    assert (b["CurrentWeight"], b["DesiredWeight"]) == (1.0, 4.0)
    assert (b["CurrentInstanceCount"], b["DesiredInstanceCount"]) == (1, 3)
    await world.conclude()
    b = (await world.endpoints.describe(CALLER, NAMED))["ProductionVariants"][1]
    assert (b["CurrentWeight"], b["CurrentInstanceCount"]) == (4.0, 3)


async def test_weights_that_make_no_sense_are_refused(world: World, refused: Refused) -> None:
    await world.serving()

    async def text(*wishes: dict[str, object]) -> str:
        members = {**NAMED, "DesiredWeightsAndCapacities": list(wishes)}
        return await refused(world.endpoints.update_weights_and_capacities(CALLER, members))

    assert await text({"VariantName": "x"}, {"VariantName": "y"}) == (
        'ValidationException: The variant name(s) "x, y" is/are not present within endpoint configuration "conf".'
    )
    assert await text({"VariantName": "v"}, {"VariantName": "v"}) == (
        'ValidationException: The variant name "v" was non-unique within the request.'
    )
    assert "greater than 0" in await text({"VariantName": "v", "DesiredWeight": 0.0})
    assert "must be at least 1" in await text({"VariantName": "v", "DesiredInstanceCount": 0})
    assert (await world.read()).generation == 1


async def test_of_many_concurrent_updates_one_is_taken_and_the_others_hear_in_progress(world: World) -> None:
    await world.serving()
    members = {**NAMED, "EndpointConfigName": "conf"}
    outcomes = await asyncio.gather(
        *(world.endpoints.update(CALLER, members) for _ in range(12)), return_exceptions=True
    )
    refusals = [f"ValidationException: {outcome}" for outcome in outcomes if isinstance(outcome, Exception)]
    assert refusals == [BUSY] * 11
    assert (await world.read()).generation == 2


async def test_a_list_row_has_exactly_five_members_and_filters_by_status(world: World) -> None:
    await world.serving()
    await world.endpoint("second")
    rows = (await world.endpoints.list(CALLER, {"StatusEquals": "InService"}))["Endpoints"]
    assert [set(row) for row in rows] == [
        {"EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus"}
    ]
    assert rows[0]["EndpointName"] == "Ep"
    rows = (await world.endpoints.list(CALLER, {"SortBy": "Status", "SortOrder": "Ascending"}))["Endpoints"]
    assert [row["EndpointStatus"] for row in rows] == ["Creating", "InService"]
    assert (await world.endpoints.list(CALLER, {"StatusEquals": "OutOfService"}))["Endpoints"] == []
