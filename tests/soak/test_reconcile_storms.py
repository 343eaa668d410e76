"""Hundreds of random storms over the reconciler, in virtual time; a sample of them is in the unit tests."""

from pathlib import Path

import pytest
from tests.unit.reconcile.harness import run_virtual, scene
from tests.unit.reconcile.test_storm import live


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 500))
def test_after_any_of_many_storms_every_wish_is_true(tmp_path: Path, seed: int) -> None:
    async def play() -> None:
        async with scene(tmp_path) as on:
            await live(on, seed)

    run_virtual(play())
