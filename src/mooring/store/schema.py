"""The schema version of a database: older ones are migrated at start, newer ones refused. Called by the engines."""

from pathlib import Path

import sqlalchemy as sa

from mooring.store.base import StoreError

HEAD = "0001"  # the newest revision in migrations/versions; a test compares
_DIRECTORY = Path(__file__).parent / "migrations"


def current(connection: sa.Connection) -> str | None:
    """The database's revision; None for an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def upgrade(connection: sa.Connection, *, target: str = HEAD) -> None:
    """Bring the database to `target`, all in the connection's transaction. Raises StoreError when it is newer."""
    found = current(connection)
    if found == target:
        return  # the usual start: Alembic is not even imported
    from alembic import command, config, script

    alembic = config.Config()
    alembic.set_main_option("script_location", str(_DIRECTORY).replace("%", "%%"))
    alembic.set_main_option("path_separator", "os")
    known = {revision.revision for revision in script.ScriptDirectory.from_config(alembic).walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(
            f"the data directory has schema version {found}, written by a newer version of Mooring; "
            f"this one knows versions up to {HEAD}",
            retryable=False,
        )
    alembic.attributes["connection"] = connection
    command.upgrade(alembic, target)
