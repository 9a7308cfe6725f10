"""The tables; docs/sql.md describes them for users. The views are in the migrations."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Instant = sa.DateTime(timezone=True)
NOW = sa.func.now()


def _one_of(column: str, *values: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def _token_columns() -> list[sa.Column[int]]:
    """Disjoint buckets; `reasoning_tokens` is a part of `output_tokens`. NULL: the provider did not say."""
    names = ["input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"]
    return [sa.Column(name, sa.Integer) for name in names]


batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("name", sa.Text, unique=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("source", sa.Text, nullable=False, comment="the files it was read from"),
    sa.Column("input_digest", sa.Text, comment="SHA-256 of the input and the options that change its meaning"),
    sa.Column("prompt_count", sa.BigInteger, nullable=False),
    sa.Column("rejected_count", sa.BigInteger, nullable=False, comment="lines that could not be taken"),
    sa.Column("frontier", sa.Text, nullable=False, comment="provider/model that savings are measured against"),
    sa.Column("providers", pg.ARRAY(sa.Text), nullable=False, comment="where its prompts may go"),
    sa.Column("created_at", Instant, nullable=False, server_default=NOW),
    sa.Column("finished_at", Instant),
    _one_of("state", "running", "paused", "cancelled", "completed"),
    sa.Index("ix_batches_input_digest", "input_digest"),
)

prompts = sa.Table(
    "prompts",
    metadata,
    sa.Column("batch_id", sa.BigInteger, sa.ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    sa.Column(
        "prompt_no",
        sa.Integer,
        primary_key=True,
        autoincrement=False,
        comment="number of its line in the input, from 1, counted on over all files",
    ),
    sa.Column("custom_id", sa.Text, nullable=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("category_source", sa.Text, nullable=False),
    sa.Column("confidence", sa.REAL, comment="of the classifier, 0 to 1; NULL when the category was given"),
    sa.Column("pinned", sa.Text, comment="provider/model that the line asks for; it never falls back"),
    sa.Column("body", pg.JSON, nullable=False, comment="OpenAI chat request without the model"),
    sa.Column("metadata", pg.JSON, comment="fields of the line that are not part of the request"),
    sa.UniqueConstraint("batch_id", "custom_id"),
    _one_of("category_source", "given", "classified", "default"),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("hostname", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("calls_in_flight", sa.Integer, nullable=False, server_default="0"),
    sa.Column("started_at", Instant, nullable=False, server_default=NOW),
    sa.Column("heartbeat_at", Instant, nullable=False, server_default=NOW),
    sa.Column("stopped_at", Instant),
    sa.Index("ix_workers_live", "provider", postgresql_where=sa.text("stopped_at IS NULL")),
)

shards = sa.Table(
    "shards",
    metadata,
    sa.Column("id", pg.UUID(as_uuid=True), primary_key=True),
    sa.Column("batch_id", sa.BigInteger, sa.ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("pinned", sa.Text),
    sa.Column("route", sa.Text, comment="provider/model to call; on a category's queue set by the claim"),
    sa.Column("prompt_nos", pg.ARRAY(sa.Integer), nullable=False, comment="what is still to do"),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column(
        "attempt_no", sa.SmallInteger, nullable=False, comment="of the next call at this provider, from 1"
    ),
    sa.Column("attempts_before", sa.SmallInteger, nullable=False, comment="calls made for its prompts so far"),
    sa.Column("tried", pg.ARRAY(sa.Text), nullable=False, comment="routes given up, provider/model"),
    sa.Column("reason", sa.Text, comment="why it is here: the error class that moved it"),
    sa.Column("fence", sa.Integer, nullable=False, server_default="0", comment="counts the claims"),
    sa.Column("worker_id", sa.BigInteger, sa.ForeignKey("workers.id")),
    sa.Column("lease_until", Instant),
    sa.Column("not_before", Instant),
    sa.Column("published_at", Instant),
    sa.Column("created_at", Instant, nullable=False, server_default=NOW),
    sa.Column("finished_at", Instant),
    _one_of("state", "queued", "waiting", "running", "done", "cancelled"),
    sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
    sa.CheckConstraint("(state = 'running') = (worker_id IS NOT NULL)", name="worker"),
    sa.CheckConstraint("state <> 'waiting' OR not_before IS NOT NULL", name="waiting"),
    sa.CheckConstraint("state <> 'done' OR cardinality(prompt_nos) = 0", name="done"),
    sa.Index(
        "ix_shards_open",
        "batch_id",
        "state",
        "queue",
        postgresql_where=sa.text("state IN ('queued', 'waiting', 'running')"),
    ),
    sa.Index("ix_shards_waiting", "not_before", postgresql_where=sa.text("state = 'waiting'")),
    sa.Index("ix_shards_running", "lease_until", postgresql_where=sa.text("state = 'running'")),
    sa.Index("ix_shards_queued", "queue", "published_at", postgresql_where=sa.text("state = 'queued'")),
)

prices = sa.Table(
    "prices",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column(
        "above_input_tokens",
        sa.Integer,
        nullable=False,
        comment="the row prices calls with more input than this, cached input included",
    ),
    sa.Column("input_usd_per_mtok", sa.Numeric, nullable=False),
    sa.Column("cache_read_usd_per_mtok", sa.Numeric, nullable=False),
    sa.Column("cache_write_usd_per_mtok", sa.Numeric, nullable=False),
    sa.Column("output_usd_per_mtok", sa.Numeric, nullable=False),
    sa.Column("source", sa.Text, nullable=False, comment="genai-prices with its version, or registry"),
    sa.Column("checked_on", sa.Date, nullable=False, comment="when it was taken from its source"),
    sa.Column("valid_from", Instant, nullable=False, server_default=NOW),
    sa.Column("valid_to", Instant),
    sa.UniqueConstraint("provider", "model", "above_input_tokens", "valid_from"),
    sa.Index(
        "ix_prices_current",
        "provider",
        "model",
        "above_input_tokens",
        unique=True,
        postgresql_where=sa.text("valid_to IS NULL"),
    ),
)

provider_stops = sa.Table(
    "provider_stops",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("simulated", sa.Boolean, primary_key=True),
    sa.Column("error_class", sa.Text, nullable=False),
    sa.Column("error_message", sa.Text, nullable=False),
    sa.Column("stopped_at", Instant, nullable=False, server_default=NOW),
    _one_of("error_class", "auth", "quota"),
)

results = sa.Table(
    "results",
    metadata,
    sa.Column("batch_id", sa.BigInteger, primary_key=True),
    sa.Column("prompt_no", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("provider", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("provider_simulated", sa.Boolean, nullable=False),
    sa.Column("fallbacks", sa.SmallInteger, nullable=False, comment="how many providers gave up before"),
    sa.Column("attempts", sa.SmallInteger, nullable=False, comment="calls made for the prompt"),
    sa.Column("finish_reason", sa.Text),
    sa.Column("content", sa.Text, comment="the text of the answer"),
    sa.Column("dialect", sa.Text, comment="of the provider, and so of `response`"),
    sa.Column("response", pg.JSON, comment="the provider's own body"),
    sa.Column("http_status", sa.SmallInteger),
    sa.Column("error_class", sa.Text),
    sa.Column("error_message", sa.Text),
    *_token_columns(),
    sa.Column("cost_usd", sa.Numeric, comment="of the call that answered; NULL: price or usage unknown"),
    sa.Column("baseline_cost_usd", sa.Numeric, comment="of the same tokens at the frontier model"),
    sa.Column("latency_ms", sa.Integer, comment="of the call that answered"),
    sa.Column("started_at", Instant),
    sa.Column("finished_at", Instant, nullable=False),
    sa.ForeignKeyConstraint(
        ["batch_id", "prompt_no"], ["prompts.batch_id", "prompts.prompt_no"], ondelete="CASCADE"
    ),
    _one_of("state", "succeeded", "failed", "cancelled"),
    sa.CheckConstraint("(state = 'succeeded') = (error_class IS NULL)", name="error"),
    sa.CheckConstraint("state <> 'succeeded' OR provider IS NOT NULL", name="provider"),
    # small, for it leaves out what is nearly everything: the answers
    sa.Index("ix_results_unsuccessful", "batch_id", "state", postgresql_where=sa.text("state <> 'succeeded'")),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("batch_id", sa.BigInteger, primary_key=True),
    sa.Column("prompt_no", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("shard_id", pg.UUID(as_uuid=True), primary_key=True),
    sa.Column(
        "fence", sa.Integer, primary_key=True, autoincrement=False, comment="the claim it was made under"
    ),
    sa.Column("worker_id", sa.BigInteger),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("provider_simulated", sa.Boolean, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False, comment="unknown: the worker died in the call"),
    sa.Column("error_class", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("http_status", sa.SmallInteger),
    *_token_columns(),
    sa.Column("cost_usd", sa.Numeric, comment="NULL: price or usage unknown"),
    sa.Column("price_id", sa.BigInteger, sa.ForeignKey("prices.id")),
    sa.Column("latency_ms", sa.Integer),
    sa.Column("started_at", Instant),
    sa.Column("finished_at", Instant, nullable=False),
    sa.ForeignKeyConstraint(
        ["batch_id", "prompt_no"], ["prompts.batch_id", "prompts.prompt_no"], ondelete="CASCADE"
    ),
    _one_of("outcome", "succeeded", "failed", "unknown"),
    sa.CheckConstraint("(outcome = 'succeeded') = (error_class IS NULL)", name="error"),
    # rows arrive in the order of time: a block range index finds the last hour and costs the writer nothing
    sa.Index("ix_attempts_finished_at", "finished_at", postgresql_using="brin"),
)
