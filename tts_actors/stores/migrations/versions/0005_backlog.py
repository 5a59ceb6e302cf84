"""How long the queue is, from an index alone: each acceptance asks, and read a row for each job that waits."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

QUEUE = ["state", "priority", "created_at_ms"]


def upgrade() -> None:
    op.drop_index("ix_jobs_queue", "jobs")
    op.create_index("ix_jobs_queue", "jobs", [*QUEUE, "run_timeout_ms"])


def downgrade() -> None:
    op.drop_index("ix_jobs_queue", "jobs")
    op.create_index("ix_jobs_queue", "jobs", QUEUE)
