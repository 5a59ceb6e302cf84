"""What a tenant has used: operations of the job store on a connection, inside the transaction that uses more of it."""

from collections.abc import Callable

import sqlalchemy as sa

from tts_actors.errors import LimitExceeded
from tts_actors.models import Quota
from tts_actors.states import ACTIVE
from tts_actors.stores.tables import jobs

DAY_MS = 86_400_000

ACTIVE_JOBS_RETRY_SECONDS = 5.0
"""When a caller with too many active jobs may ask again: nobody knows when one of them ends."""

# Both databases know this form. The row lock that it takes keeps a tenant's requests in line until the commit.
_CHARGE = sa.text(
    "INSERT INTO usage (tenant, day, characters) VALUES (:tenant, :day, :characters)"
    " ON CONFLICT (tenant, day) DO UPDATE SET characters = usage.characters + excluded.characters"
    " RETURNING characters"
)
_ACTIVE_JOBS = sa.select(sa.func.count()).where(
    jobs.c.tenant == sa.bindparam("tenant"), jobs.c.state.in_([state.value for state in sorted(ACTIVE)])
)


def charge(tenant: str, quota: Quota, characters: int, now_ms: int) -> Callable[[sa.Connection], None]:
    """Count ``characters`` for today. Raises :class:`LimitExceeded`, which must end the transaction."""
    limit = quota.characters_per_day

    def operation(connection: sa.Connection) -> None:
        if limit is None:
            return
        day = now_ms // DAY_MS
        values = {"tenant": tenant, "day": day, "characters": characters}
        used = int(connection.execute(_CHARGE, values).scalar_one())
        if used > limit:
            left = max(0, limit - used + characters)
            name = "limits.per_key.characters_per_day"
            message = f"{name} is {limit}; {left} are left today (UTC) and the text has {characters}"
            raise LimitExceeded(message, ((day + 1) * DAY_MS - now_ms) / 1_000, name)

    return operation


def check_active(tenant: str, quota: Quota) -> Callable[[sa.Connection], None]:
    """Raise :class:`LimitExceeded` if the tenant may have no further job now."""
    limit = quota.active_jobs

    def operation(connection: sa.Connection) -> None:
        if limit is not None and int(connection.execute(_ACTIVE_JOBS, {"tenant": tenant}).scalar_one()) >= limit:
            name = "limits.per_key.active_jobs"
            raise LimitExceeded(f"{name} is {limit}: wait for one to end", ACTIVE_JOBS_RETRY_SECONDS, name)

    return operation
