"""The first schema: models, endpoint configs, endpoints, instances, tags."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _resource_columns(table: str) -> tuple[sa.schema.SchemaItem, ...]:
    return (
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("region", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("arn", sa.Text, nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("account", "region", "name", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["arn"], ["resources.arn"], name=f"fk_{table}_arn_resources"),
        sa.UniqueConstraint("arn", name=f"uq_{table}_arn"),
    )


def _index_by_creation(table: str) -> None:
    columns = ["account", "region", "created_s", "name"]
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)


def upgrade() -> None:
    op.create_table(
        "resources",
        sa.Column("arn", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("arn", name="pk_resources"),
    )
    op.create_table(
        "tags",
        sa.Column("arn", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("arn", "key", name="pk_tags"),
        sa.ForeignKeyConstraint(["arn"], ["resources.arn"], name="fk_tags_arn_resources", ondelete="CASCADE"),
    )
    for table in ("models", "endpoint_configs"):
        op.create_table(table, *_resource_columns(table), sa.Column("document", sa.Text, nullable=False))
        _index_by_creation(table)
    op.create_table(
        "endpoints",
        *_resource_columns("endpoints"),
        sa.Column("modified_s", sa.Double, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("change", sa.Text, nullable=False),
        sa.Column("desired", sa.Text, nullable=False),
        sa.Column("deleting", sa.Boolean, nullable=False),
        sa.Column("observed_generation", sa.BigInteger, nullable=False),
        sa.Column("active", sa.Text),
        sa.Column("failure_reason", sa.Text),
    )
    _index_by_creation("endpoints")
    op.create_table(
        "instances",
        sa.Column("instance_id", sa.Text, nullable=False),
        sa.Column("pool_id", sa.Text, nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("handle", sa.Text),
        sa.Column("labels", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("instance_id", name="pk_instances"),
    )
    op.create_index("ix_instances_pool_id", "instances", ["pool_id"])
