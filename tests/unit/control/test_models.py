from tests.unit.control.world import ARN, CALLER, DATA, ROLE, SCOPE, Refused, World

from mooring.domain.listing import ListQuery


async def test_a_model_is_described_as_it_was_created_and_what_is_unset_is_left_out(world: World) -> None:
    answer = await world.model("Demo-1")
    assert answer == {"ModelArn": ARN + "model/demo-1"}
    described = await world.models.describe(CALLER, {"ModelName": "Demo-1"})
    assert described == {
        "ModelName": "Demo-1",
        "ModelArn": ARN + "model/demo-1",
        "PrimaryContainer": {"Image": "img:1", "ModelDataUrl": DATA, "Mode": "SingleModel"},
        "CreationTime": described["CreationTime"],
        "EnableNetworkIsolation": False,
    }


async def test_one_container_in_a_list_stays_a_list(world: World) -> None:
    container = {"Image": "i", "ContainerHostname": "h", "Environment": {"A": "b"}}
    request = {"ModelName": "m", "Containers": [container], "ExecutionRoleArn": ROLE}
    await world.models.create(CALLER, request)
    described = await world.models.describe(CALLER, {"ModelName": "m"})
    assert described["Containers"] == [{**container, "Mode": "SingleModel"}]
    assert described["ExecutionRoleArn"] == ROLE
    assert "PrimaryContainer" not in described


async def test_exactly_one_of_primary_container_and_containers(world: World, refused: Refused) -> None:
    one = {"Image": "i"}
    for members in ({}, {"PrimaryContainer": one, "Containers": [one]}, {"Containers": []}):
        text = await refused(world.models.create(CALLER, {"ModelName": "m", **members}))
        assert text.startswith("ValidationException: Exactly one of PrimaryContainer and Containers")


async def test_several_containers_are_refused_by_name(world: World, refused: Refused) -> None:
    request = {"ModelName": "m", "Containers": [{"Image": "a"}, {"Image": "b"}]}
    text = await refused(world.models.create(CALLER, request))
    assert "(member Containers): see docs/coverage.md" in text


async def test_a_container_needs_an_image(world: World, refused: Refused) -> None:
    text = await refused(world.models.create(CALLER, {"ModelName": "m", "PrimaryContainer": {}}))
    assert "PrimaryContainer.Image must be given" in text


async def test_an_environment_over_32_kib_is_refused(world: World, refused: Refused) -> None:
    environment = {f"K{n:02}": "v" * 1021 for n in range(33)}
    container = {"Image": "i", "Environment": environment}
    text = await refused(world.models.create(CALLER, {"ModelName": "m", "PrimaryContainer": container}))
    assert "33792 bytes" in text


async def test_a_duplicate_is_refused_in_the_services_words(world: World, refused: Refused) -> None:
    await world.model("Demo")
    for name in ("Demo", "demo"):
        assert await refused(world.model(name)) == (
            f'ValidationException: Cannot create already existing model "{ARN}model/demo".'
        )


async def test_model_data_must_be_there(world: World, refused: Refused) -> None:
    for uri in ("s3://bucket/absent.tar.gz", "https://host/model.tar.gz", "s3://bucket", "s3://bucket/"):
        container = {"Image": "i", "ModelDataUrl": uri}
        text = await refused(world.models.create(CALLER, {"ModelName": "m", "PrimaryContainer": container}))
        assert text == f"ValidationException: Could not find model data at {uri}."
    assert (await world.store.list_models(SCOPE, ListQuery())).items == ()


async def test_model_data_that_may_not_be_read_names_the_role(world: World, refused: Refused) -> None:
    world.objects[DATA] = "denied"
    text = await refused(world.model(ExecutionRoleArn=ROLE))
    assert text.startswith(
        f'ValidationException: Could not access model data at {DATA}. Please ensure that the role "{ROLE}" exists and'
    )


async def test_a_model_that_is_not_there(world: World, refused: Refused) -> None:
    words = f'ValidationException: Could not find model "{ARN}model/nobody".'
    assert await refused(world.models.describe(CALLER, {"ModelName": "Nobody"})) == words
    assert await refused(world.models.delete(CALLER, {"ModelName": "Nobody"})) == words


async def test_a_deleted_model_is_gone(world: World, refused: Refused) -> None:
    await world.model()
    assert await world.models.delete(CALLER, {"ModelName": "demo"}) == {}
    assert "Could not find model" in await refused(world.models.describe(CALLER, {"ModelName": "demo"}))


async def test_a_list_shows_name_arn_and_time_newest_first(world: World) -> None:
    await world.model("One")
    await world.model("two")
    answer = await world.models.list(CALLER, {})
    assert [row["ModelName"] for row in answer["Models"]] == ["two", "One"]
    assert set(answer["Models"][1]) == {"ModelName", "ModelArn", "CreationTime"}
    assert answer["Models"][1]["ModelArn"] == ARN + "model/one"
    assert "NextToken" not in answer
