from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
from tests.unit.control.world import Refused, World

from mooring.domain.errors import ServiceError
from mooring.store.sqlite import SqliteStore


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = SqliteStore(tmp_path / "state.db")
    await store.start()
    yield World(store)
    await store.aclose()


@pytest.fixture
def refused() -> Refused:
    """Await a call that must fail; gives `Code: message`."""

    async def caught(call: Awaitable[object]) -> str:
        with pytest.raises(ServiceError) as error:
            await call
        return f"{error.value.code}: {error.value}"

    return caught
