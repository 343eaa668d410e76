import base64
import datetime
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.control.world import CALLER, Refused, World

from mooring.control.tokens import Tokens
from mooring.domain.call import Params
from mooring.domain.errors import ValidationException
from mooring.domain.ids import Scope
from mooring.domain.listing import Cursor

QUERY = {"a": 1, "b": "x"}
cursors = st.builds(
    Cursor, value=st.one_of(st.text(), st.floats(allow_nan=False, allow_infinity=False)), name=st.text()
)


@given(cursor=cursors)
def test_a_token_gives_back_its_cursor_exactly(cursor: Cursor) -> None:
    tokens = Tokens(b"k" * 32)
    assert tokens.read(QUERY, tokens.write(QUERY, cursor)) == cursor


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_token_with_any_byte_changed_is_refused(position: int, flip: int) -> None:
    tokens = Tokens(b"k" * 32)
    raw = bytearray(base64.urlsafe_b64decode(tokens.write(QUERY, Cursor(value=1.5, name="n"))))
    raw[position % len(raw)] ^= flip
    with pytest.raises(ValidationException, match="Invalid pagination token"):
        tokens.read(QUERY, base64.urlsafe_b64encode(bytes(raw)).decode())


@given(text=st.text(max_size=60))
def test_made_up_tokens_are_refused_in_words(text: str) -> None:
    with pytest.raises(ValidationException, match="Invalid pagination token"):
        Tokens(b"k" * 32).read(QUERY, text)


def test_a_token_belongs_to_its_query_and_its_server() -> None:
    token = Tokens(b"k" * 32).write(QUERY, Cursor(value="v", name="n"))
    for other in ({"a": 1}, {"a": 2, "b": "x"}, {**QUERY, "c": 1}):
        with pytest.raises(ValidationException):
            Tokens(b"k" * 32).read(other, token)
    with pytest.raises(ValidationException):
        Tokens(b"K" * 32).read(QUERY, token)
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Tokens(b"short")


async def _walk(world: World, members: Params) -> list[str]:
    found: list[str] = []
    for _ in range(50):
        answer = await world.models.list(CALLER, members)
        found += [row["ModelName"] for row in answer["Models"]]
        if "NextToken" not in answer:
            return found
        members = {**members, "NextToken": answer["NextToken"]}
    raise AssertionError("the pages do not end")


async def test_pages_are_ten_rows_and_may_change_their_size(world: World) -> None:
    for number in range(25):
        await world.model(f"m{number:02}")
    newest_first = [f"m{number:02}" for number in reversed(range(25))]
    first = await world.models.list(CALLER, {})
    assert len(first["Models"]) == 10
    rest = await world.models.list(CALLER, {"NextToken": first["NextToken"], "MaxResults": 100})
    assert [row["ModelName"] for row in first["Models"] + rest["Models"]] == newest_first
    assert await _walk(world, {"MaxResults": 3}) == newest_first
    assert await _walk(world, {"MaxResults": 4, "SortOrder": "Ascending", "SortBy": "Name"}) == newest_first[::-1]
    assert await _walk(world, {"MaxResults": 1, "NameContains": "m1"}) == [f"m1{n}" for n in reversed(range(10))]


async def test_times_are_filters_and_may_be_datetimes(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.model(name)
    b = (await world.models.describe(CALLER, {"ModelName": "b"}))["CreationTime"]
    after = datetime.datetime.fromtimestamp(b, datetime.UTC)
    assert await _walk(world, {"CreationTimeAfter": after}) == ["c", "b"]
    assert await _walk(world, {"CreationTimeBefore": b}) == ["a"]


async def test_a_token_of_other_filters_another_list_or_another_caller_is_refused(
    world: World, refused: Refused
) -> None:
    for name in ("a1", "a2"):
        await world.model(name)
    token = (await world.models.list(CALLER, {"MaxResults": 1, "NameContains": "a"}))["NextToken"]
    again = {"NextToken": token, "NameContains": "a"}
    stranger = replace(CALLER, scope=Scope(account="999999999999", region="us-east-1"))
    assert [row["ModelName"] for row in (await world.models.list(CALLER, again))["Models"]] == ["a1"]
    for call in (
        world.models.list(CALLER, {"NextToken": token}),
        world.models.list(CALLER, {**again, "SortOrder": "Ascending"}),
        world.models.list(stranger, again),
        world.configs.list(CALLER, again),
    ):
        assert "Invalid pagination token" in await refused(call)
