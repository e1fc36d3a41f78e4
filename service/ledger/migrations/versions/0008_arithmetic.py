"""On what trials were computed, and which arithmetic campaigns asked for: before this, always the fastest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("trials", sa.Column("executions", sa.JSON(), nullable=False, server_default="[]"))
    campaigns = sa.table("campaigns", sa.column("id", sa.String), sa.column("specification", sa.JSON))
    connection = op.get_bind()
    for campaign_id, specification in connection.execute(sa.select(campaigns.c.id, campaigns.c.specification)).all():
        stated = {**specification, "arithmetic": "fastest"}
        connection.execute(campaigns.update().where(campaigns.c.id == campaign_id).values(specification=stated))
