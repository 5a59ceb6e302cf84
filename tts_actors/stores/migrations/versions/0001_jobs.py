"""Jobs, their inputs and their chunks."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("activations", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("next_alarm_at_ms", sa.BigInteger, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("request_hash", sa.String(64), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("character_count", sa.Integer, nullable=False),
        sa.Column("chunk_total", sa.Integer, nullable=False),
        sa.Column("chunks_completed", sa.Integer, nullable=False),
        sa.Column("chunks_failed", sa.Integer, nullable=False),
        sa.Column("chunks_in_flight", sa.Integer, nullable=False),
        sa.Column("audio_samples", sa.BigInteger, nullable=False),
        sa.Column("characters_done", sa.Integer, nullable=False),
        sa.Column("orchestrator_timeout_ms", sa.Integer, nullable=False),
        sa.Column("job_timeout_ms", sa.BigInteger, nullable=False),
        sa.Column("run_timeout_ms", sa.BigInteger, nullable=False),
        sa.Column("poll_after_ms", sa.Integer, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("started_at_ms", sa.BigInteger),
        sa.Column("finished_at_ms", sa.BigInteger),
        sa.Column("expires_at_ms", sa.BigInteger),
        sa.Column("deadline_at_ms", sa.BigInteger, nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text),
        sa.UniqueConstraint("tenant", "idempotency_key", name="uq_jobs_idempotency_key"),
    )
    op.create_index("ix_jobs_alarm", "jobs", ["next_alarm_at_ms"])
    op.create_index("ix_jobs_queue", "jobs", ["state", "priority", "created_at_ms"])
    op.create_index("ix_jobs_listing", "jobs", ["tenant", "created_at_ms", "id"])
    op.create_table(
        "job_inputs",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
    )
    op.create_table(
        "chunks",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("chunk_index", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("timeout_ms", sa.Integer, nullable=False),
        sa.Column("clip_key", sa.String(255)),
        sa.Column("samples", sa.BigInteger),
        sa.Column("sha256", sa.String(64)),
        sa.Column("error", sa.Text),
        sa.Column("attempts", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "chunk_index"),
    )


def downgrade() -> None:
    op.drop_table("chunks")
    op.drop_table("job_inputs")
    op.drop_table("jobs")
