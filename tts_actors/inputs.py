"""Texts with their plans, kept in memory: neither ever changes, and a plan of 10,000 chunks takes 20 ms to read."""

from collections import OrderedDict

from tts_actors.errors import NotFound
from tts_actors.models import JobInput, JobRecord
from tts_actors.protocols import JobStore

CACHED_CHARACTERS = 4_000_000
"""Texts kept, by total length."""

LEAST_CHARACTERS = 1_000
"""As how long a shorter text counts: its plan and its objects need memory too."""


class Inputs:
    """The latest inputs of one process, in front of the store."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, int], JobInput] = OrderedDict()
        self._characters = 0

    async def of(self, job: JobRecord) -> JobInput:
        """The job's input. Raises :class:`NotFound` if the job is gone."""
        found = self._kept.get(_key(job))
        if found is None:
            found = await self._store.get_input(job.id)
            if found is None:
                raise NotFound("there is no such job", "job_id")
            self.keep(job, found)
        return found

    def keep(self, job: JobRecord, given: JobInput) -> JobInput:
        """Remember ``given`` at the cost of the oldest ones; returns it."""
        earlier = self._kept.pop(_key(job), None)
        if earlier is not None:
            self._characters -= _counted(earlier)
        self._kept[_key(job)] = given
        self._characters += _counted(given)
        while self._characters > CACHED_CHARACTERS:
            _, oldest = self._kept.popitem(last=False)
            self._characters -= _counted(oldest)
        return given


def _counted(given: JobInput) -> int:
    return max(len(given.text), LEAST_CHARACTERS)


def _key(job: JobRecord) -> tuple[str, int]:
    """An id may come again after a delete, with another text."""
    return job.id, job.created_at_ms
