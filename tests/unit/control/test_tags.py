from tests.unit.control.world import ARN, CALLER, Refused, World

MODEL = {"ResourceArn": ARN + "model/Demo"}  # original letter case is taken as well
NOT_THERE = "ValidationException: Resource does not exist."


def tag(key: str, value: str = "1") -> dict[str, str]:
    return {"Key": key, "Value": value}


async def test_tags_of_creation_are_listed_and_not_described(world: World) -> None:
    await world.model("Demo", Tags=[tag("b"), tag("a", "")])
    assert await world.tags.list(CALLER, MODEL) == {"Tags": [tag("a", ""), tag("b")]}
    assert "Tags" not in await world.models.describe(CALLER, {"ModelName": "Demo"})


async def test_adding_overwrites_and_answers_all(world: World) -> None:
    await world.model("Demo", Tags=[tag("a"), tag("b")])
    answer = await world.tags.add(CALLER, {**MODEL, "Tags": [tag("b", "2"), tag("c", "2")]})
    assert answer == {"Tags": [tag("a"), tag("b", "2"), tag("c", "2")]}
    assert await world.tags.delete(CALLER, {**MODEL, "TagKeys": ["a", "absent"]}) == {}
    assert await world.tags.list(CALLER, MODEL) == {"Tags": [tag("b", "2"), tag("c", "2")]}


async def test_reserved_and_repeated_keys_are_refused_and_nothing_is_made(world: World, refused: Refused) -> None:
    assert 'start with "aws:"' in await refused(world.model("Demo", Tags=[tag("AWS:x")]))
    assert "given 2 times" in await refused(world.model("Demo", Tags=[tag("k"), tag("k", "2")]))
    assert "Could not find model" in await refused(world.models.describe(CALLER, {"ModelName": "Demo"}))


async def test_a_resource_holds_fifty_tags(world: World, refused: Refused) -> None:
    await world.model("Demo", Tags=[tag(f"k{n:02}") for n in range(50)])
    assert "at most 50 tags" in await refused(world.tags.add(CALLER, {**MODEL, "Tags": [tag("one-more")]}))
    await world.tags.add(CALLER, {**MODEL, "Tags": [tag("k00", "new")]})


async def test_tags_are_paged(world: World, refused: Refused) -> None:
    await world.model("Demo", Tags=[tag(f"k{n:02}") for n in range(50)])
    first = await world.tags.list(CALLER, {**MODEL, "MaxResults": 30})
    assert len(first["Tags"]) == 30
    await world.tags.delete(CALLER, {**MODEL, "TagKeys": ["k29", "k30"]})
    second = await world.tags.list(CALLER, {**MODEL, "NextToken": first["NextToken"]})
    assert [row["Key"] for row in second["Tags"]] == [f"k{n}" for n in range(31, 50)]
    assert "NextToken" not in second
    await world.model("other")
    other = {"ResourceArn": ARN + "model/other", "NextToken": first["NextToken"]}
    assert "Invalid pagination token" in await refused(world.tags.list(CALLER, other))


async def test_what_does_not_exist_or_is_not_ours_has_no_tags(world: World, refused: Refused) -> None:
    await world.model("Demo")
    strangers = (
        ARN + "model/absent",
        ARN + "endpoint/demo",
        "arn:aws:sagemaker:us-east-1:999999999999:model/demo",
        "arn:aws:sagemaker:eu-west-1:123456789012:model/demo",
        "arn:aws:sagemaker:us-east-1",
    )
    for arn in strangers:
        assert await refused(world.tags.list(CALLER, {"ResourceArn": arn})) == NOT_THERE
        assert await refused(world.tags.add(CALLER, {"ResourceArn": arn, "Tags": [tag("k")]})) == NOT_THERE
        assert await refused(world.tags.delete(CALLER, {"ResourceArn": arn, "TagKeys": ["k"]})) == NOT_THERE
