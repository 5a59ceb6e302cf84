"""Jobs whose objects are looked for once more after they have gone."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "removals",
        sa.Column("job_id", sa.String(64), primary_key=True),
        sa.Column("due_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_removals_due", "removals", ["due_at_ms"])


def downgrade() -> None:
    op.drop_table("removals")
