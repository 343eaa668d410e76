"""Alembic's environment and revisions; run by store.schema."""
