from collections.abc import Iterator

import pytest
from tests.unit.control.world import CALLER, Refused, World

from mooring.control import dispatch
from mooring.control.members import SUPPORTED, VALUES
from mooring.domain.call import Params
from mooring.protocol import model
from mooring.protocol.model import Shape


def paths_of(shape: Shape, prefix: str = "", depth: int = 6) -> Iterator[str]:
    """Every member path of a request, in the form of the members table."""
    for name, member in shape.members.items() if depth else ():
        path, inner = prefix + name, member.shape
        yield path
        if inner.kind == "list":
            inner = inner.inner().shape
            path += "[]"
        yield from paths_of(inner, path + ".", depth - 1)


@pytest.mark.parametrize("operation", sorted(SUPPORTED))
def test_the_table_names_members_that_aws_has_and_every_required_one(operation: str) -> None:
    shape = model.load("sagemaker").operation(operation).input
    assert set(paths_of(shape)) >= SUPPORTED[operation]
    assert {name for name, member in shape.members.items() if member.required} <= SUPPORTED[operation]
    assert SUPPORTED[operation] >= set(VALUES.get(operation, {}))


async def test_a_member_that_is_not_in_the_table_never_reaches_the_handler(world: World, refused: Refused) -> None:
    handlers = dispatch.handlers(world.context)
    base: Params = {"ModelName": "m", "PrimaryContainer": {"Image": "i"}}
    shape = model.load("sagemaker").operation("CreateModel").input
    for name in shape.members.keys() - SUPPORTED["CreateModel"]:
        text = await refused(handlers["CreateModel"](CALLER, {**base, name: {}}))
        assert f"'{name}' of CreateModel is not supported" in text
    inside = {**base, "PrimaryContainer": {"Image": "i", "ModelPackageName": "p", "ImageConfig": {}}}
    text = await refused(handlers["CreateModel"](CALLER, inside))
    assert "'PrimaryContainer.ModelPackageName', 'PrimaryContainer.ImageConfig'" in text
    assert (await world.models.list(CALLER, {}))["Models"] == []


async def test_a_value_that_is_not_taken_is_refused_in_every_container(world: World, refused: Refused) -> None:
    create = dispatch.handlers(world.context)["CreateModel"]
    text = await refused(create(CALLER, {"ModelName": "m", "Containers": [{"Image": "i", "Mode": "MultiModel"}]}))
    assert "The value 'MultiModel' of member 'Containers.Mode' of CreateModel is not supported" in text
    assert "docs/coverage.md#createmodel" in text


def test_a_host_name_in_containers_is_refused_until_something_can_use_it() -> None:
    assert "PrimaryContainer.ContainerHostname" in SUPPORTED["CreateModel"]
    assert "Containers[].ContainerHostname" not in SUPPORTED["CreateModel"]
