"""How long it is quiet behind a chunk.

Clips come with trimmed edges, so this is the whole pause, but for the 2 x 20 ms that trimming leaves. The module
must not know audio: it only counts samples.
"""

from dataclasses import dataclass

from tts_actors.models import SAMPLE_RATE_HZ, Boundary


@dataclass(frozen=True, slots=True)
class Pauses:
    """Pauses in milliseconds at speed 1.0.

    Why these: silent pauses of read speech in five languages fall into brief ones (below 200 ms) and medium
    ones (200-1,000 ms); longer ones occur only in spontaneous speech (Campione and Veronis, "A Large-Scale
    Multilingual Study of Silent Pause Duration", Speech Prosody 2002). A cut inside a sentence gets a brief
    pause, longer where a comma stands; a stronger mark, a sentence and a question the lower part of the medium
    range, in that order; a paragraph its upper part. The exact numbers in these ranges are our choice. Untrimmed,
    hibari alone would leave about 800 ms between sentences.
    """

    cut_ms: int = 80
    comma_ms: int = 150
    clause_ms: int = 220
    sentence_ms: int = 300
    question_ms: int = 380
    paragraph_ms: int = 700

    def pause_ms(self, boundary: Boundary) -> int:
        """The pause behind a chunk with this boundary; nothing follows the end of the text."""
        match boundary:
            case Boundary.CUT:
                return self.cut_ms
            case Boundary.COMMA:
                return self.comma_ms
            case Boundary.CLAUSE:
                return self.clause_ms
            case Boundary.SENTENCE:
                return self.sentence_ms
            case Boundary.QUESTION:
                return self.question_ms
            case Boundary.PARAGRAPH:
                return self.paragraph_ms
            case Boundary.END:
                return 0


DEFAULT_PAUSES = Pauses()


def pause_samples(boundary: Boundary, *, speed: float = 1.0, pauses: Pauses = DEFAULT_PAUSES) -> int:
    """Samples of silence behind a chunk: who speaks twice as fast pauses half as long.

    The same arguments always give the same number: offsets of captions and ranges are computed from it.
    """
    return round(pauses.pause_ms(boundary) * SAMPLE_RATE_HZ / (1_000 * speed))
