"""The job store's tables. A change here needs a migration beside it (a test compares the two)."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect

metadata = MetaData()

_ESCAPES = (("\x1a", "\x1as"), ("\0", "\x1a0"))


class AnyString(TypeDecorator[str]):
    """A string of any characters: PostgreSQL cannot store U+0000, so it writes SUB and 0 (for SUB: SUB and s)."""

    impl: Any = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name == "sqlite":
            return value
        for plain, escaped in _ESCAPES:
            value = value.replace(plain, escaped)
        return value

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name == "sqlite":
            return value
        for plain, escaped in reversed(_ESCAPES):
            value = value.replace(escaped, plain)
        return value


class AnyId(AnyString):
    """The same for ids: those that callers ask for may be anything."""

    impl = String
    cache_ok = True


jobs = Table(
    "jobs",
    metadata,
    Column("id", AnyId(64), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("state", String(24), nullable=False),
    Column("version", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("activations", Integer, nullable=False),
    Column("owner", String(64)),
    Column("next_alarm_at_ms", BigInteger, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("request", Text, nullable=False),
    Column("request_hash", String(64), nullable=False),
    Column("idempotency_key", String(255)),
    Column("character_count", Integer, nullable=False),
    Column("chunk_total", Integer, nullable=False),
    Column("chunks_completed", Integer, nullable=False),
    Column("chunks_failed", Integer, nullable=False),
    Column("chunks_in_flight", Integer, nullable=False),
    Column("audio_samples", BigInteger, nullable=False),
    Column("characters_done", Integer, nullable=False),
    Column("orchestrator_timeout_ms", Integer, nullable=False),
    Column("job_timeout_ms", BigInteger, nullable=False),
    Column("run_timeout_ms", BigInteger, nullable=False),
    Column("poll_after_ms", Integer, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("started_at_ms", BigInteger),
    Column("finished_at_ms", BigInteger),
    Column("expires_at_ms", BigInteger),
    Column("deadline_at_ms", BigInteger, nullable=False),
    Column("error_code", String(64)),
    Column("error_message", AnyString),
    Column("traceparent", String(64)),
    Column("format", Integer, nullable=False, server_default="1"),
    UniqueConstraint("tenant", "idempotency_key", name="uq_jobs_idempotency_key"),
    Index("ix_jobs_alarm", "next_alarm_at_ms"),
    Index("ix_jobs_queue", "state", "priority", "created_at_ms", "run_timeout_ms"),  # covers the backlog
    Index("ix_jobs_listing", "tenant", "created_at_ms", "id"),
)

job_inputs = Table(
    "job_inputs",
    metadata,
    Column("job_id", AnyId(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("text", AnyString, nullable=False),
    Column("plan", Text, nullable=False),
)

chunks = Table(
    "chunks",
    metadata,
    Column("job_id", AnyId(64), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("chunk_index", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("timeout_ms", Integer, nullable=False),
    Column("clip_key", String(255)),
    Column("samples", BigInteger),
    Column("sha256", String(64)),
    Column("error", AnyString),
    Column("attempts", Text, nullable=False),
    PrimaryKeyConstraint("job_id", "chunk_index"),
)

usage = Table(
    "usage",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("day", Integer, nullable=False),
    Column("characters", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "day"),
)
"""Characters accepted per tenant and day (days since 1970, UTC): deleting a job does not give them back."""

removals = Table(
    "removals",
    metadata,
    Column("job_id", AnyId(64), primary_key=True),
    Column("due_at_ms", BigInteger, nullable=False),
    Index("ix_removals_due", "due_at_ms"),
)
"""Jobs that have gone, whose objects are looked for once more: one may have been on its way."""
