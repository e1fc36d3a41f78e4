"""Alembic's entry: runs the migrations on the connection that `spectune.service.ledger.engine` hands over."""

from __future__ import annotations

from alembic import context

from spectune.service.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
