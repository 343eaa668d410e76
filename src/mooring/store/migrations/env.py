"""Alembic runs this to upgrade the connection that store.schema hands over. DDL runs in that connection's transaction."""

from alembic import context

from mooring.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
