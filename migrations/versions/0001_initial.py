"""The first tables and views."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

#: In the order of their needs: a view may read those before it. Each is a file in migrations/views/0001.
VIEWS = [
    "batch_progress",
    "spend",
    "spend_by_provider",
    "spend_by_category",
    "spend_by_day",
    "savings_by_category",
    "savings",
    "waste",
    "provider_health",
]


def upgrade() -> None:
    create_batches()
    create_prompts()
    create_workers()
    create_shards()
    create_prices()
    create_provider_stops()
    create_results()
    create_attempts()
    folder = Path(__file__).parents[1] / "views" / revision
    for name in VIEWS:
        op.execute((folder / f"{name}.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    for name in reversed(VIEWS):
        op.execute(f"DROP VIEW {name}")
    for name in ["attempts", "results", "provider_stops", "prices", "shards", "workers", "prompts", "batches"]:
        op.drop_table(name)


def create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("source", sa.Text, nullable=False, comment="the files it was read from"),
        sa.Column(
            "input_digest", sa.Text, comment="SHA-256 of the input and the options that change its meaning"
        ),
        sa.Column("prompt_count", sa.BigInteger, nullable=False),
        sa.Column("rejected_count", sa.BigInteger, nullable=False, comment="lines that could not be taken"),
        sa.Column(
            "frontier", sa.Text, nullable=False, comment="provider/model that savings are measured against"
        ),
        sa.Column("providers", pg.ARRAY(sa.Text), nullable=False, comment="where its prompts may go"),
        instant("created_at", now=True),
        instant("finished_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("name", name=op.f("uq_batches_name")),
        one_of("batches", "state", "running", "paused", "cancelled", "completed"),
    )
    op.create_index("ix_batches_input_digest", "batches", ["input_digest"])


def create_prompts() -> None:
    op.create_table(
        "prompts",
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column(
            "prompt_no",
            sa.Integer,
            nullable=False,
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
        sa.PrimaryKeyConstraint("batch_id", "prompt_no", name=op.f("pk_prompts")),
        sa.UniqueConstraint("batch_id", "custom_id", name=op.f("uq_prompts_batch_id_custom_id")),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_prompts_batch_id"), ondelete="CASCADE"
        ),
        one_of("prompts", "category_source", "given", "classified", "default"),
    )


def create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("hostname", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("calls_in_flight", sa.Integer, nullable=False, server_default="0"),
        instant("started_at", now=True),
        instant("heartbeat_at", now=True),
        instant("stopped_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index("ix_workers_live", "workers", ["provider"], postgresql_where=sa.text("stopped_at IS NULL"))


def create_shards() -> None:
    op.create_table(
        "shards",
        sa.Column("id", pg.UUID(as_uuid=True), nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("pinned", sa.Text),
        sa.Column(
            "route",
            sa.Text,
            comment="provider/model to call; on a category's queue set by the claim",
        ),
        sa.Column("prompt_nos", pg.ARRAY(sa.Integer), nullable=False, comment="what is still to do"),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column(
            "attempt_no",
            sa.SmallInteger,
            nullable=False,
            comment="of the next call at this provider, from 1",
        ),
        sa.Column(
            "attempts_before", sa.SmallInteger, nullable=False, comment="calls made for its prompts so far"
        ),
        sa.Column("tried", pg.ARRAY(sa.Text), nullable=False, comment="routes given up, provider/model"),
        sa.Column("reason", sa.Text, comment="why it is here: the error class that moved it"),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0", comment="counts the claims"),
        sa.Column("worker_id", sa.BigInteger),
        instant("lease_until"),
        instant("not_before"),
        instant("published_at"),
        instant("created_at", now=True),
        instant("finished_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shards")),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_shards_batch_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_shards_worker_id")),
        one_of("shards", "state", "queued", "waiting", "running", "done", "cancelled"),
        check("shards", "lease", "(state = 'running') = (lease_until IS NOT NULL)"),
        check("shards", "worker", "(state = 'running') = (worker_id IS NOT NULL)"),
        check("shards", "waiting", "state <> 'waiting' OR not_before IS NOT NULL"),
        check("shards", "done", "state <> 'done' OR cardinality(prompt_nos) = 0"),
    )
    # One small index for each question that is asked all the time; finished shards are in none of them.
    op.create_index(
        "ix_shards_open",
        "shards",
        ["batch_id", "state", "queue"],
        postgresql_where=sa.text("state IN ('queued', 'waiting', 'running')"),
    )
    op.create_index(
        "ix_shards_waiting", "shards", ["not_before"], postgresql_where=sa.text("state = 'waiting'")
    )
    op.create_index(
        "ix_shards_running", "shards", ["lease_until"], postgresql_where=sa.text("state = 'running'")
    )
    op.create_index(
        "ix_shards_queued",
        "shards",
        ["queue", "published_at"],
        postgresql_where=sa.text("state = 'queued'"),
    )


def create_prices() -> None:
    op.create_table(
        "prices",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
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
        instant("valid_from", now=True),
        instant("valid_to"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prices")),
        sa.UniqueConstraint(
            "provider",
            "model",
            "above_input_tokens",
            "valid_from",
            name=op.f("uq_prices_provider_model_above_input_tokens_valid_from"),
        ),
    )
    op.create_index(
        "ix_prices_current",
        "prices",
        ["provider", "model", "above_input_tokens"],
        unique=True,
        postgresql_where=sa.text("valid_to IS NULL"),
    )


def create_provider_stops() -> None:
    op.create_table(
        "provider_stops",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("error_class", sa.Text, nullable=False),
        sa.Column("error_message", sa.Text, nullable=False),
        instant("stopped_at", now=True),
        sa.PrimaryKeyConstraint("provider", "simulated", name=op.f("pk_provider_stops")),
        one_of("provider_stops", "error_class", "auth", "quota"),
    )


def create_results() -> None:
    op.create_table(
        "results",
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("prompt_no", sa.Integer, nullable=False, autoincrement=False),
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
        *tokens(),
        sa.Column("cost_usd", sa.Numeric, comment="of the call that answered; NULL: price or usage unknown"),
        sa.Column("baseline_cost_usd", sa.Numeric, comment="of the same tokens at the frontier model"),
        sa.Column("latency_ms", sa.Integer, comment="of the call that answered"),
        instant("started_at"),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "prompt_no", name=op.f("pk_results")),
        to_prompts("results"),
        one_of("results", "state", "succeeded", "failed", "cancelled"),
        check("results", "error", "(state = 'succeeded') = (error_class IS NULL)"),
        check("results", "provider", "state <> 'succeeded' OR provider IS NOT NULL"),
    )
    op.create_index(
        "ix_results_unsuccessful",
        "results",
        ["batch_id", "state"],
        postgresql_where=sa.text("state <> 'succeeded'"),
    )


def create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("prompt_no", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("shard_id", pg.UUID(as_uuid=True), nullable=False),
        sa.Column(
            "fence",
            sa.Integer,
            nullable=False,
            autoincrement=False,
            comment="the claim it was made under",
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
        *tokens(),
        sa.Column("cost_usd", sa.Numeric, comment="NULL: price or usage unknown"),
        sa.Column("price_id", sa.BigInteger),
        sa.Column("latency_ms", sa.Integer),
        instant("started_at"),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "prompt_no", "shard_id", "fence", name=op.f("pk_attempts")),
        to_prompts("attempts"),
        sa.ForeignKeyConstraint(["price_id"], ["prices.id"], name=op.f("fk_attempts_price_id")),
        one_of("attempts", "outcome", "succeeded", "failed", "unknown"),
        check("attempts", "error", "(outcome = 'succeeded') = (error_class IS NULL)"),
    )
    op.create_index("ix_attempts_finished_at", "attempts", ["finished_at"], postgresql_using="brin")


def instant(name: str, *, now: bool = False) -> sa.Column[object]:
    """A time; with `now` it is never NULL and filled by the database."""
    if now:
        return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())
    return sa.Column(name, sa.DateTime(timezone=True))


def tokens() -> list[sa.Column[int]]:
    names = ["input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"]
    return [sa.Column(name, sa.Integer) for name in names]


def check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def one_of(table: str, column: str, *values: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return check(table, column, f"{column} IN ({listed})")


def to_prompts(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["batch_id", "prompt_no"],
        ["prompts.batch_id", "prompts.prompt_no"],
        name=op.f(f"fk_{table}_batch_id_prompt_no"),
        ondelete="CASCADE",
    )
