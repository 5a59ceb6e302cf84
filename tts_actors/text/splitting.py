"""From a text to chunks: one a sentence, or as many whole sentences as fit, or the whole text at once."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tts_actors.errors import InvalidRequest
from tts_actors.models import Boundary, ChunkingMode, ChunkSpan, SentenceMark, SplitText
from tts_actors.text.cutting import boundary_by_mark, cut_sentence
from tts_actors.text.lexicon import Lexicon
from tts_actors.text.sentences import sentence_ends
from tts_actors.text.speakable import after_blanks, before_blanks, check_text, is_speakable

_End = tuple[int, Boundary]


def split_text(
    text: str,
    *,
    mode: ChunkingMode,
    max_characters: int,
    language: str = "en",
    lexicon: Lexicon | None = None,
    first_characters: int | None = None,
) -> SplitText:
    """Split ``text`` into chunks of at most ``max_characters`` and say which sentence is in which chunk.

    Promises: the spans cover the text without a gap or an overlap; each holds at most ``max_characters`` code
    points from its first to its last non-whitespace character; each has a letter or digit, unless the text
    has none or a run without one is too long to be attached. Only what cannot be spoken is taken along over a
    blank line, except in mode ``NONE`` when the whole text fits in one chunk. Equal arguments give equal
    answers; time grows linearly with the text.

    With a ``lexicon``, what it makes of a chunk has at most ``max_characters`` too.

    With ``first_characters``, in mode ``SENTENCE``, the first chunk is the first sentence or its part of at most so
    many characters, and each chunk after it may hold whole sentences up to twice the bound of the one before: a
    listener hears the first words soon, and every chunk is rendered while a shorter one is heard.

    ``language`` is a BCP 47 tag; an unknown one gets rules that hold for most languages. Raises
    ``InvalidRequest`` for text that :func:`check_text` refuses, for ``max_characters`` below 1, and if what the
    lexicon says for a word does not fit one chunk.
    """
    check_text(text)
    if max_characters < 1:
        raise InvalidRequest("max_characters must be at least 1", "max_characters")
    sentences = sentence_ends(text, language)
    if mode is ChunkingMode.NONE and len(text.strip()) <= max_characters:
        ends = [(len(text), Boundary.END)]
    else:
        growing = first_characters is not None and mode is ChunkingMode.SENTENCE
        ends = list(_parts(text, sentences, max_characters, first_characters if growing else None))
        if growing and first_characters is not None:
            ends = list(_grown(ends, first_characters, max_characters))
        elif mode is not ChunkingMode.SENTENCE:
            ends = list(_packed(ends, max_characters))
    if lexicon is not None:
        ends = list(_fitted(text, ends, max_characters, lexicon))
    spans = _spans(text, ends)
    return SplitText(spans, tuple(_marks(text, sentences, spans)))


def _parts(text: str, sentences: Sequence[int], cap: int, first_cap: int | None) -> Iterator[_End]:
    """Ends of all sentences and of all parts of those that are too long; the first has a bound of its own if given."""
    for start, end in pairwise([0, *sentences]):
        yield from cut_sentence(text, start, end, min(cap, first_cap) if first_cap and not start else cap)


def _grown(ends: Sequence[_End], first: int, cap: int) -> Iterator[_End]:
    """Ends of the first part alone, then of chunks whose bound doubles up to ``cap``; paragraphs end a chunk."""
    yield ends[0]
    if len(ends) == 1:
        return
    start, held, bound = ends[0][0], ends[1], min(2 * first, cap)
    for following in ends[2:]:
        if held[1] is Boundary.PARAGRAPH or following[0] - start > bound:
            yield held
            start, bound = held[0], min(2 * bound, cap)
        held = following
    yield held


def _packed(ends: Sequence[_End], cap: int) -> Iterator[_End]:
    """Ends of chunks that hold as much as fits, whitespace counted, and stop at every paragraph's end."""
    start, held = 0, ends[0]
    for following in ends[1:]:
        if held[1] is Boundary.PARAGRAPH or following[0] - start > cap:
            yield held
            start = held[0]
        held = following
    yield held


def _fitted(text: str, ends: Sequence[_End], cap: int, lexicon: Lexicon) -> Iterator[_End]:
    """Ends of the same chunks, those cut further whose spoken text is longer than ``cap``."""
    start = 0
    for end, boundary in ends:
        while len(lexicon.spoken(text[start:end])) > cap:
            head = _fitting_head(text, start, end, cap, lexicon)
            yield head
            start = head[0]
        yield end, boundary
        start = end


def _fitting_head(text: str, start: int, end: int, cap: int, lexicon: Lexicon) -> _End:
    """The end of a first part whose spoken text fits, not inside of an entry's match."""
    matches = list(lexicon.matches(text, start, end))
    budget = max(1, (end - start) * cap // len(lexicon.spoken(text[start:end])))
    while True:
        stop, boundary = cut_sentence(text, start, end, budget)[0]
        for first, last, _ in matches:
            if first < stop < last:
                stop, boundary = (
                    first if is_speakable(text[start:first]) else after_blanks(text, last, end),
                    Boundary.CUT,
                )
        fits = len(lexicon.spoken(text[start:stop])) <= cap
        if fits and start < stop < end and is_speakable(text[stop:end]):
            return stop, boundary
        if budget == 1:
            raise InvalidRequest(
                f"lexicon: what is to be said for a word does not fit a chunk of {cap} characters", "lexicon"
            )
        budget = budget * 3 // 4


def _spans(text: str, ends: Sequence[_End]) -> tuple[ChunkSpan, ...]:
    starts = [0, *(end for end, _ in ends)]
    last = len(ends) - 1
    return tuple(
        ChunkSpan(index, starts[index], end, Boundary.END if index == last else boundary_by_mark(text, end, boundary))
        for index, (end, boundary) in enumerate(ends)
    )


def _marks(text: str, sentences: Sequence[int], spans: Sequence[ChunkSpan]) -> Iterator[SentenceMark]:
    """Lay the sentences over the chunks: a mark for each stretch that is in one sentence and in one chunk."""
    sentence = start = 0
    for span in spans:
        while start < span.char_end:
            end = min(sentences[sentence], span.char_end)
            bare = after_blanks(text, start, end)
            yield SentenceMark(sentence, span.index, bare, before_blanks(text, bare, end))
            sentence += end == sentences[sentence]
            start = end
