"""Which job actors have fallen silent, judged by their jobs' rows: a living one writes to its row every few seconds.

Only a row that stands still while the store works proves anything, so any doubt about the store, or about this process
itself, starts the wait anew. It knows rows and their versions on one clock of its own, and no actors.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from tts_actors.errors import RetryLater
from tts_actors.job_actor import LEASE_MS
from tts_actors.messages import Activation
from tts_actors.protocols import JobStore

SILENT_SECONDS = LEASE_MS / 1_000 + 1
"""How long a row must be seen standing still: its claim has run out then, and three chances to prolong it with it."""

PATIENCE_SECONDS = 25.0
"""How long after a doubt nobody is judged. An actor's commit may hang for 20 s (the bound of one operation) in a store
that was away before the actor tries again; it is not dead."""

LATE_SECONDS = 6.0
"""Between two looks, which follow each other every 2 s: after more than this the store was slow, or this process or the
whole machine stood still, and the actors with it."""

WORKING_STORE_SECONDS = 1.0
"""A store that takes longer for a few small statements may be what keeps an actor from writing."""


class Silence:
    """What was last seen of each running job of ``owner``. ``now`` gives seconds."""

    def __init__(self, store: JobStore, owner: str, now: Callable[[], float]) -> None:
        self._store = store
        self._owner = owner
        self._now = now
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked_at: float | None = None
        self._judges_from = float("-inf")

    def doubt(self) -> None:
        """The store did not answer, or late: a row may stand still because of that."""
        self._judges_from = self._now() + PATIENCE_SECONDS

    @contextlib.contextmanager
    def doubting(self) -> Iterator[None]:
        """A block that asks the store, and is given up if that does not answer."""
        try:
            yield
        except RetryLater:
            self.doubt()
            raise

    async def claims(self, versions: Mapping[str, int]) -> AsyncIterator[Activation]:
        """Claim the jobs of silent actors, among those with the versions that their rows have now.

        The claim fences the silent one. It is refused if that one has written after all, and shows that the store takes
        writes.
        """
        with self.doubting():
            for job_id in self._silent(versions):
                asked_at = self._now()
                await self._store.warm()
                if self._now() - asked_at > WORKING_STORE_SECONDS:
                    self.doubt()
                    return
                now_ms = int(self._now() * 1_000)
                claim = await self._store.claim(
                    job_id, owner=self._owner, now_ms=now_ms, lease_ms=LEASE_MS, only_due=True
                )
                if claim is not None:
                    yield claim

    def _silent(self, versions: Mapping[str, int]) -> list[str]:
        now = self._now()
        if self._looked_at is not None and now - self._looked_at > LATE_SECONDS:
            self.doubt()
        self._looked_at = now
        kept = {job_id: seen for job_id, seen in self._seen.items() if versions.get(job_id) == seen[0]}
        self._seen = {job_id: (version, now) for job_id, version in versions.items()} | kept
        if now < self._judges_from:
            return []
        return [job_id for job_id, (_, since) in self._seen.items() if now - since >= SILENT_SECONDS]
