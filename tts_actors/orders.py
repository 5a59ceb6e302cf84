"""What a chunk worker is asked for: some chunks of a job, with the words to speak."""

from collections.abc import Callable, Sequence

from tts_actors import tracing
from tts_actors.messages import SliceOrder
from tts_actors.models import JobInput, JobRecord, SpeechRequest
from tts_actors.text import lexicon_of, spoken_text


def words_for(request: SpeechRequest) -> Callable[[str], str]:
    """What makes the words to speak of a piece of the caller's text."""
    lexicon = lexicon_of(request.lexicon)
    return lexicon.spoken if lexicon else spoken_text


def slice_order(
    job: JobRecord, given: JobInput, indices: Sequence[int], *, max_in_flight: int, adopt: bool, sole: bool = True
) -> SliceOrder:
    """The order for these chunks of a running job."""
    words = words_for(job.request)
    spans = [given.plan.spans[index] for index in indices]
    return SliceOrder(
        job_id=job.id,
        epoch=job.epoch,
        deadline_at_ms=job.deadline_at_ms,
        request=job.request,
        pieces=tuple(
            (span.index, span.characters, words(given.text[span.char_start : span.char_end])) for span in spans
        ),
        timeouts=given.plan.timeouts,
        max_in_flight=max_in_flight,
        adopt=adopt,
        sole=sole,
        traceparent=tracing.traceparent(),
    )
