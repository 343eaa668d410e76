import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import config, script
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from mooring.store import schema, tables
from mooring.store.base import StoreError
from mooring.store.sqlite import SqliteStore


async def _started(path: Path) -> None:
    store = SqliteStore(path)
    try:
        await store.start()
    finally:
        await store.aclose()


def _edit(path: Path, edit: Callable[[sqlite3.Connection], object]) -> None:
    connection = sqlite3.connect(path)
    with connection:
        edit(connection)
    connection.close()


def test_the_newest_revision_is_the_one_the_program_expects() -> None:
    alembic = config.Config()
    alembic.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    alembic.set_main_option("path_separator", "os")
    assert script.ScriptDirectory.from_config(alembic).get_current_head() == schema.HEAD


async def test_migrations_replayed_give_the_schema_of_the_tables(tmp_path: Path) -> None:
    await _started(tmp_path / "state.db")
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(tmp_path / "state.db")))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
        migrated = _shape(connection)
    engine.dispose()
    fresh = sa.create_engine("sqlite://")
    with fresh.connect() as connection:
        tables.metadata.create_all(connection)
        assert migrated == _shape(connection)
    fresh.dispose()


def _shape(connection: sa.Connection) -> dict[str, object]:
    """Everything about every table: columns, keys, indexes."""
    inspector = sa.inspect(connection)
    shape: dict[str, object] = {}
    for table in inspector.get_table_names():
        if table != "alembic_version":
            shape[table] = (
                [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)],
                inspector.get_pk_constraint(table),
                sorted(map(str, inspector.get_foreign_keys(table))),
                sorted(map(str, inspector.get_indexes(table))),
                sorted(map(str, inspector.get_unique_constraints(table))),
            )
    return shape


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await _started(path)
    _edit(path, lambda c: c.execute("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="schema version 9999, written by a newer version of Mooring") as caught:
        await _started(path)
    assert not caught.value.retryable
    _edit(path, lambda c: c.execute("UPDATE alembic_version SET version_num = '0001'"))
    await _started(path)


async def test_a_migration_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    # The third table of the first migration is in the way.
    _edit(path, lambda c: c.execute("CREATE TABLE models (x)"))
    with pytest.raises(StoreError):
        await _started(path)
    connection = sqlite3.connect(path)
    assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master")] == ["models"]
    connection.close()
    _edit(path, lambda c: c.execute("DROP TABLE models"))
    await _started(path)


async def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"hello" * 1000)
    with pytest.raises(StoreError, match="the file is not a database"):
        await _started(tmp_path / "state.db")


async def test_a_path_with_odd_characters_works(tmp_path: Path) -> None:
    directory = tmp_path / "100%(x)s ?é#"
    directory.mkdir()
    await _started(directory / "state.db")
    assert (directory / "state.db").exists()


async def test_only_the_owner_can_read_the_database(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.start()
    try:
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert (tmp_path / "state.db-wal").exists()
    finally:
        await store.aclose()
