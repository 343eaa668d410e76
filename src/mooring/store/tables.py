"""The schema, in SQLAlchemy Core, neutral between SQLite and PostgreSQL. Read by the statement modules and by Alembic.

A resource is one row in `resources` (its ARN, lower-case, what tags hang on) and one in its own table. What filters and
sort orders need is a column; the rest of a value is a JSON document written and read by `rows`.

Every change here needs a migration in `migrations/versions` and a new `schema.HEAD`; a test compares the two.
"""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

resources = sa.Table(
    "resources",
    metadata,
    sa.Column("arn", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("arn", sa.Text, sa.ForeignKey("resources.arn", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


def _resource_columns() -> tuple[sa.Column[str] | sa.Column[float], ...]:
    return (
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("region", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("arn", sa.Text, sa.ForeignKey("resources.arn"), nullable=False, unique=True),
        sa.Column("created_s", sa.Double, nullable=False),
    )


models = sa.Table("models", metadata, *_resource_columns(), sa.Column("document", sa.Text, nullable=False))
sa.Index(None, models.c.account, models.c.region, models.c.created_s, models.c.name)

endpoint_configs = sa.Table(
    "endpoint_configs", metadata, *_resource_columns(), sa.Column("document", sa.Text, nullable=False)
)
sa.Index(
    None,
    endpoint_configs.c.account,
    endpoint_configs.c.region,
    endpoint_configs.c.created_s,
    endpoint_configs.c.name,
)

endpoints = sa.Table(
    "endpoints",
    metadata,
    *_resource_columns(),
    sa.Column("modified_s", sa.Double, nullable=False),
    # desired
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("change", sa.Text, nullable=False),
    sa.Column("desired", sa.Text, nullable=False),
    sa.Column("deleting", sa.Boolean, nullable=False),
    # observed
    sa.Column("observed_generation", sa.BigInteger, nullable=False),
    sa.Column("active", sa.Text),
    sa.Column("failure_reason", sa.Text),
)
sa.Index(None, endpoints.c.account, endpoints.c.region, endpoints.c.created_s, endpoints.c.name)

instances = sa.Table(
    "instances",
    metadata,
    sa.Column("instance_id", sa.Text, primary_key=True),
    sa.Column("pool_id", sa.Text, nullable=False, index=True),
    sa.Column("created_s", sa.Double, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("handle", sa.Text),
    sa.Column("labels", sa.Text, nullable=False),
)
