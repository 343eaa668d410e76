import math

from tests.unit.control.world import ARN, CALLER, Refused, World, variant


async def test_a_config_is_described_as_it_was_created(world: World) -> None:
    await world.model()
    answer = await world.config(
        "Conf",
        variant("a", InitialVariantWeight=0.25, ContainerStartupHealthCheckTimeoutInSeconds=61),
        variant("b", ModelDataDownloadTimeoutInSeconds=62, InitialInstanceCount=2),
    )
    assert answer == {"EndpointConfigArn": ARN + "endpoint-config/conf"}
    described = await world.configs.describe(CALLER, {"EndpointConfigName": "Conf"})
    assert described == {
        "EndpointConfigName": "Conf",
        "EndpointConfigArn": ARN + "endpoint-config/conf",
        "CreationTime": described["CreationTime"],
        "ProductionVariants": [
            variant("a", InitialVariantWeight=0.25, ContainerStartupHealthCheckTimeoutInSeconds=61),
            variant("b", InitialVariantWeight=1.0, ModelDataDownloadTimeoutInSeconds=62, InitialInstanceCount=2),
        ],
    }


async def test_its_models_must_exist(world: World, refused: Refused) -> None:
    assert await refused(world.config()) == f'ValidationException: Could not find model "{ARN}model/demo".'


async def test_a_duplicate_is_refused_in_the_services_words(world: World, refused: Refused) -> None:
    await world.model()
    await world.config("Conf")
    assert await refused(world.config("conf")) == (
        f'ValidationException: Cannot create already existing endpoint configuration "{ARN}endpoint-config/conf".'
    )


async def test_variant_names_are_unique(world: World, refused: Refused) -> None:
    await world.model()
    text = await refused(world.config("c", variant("a"), variant("b"), variant("a")))
    assert text == 'ValidationException: The variant name "a" was non-unique within the request.'


async def test_weights_are_finite_and_not_all_zero(world: World, refused: Refused) -> None:
    await world.model()
    for weight in (math.nan, math.inf, -1.0):
        text = await refused(world.config("c", variant(InitialVariantWeight=weight)))
        assert 'weight of variant "v" must be a finite number' in text
    text = await refused(
        world.config("c", variant("a", InitialVariantWeight=0.0), variant("b", InitialVariantWeight=0))
    )
    assert "At least one production variant must have a weight greater than 0" in text
    await world.config("c", variant("a", InitialVariantWeight=0.0), variant("b"))


async def test_an_instance_type_that_the_table_does_not_have_is_refused(world: World, refused: Refused) -> None:
    await world.model()
    text = await refused(world.config("c", variant(InstanceType="ml.p4d.24xlarge")))
    assert 'The instance type "ml.p4d.24xlarge" of variant "v" is not in the instance type table' in text


async def test_model_type_and_count_must_be_given(world: World, refused: Refused) -> None:
    await world.model()
    for member in ("ModelName", "InstanceType", "InitialInstanceCount"):
        incomplete = {name: value for name, value in variant().items() if name != member}
        text = await refused(world.config("c", incomplete))
        assert text.startswith(f'ValidationException: {member} must be given for the production variant "v"')


async def test_a_config_that_is_not_there(world: World, refused: Refused) -> None:
    words = f'ValidationException: Could not find endpoint configuration "{ARN}endpoint-config/nobody".'
    assert await refused(world.configs.describe(CALLER, {"EndpointConfigName": "Nobody"})) == words
    assert await refused(world.configs.delete(CALLER, {"EndpointConfigName": "Nobody"})) == words


async def test_deleting_a_config_does_not_check_its_use(world: World) -> None:
    await world.serving()
    assert await world.configs.delete(CALLER, {"EndpointConfigName": "conf"}) == {}
    assert (await world.configs.list(CALLER, {}))["EndpointConfigs"] == []
