"""Trials that users want to end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "stop_requests",
        sa.Column("campaign_id", sa.String(length=120), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_stop_requests_campaign_id_campaigns")),
        sa.PrimaryKeyConstraint("campaign_id", "trial", name=op.f("pk_stop_requests")),
    )
