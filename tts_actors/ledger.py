"""A job's bookkeeping, pure: which chunks are done, what that makes of the job, what the counts are.

It performs no I/O. The actor feeds it results and writes to the store what it says.
"""

from collections.abc import Iterable

from tts_actors.models import ChunkResult, JobCounts, JobPlan, JobState, OnChunkFailure


class Ledger:
    """The state of one job's chunks. A chunk that has a result keeps it: the first result wins."""

    def __init__(self, plan: JobPlan, on_chunk_failure: OnChunkFailure) -> None:
        self._plan = plan
        self._on_chunk_failure = on_chunk_failure
        self._results: dict[int, ChunkResult] = {}
        self._completed = 0
        self._audio_samples = 0
        self._characters_done = 0
        self._longest_timeout_ms = 0

    def record(self, results: Iterable[ChunkResult]) -> list[ChunkResult]:
        """Take results in; returns those that are news (a late duplicate is not)."""
        news = []
        for result in results:
            if result.index in self._results:
                continue
            self._results[result.index] = result
            self._longest_timeout_ms = max(self._longest_timeout_ms, result.timeout_ms)
            if result.clip is not None:
                self._completed += 1
                self._audio_samples += result.clip.samples
                self._characters_done += self._plan.spans[result.index].characters
            news.append(result)
        return news

    def outstanding(self) -> list[int]:
        """Indices without a result, in text order."""
        return [span.index for span in self._plan.spans if span.index not in self._results]

    def outstanding_count(self) -> int:
        """How many chunks have no result yet."""
        return len(self._plan.spans) - len(self._results)

    def first_failure(self) -> ChunkResult | None:
        """The failed chunk with the lowest index."""
        failed = (r for r in self._results.values() if r.error is not None)
        return min(failed, key=lambda r: r.index, default=None)

    def verdict(self) -> JobState | None:
        """What the job has become, or None while there is work left.

        Completed means coverage 1.0: every chunk has a stored clip. One failed chunk decides the job at once unless
        the caller asked for silence.
        """
        failed = len(self._results) - self._completed
        if failed and self._on_chunk_failure is OnChunkFailure.FAIL:
            return JobState.FAILED
        if len(self._results) < len(self._plan.spans):
            return None
        if not self._completed:
            return JobState.FAILED
        return JobState.COMPLETED_WITH_GAPS if failed else JobState.COMPLETED

    def orchestrator_timeout_ms(self) -> int:
        """The maximum that the workers returned, never below what the plan promised."""
        return max(self._plan.orchestrator_timeout_ms, self._longest_timeout_ms)

    def counts(self, in_flight: int) -> JobCounts:
        """The figures to store with the job."""
        return JobCounts(
            chunks_completed=self._completed,
            chunks_failed=len(self._results) - self._completed,
            chunks_in_flight=in_flight,
            audio_samples=self._audio_samples,
            characters_done=self._characters_done,
            orchestrator_timeout_ms=self.orchestrator_timeout_ms(),
        )
