"""How ended jobs are cleared away, with what came late: steps of the directory's clearing. It knows no actors."""

from tts_actors.protocols import ClipStore, JobStore

LATE_SECONDS = 300.0
"""What is younger belongs to a new job under the same id: the look back comes 10 minutes after the removal."""

STEPS = 100
"""Ended lives that are cleared in one round, and removed jobs that are looked back at; the rest comes in the next."""


async def clear(store: JobStore, clips: ClipStore, now_ms: int) -> None:
    """Remove what nobody may have any more.

    First jobs whose time is over: one that was retried meanwhile keeps everything. Then what came after jobs had gone,
    or was left when the one who removed them died.
    """
    for job_id in await store.ended_lives(now_ms=now_ms, limit=STEPS):
        if await store.expire(job_id, now_ms=now_ms, only_due=True):
            await clips.delete_prefix(job_id)
    for _ in range(STEPS):
        gone = await store.next_removal(now_ms=now_ms)
        if gone is None:
            return
        await store.forget_removals(None, now_ms=now_ms)
        await clips.delete_prefix(gone, older_than_seconds=LATE_SECONDS)
        await store.forget_removals(gone, now_ms=now_ms)
