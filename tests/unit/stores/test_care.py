"""An operator's look at a job store, on both kinds."""

import time

from tests.unit.jobs import new_job
from tts_actors.stores.care import JobStoreCare
from tts_actors.stores.jobs import SqlJobStore


async def test_a_store_tells_its_schema_its_clock_and_what_is_not_done(store: SqlJobStore, store_url: str) -> None:
    job, _ = await store.create_job(new_job(), lambda _: 0)
    care = JobStoreCare(store_url)
    try:
        facts = await care.facts()
        waiting = [found async for found in care.unfinished()]
        kept = [found.id async for found in care.kept()]
    finally:
        await care.close()
    assert facts.revision == facts.needed
    assert not facts.newer
    assert facts.newest_at_ms == job.created_at_ms
    assert [(found.id, owner) for found, owner in waiting] == [(job.id, None)]
    assert kept == [job.id]
    if store_url.startswith("postgresql"):
        assert facts.clock_ms is not None
        assert abs(facts.clock_ms - time.time() * 1_000) < 60_000, "the same machine's clock"
        assert (facts.max_connections or 0) > 0
    else:
        assert (facts.clock_ms, facts.max_connections) == (None, None)
