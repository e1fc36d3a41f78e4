"""What a tracker will never take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("tracker", sa.String(length=60), nullable=False),
        sa.Column("campaign_id", sa.String(length=120), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_dead_letters_campaign_id_campaigns")),
        sa.PrimaryKeyConstraint("tracker", "campaign_id", "fingerprint", name=op.f("pk_dead_letters")),
    )
