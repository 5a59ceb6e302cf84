"""The trace that a job belongs to, and the version of what its row means.

Code from before goes on beside this schema until it is replaced: the rows that it adds take the default.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("traceparent", sa.String(64)))
    op.add_column("jobs", sa.Column("format", sa.Integer, nullable=False, server_default="1"))


def downgrade() -> None:
    op.drop_column("jobs", "format")
    op.drop_column("jobs", "traceparent")
