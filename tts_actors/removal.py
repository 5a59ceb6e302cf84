"""How ended jobs are cleared away, with what came late: steps of the directory's sweep. It knows no actors."""

from tts_actors.protocols import ClipStore, JobStore

LATE_SECONDS = 300.0
"""What is younger belongs to a new job under the same id: the look back comes 10 minutes after the removal."""

REMOVALS = 100
"""Removed jobs that are looked back at in one sweep."""


async def clear(job_id: str, store: JobStore, clips: ClipStore, now_ms: int) -> None:
    """End a job whose time is over. One that was retried meanwhile keeps everything."""
    if await store.expire(job_id, now_ms=now_ms, only_due=True):
        await clips.delete_prefix(job_id)


async def look_back(store: JobStore, clips: ClipStore, now_ms: int) -> None:
    """Remove what came after the jobs had gone, or was left when the one who removed them died."""
    for _ in range(REMOVALS):
        job_id = await store.next_removal(now_ms=now_ms)
        if job_id is None:
            return
        await store.forget_removals(None, now_ms=now_ms)
        await clips.delete_prefix(job_id, older_than_seconds=LATE_SECONDS)
        await store.forget_removals(job_id, now_ms=now_ms)
