"""The ledger's tables, in SQLAlchemy Core: the only truth about every campaign.

Everything that happens to a campaign takes the next number of its own `sequence`: an event (a row of `events`) or an
observation (a row of `observations`). Whoever follows a campaign (the projector, a page) keeps the last number it has
seen and asks for what came after. Times are milliseconds since the epoch.

Numbers that are not finite: SQLite stores NaN as NULL and PostgreSQL's JSON refuses it. Inside JSON they travel as the
strings "NaN", "Infinity", "-Infinity"; a column that is compared or sorted has a `..._kind` column beside it.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    }
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("id", String(120), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", String(60), nullable=False),
    Column("message", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("specification", JSON, nullable=False),
    Column("attempt", Integer, nullable=False),  # the fence: only this attempt may write
    Column("sequence", BigInteger, nullable=False),  # the last number given out
)

attempts = Table(
    "attempts",
    metadata,
    Column("campaign_id", String(120), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("started_at", BigInteger, nullable=False),
    Column("claimed_at", BigInteger),
    Column("heartbeat_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("exit_code", Integer),
    Column("spool_position", BigInteger, nullable=False),  # spool entries of this attempt that the ledger holds
    ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
)

trials = Table(
    "trials",
    metadata,
    Column("campaign_id", String(120), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("arm", Integer, nullable=False),
    Column("point", Integer, nullable=False),
    Column("seed_index", Integer, nullable=False),
    Column("config", JSON, nullable=False),
    Column("ask", JSON, nullable=False),  # how the search came to the point: what a rebuilt study needs
    Column("state", String(20), nullable=False),
    Column("reason", String(60), nullable=False),
    Column("message", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("num_losses", Integer, nullable=False),  # workers lost under it since its last new observation
    Column("last_step", Integer, nullable=False),
    Column("objective", Float),
    Column("objective_kind", String(10)),  # finite | nan | inf | -inf; NULL before the first observation
    Column("device_seconds", Float, nullable=False),
    Column("executions", JSON, nullable=False),  # on what it was computed, each once, in order
    ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
)
Index("ix_trials_campaign_id_state", trials.c.campaign_id, trials.c.state)

observations = Table(
    "observations",
    metadata,
    Column("campaign_id", String(120), primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("produced_at", BigInteger, nullable=False),
    Column("metrics", JSON, nullable=False),
    ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
)
Index("ix_observations_campaign_id_sequence", observations.c.campaign_id, observations.c.sequence, unique=True)

events = Table(
    "events",
    metadata,
    Column("campaign_id", String(120), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("trial", Integer),
    Column("body", JSON, nullable=False),
    ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
)

cursors = Table(
    "cursors",
    metadata,
    Column("tracker", String(60), primary_key=True),
    Column("campaign_id", String(120), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
)

dead_letters = Table(  # what a tracker will never take or, under the name of the spool, what the ledger will not
    "dead_letters",
    metadata,
    Column("tracker", String(60), primary_key=True),
    Column("campaign_id", String(120), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),  # SHA-256 of trial and content
    Column("trial", Integer),  # NULL of the campaign itself
    Column("content", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
)

stop_requests = Table(
    "stop_requests",
    metadata,
    Column("campaign_id", String(120), primary_key=True),
    Column("trial", Integer, primary_key=True, autoincrement=False),
    Column("asked_at", BigInteger, nullable=False),
    ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
)

# What the service needs beside a campaign's own history; a campaign without a submission belongs to `run` alone.

submissions = Table(
    "submissions",
    metadata,
    Column("campaign_id", String(120), primary_key=True),
    Column("owner", String(60), nullable=False),
    Column("priority", Integer, nullable=False),  # the greatest first
    Column("version", Integer, nullable=False),  # of what a user may change: the entity tag
    Column("num_failures", Integer, nullable=False),  # attempts lost since a user last set the campaign going
    Column("not_before", BigInteger, nullable=False),  # no attempt is launched before
    Column("queue_position", Integer),  # from 1; NULL where it does not wait for others
    Column("waiting_for", Text, nullable=False),  # a sentence for people
    ForeignKeyConstraint(["campaign_id"], ["campaigns.id"]),
)
Index("ix_submissions_owner", submissions.c.owner)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", String(60), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),  # SHA-256 of the request's body
    Column("campaign_id", String(120), nullable=False),  # kept when the campaign is deleted
    Column("created_at", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("owner", String(60), nullable=False),
    Column("role", String(20), nullable=False),
    Column("hash", String(64), nullable=False),  # SHA-256 of a 256-bit random secret
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(60), primary_key=True),
    Column("holder", String(120), nullable=False),
    Column("expires_at", BigInteger, nullable=False),  # by the database's clock
)
