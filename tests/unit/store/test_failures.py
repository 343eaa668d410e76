import asyncio
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from mooring.domain import ids
from mooring.domain.listing import ListQuery
from mooring.domain.model import Container, Model
from mooring.store import failures
from mooring.store.base import StoreError
from mooring.store.sqlite import SqliteStore

SCOPE = ids.Scope(account="000000000000", region="us-east-1")


def _model(name: str, size: int = 10) -> Model:
    container = Container(image="i", environment={"A": "x" * size})
    return Model(scope=SCOPE, name=ids.ModelName(name), created_at_s=1.0, containers=(container,))


@pytest.mark.parametrize(
    ("code", "words", "retryable"),
    [
        (sqlite3.SQLITE_BUSY, "locked", True),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "locked", True),
        (sqlite3.SQLITE_FULL, "no space", True),
        (sqlite3.SQLITE_IOERR_FSYNC, "disk", True),
        (sqlite3.SQLITE_NOMEM, "memory", True),
        (sqlite3.SQLITE_READONLY_DBMOVED, "read-only", False),
        (sqlite3.SQLITE_CORRUPT, "damaged", False),
        (sqlite3.SQLITE_CANTOPEN, "opened", False),
        (sqlite3.SQLITE_NOTADB, "not a database", False),
        (sqlite3.SQLITE_ERROR, "OperationalError", False),
    ],
)
def test_a_result_code_of_sqlite_becomes_words_and_an_advice(code: int, words: str, retryable: bool) -> None:
    cause = sqlite3.OperationalError("secret details")
    cause.sqlite_errorcode = code
    error = failures.translate(sa.exc.OperationalError("INSERT", {"secret": "s3cret"}, cause))
    assert words in str(error)
    assert error.retryable is retryable
    assert "s3cret" not in str(error)


async def test_a_full_disk_fails_the_write_in_words_loses_nothing_and_heals(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.start()
    try:
        await store.create_model(_model("kept"), [])
        pages = await store._write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
        await store._write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}").scalar_one())
        with pytest.raises(StoreError, match="no space is left") as caught:
            await store.create_model(_model("big", 1 << 20), [])
        assert caught.value.retryable
        assert await store.get_model(SCOPE, "kept") is not None
        assert await store.get_model(SCOPE, "big") is None
        await store._write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1000000").scalar_one())
        await store.create_model(_model("big", 1 << 20), [])
        assert await store.get_model(SCOPE, "big") is not None
    finally:
        await store.aclose()


async def test_a_group_that_is_not_committed_fails_for_every_writer_in_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.start()
    try:
        pages = await store._write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
        await store._write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}").scalar_one())
        outcomes = await asyncio.gather(
            *(store.create_model(_model(f"m{n}", 1 << 18 if n == 7 else 10), []) for n in range(20)),
            return_exceptions=True,
        )
        stored = {model.name for model in (await store.list_models(SCOPE, ListQuery(limit=100))).items}
        # Acknowledged and stored are the same set, whatever shared a transaction with the one that was too big.
        assert stored == {f"m{n}" for n, outcome in enumerate(outcomes) if outcome is None}
        assert "m7" not in stored
        assert all(outcome is None or isinstance(outcome, StoreError) for outcome in outcomes)
    finally:
        await store.aclose()


async def test_a_directory_that_is_missing_is_said_in_words(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "absent" / "state.db")
    with pytest.raises(StoreError, match="cannot be opened: No such file or directory"):
        await store.start()
    await store.aclose()


async def test_a_cancelled_caller_does_not_stop_the_writer(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.start()
    try:
        write = asyncio.ensure_future(store.create_model(_model("left"), []))
        await asyncio.sleep(0)
        write.cancel()
        await store.create_model(_model("after"), [])
        assert await store.get_model(SCOPE, "after") is not None
    finally:
        await store.aclose()
