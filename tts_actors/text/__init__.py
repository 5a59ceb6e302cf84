"""Pure text work: what may be spoken, where sentences end, and how a long text becomes chunks.

Nothing in this package does I/O, keeps state or knows about jobs, backends or audio.
"""

from tts_actors.text.lexicon import Lexicon, check_lexicon, lexicon_of
from tts_actors.text.sentences import sentence_ends
from tts_actors.text.speakable import check_text, is_speakable, spoken_text
from tts_actors.text.splitting import split_text

__all__ = [
    "Lexicon",
    "check_lexicon",
    "check_text",
    "is_speakable",
    "lexicon_of",
    "sentence_ends",
    "split_text",
    "spoken_text",
]
