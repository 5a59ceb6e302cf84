"""500 good takes of the embedded engine: is any refused by the take check, with a pace that is learnt from them?

And of the same takes, cut short: how many are refused then. The sentences are made here, the same in every run: prose,
single words, numbers, addresses of the web, abbreviations, lists, quotations, shouting.
"""

import asyncio
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from benchmarks.harness import Report
from deployments.local_tts import HibariEngine
from tts_actors.audio import prepare_clip, wav_bytes
from tts_actors.experience import LONG_LETTERS, SHORTEST_JUDGED, Experience, letters_of
from tts_actors.models import SAMPLE_RATE_HZ, ChunkingMode
from tts_actors.text import split_text, spoken_text

SENTENCES, ROUNDS = 500, 3
STORY = Path("examples/the_lighthouse_keeper.txt")

_WORDS = (
    *(
        "No",
        "Yes",
        "Stop!",
        "Why?",
        "Go.",
        "Hello",
        "Perhaps.",
        "Tomorrow",
        "Strengths",
        "Photosynthesis",
        "A",
        "I",
        "Oh!",
    ),
    *("Squirrel", "Rhythm", "Queue", "Eye", "Through", "Wednesday", "Internationalization", "Otorhinolaryngologist"),
)
_NUMBERS = (
    "7",
    "42.",
    "1,234,567",
    "3.14159",
    "99 %",
    "In 1984.",
    "£2,500.50",
    "10:45",
    "2026-11-24",
    "555-0142 9981",
    "Room 221B, floor 3.",
    "0.5 kg of salt and 1.25 l of water.",
    "The score was 3-2 after 90 minutes.",
    "Chapter XXVIII",
    "1st, 2nd, 3rd and 104th",
    "Call 020 7946 0018 or 020 7946 0999 today.",
    "It grew by 12.5 % to 8,848.86 m in 1954.",
    "192.168.0.1",
    "-40 °C",
    "1000000000 grains of sand, 365 days, 24 hours.",
)
_ADDRESSES = (
    "https://example.org",
    "See https://example.com/a/very/long/path/to/some/page.html?query=words&lang=en#part-2 for the details.",
    "www.example.net/index",
    "Mail to first.last@example.org, or to office@sub.example.com.",
    "git@example.org:group/project.git",
    "The file is at /usr/share/doc/readme.txt on most systems.",
    "Read http://example.org/2026/11/24/news and http://example.org/2026/11/25/more-news first.",
    "ftp://files.example.org/pub/",
)
_SHORT_FORMS = (
    "Dr. Smith met Mr. and Mrs. Jones at St. Mary's, e.g. on Mon., Oct. 5th.",
    "NASA, the FBI, the BBC and the WHO signed the MoU.",
    "Approx. 5 ft. 11 in., i.e. 180 cm.",
    "P.S. The CEO of ACME Inc. lives in Washington D.C., U.S.A.",
    "etc.",
    "Ph.D.",
    "vol. 3, pp. 12-19, ed. by A. B. Clark",
    "ASAP!",
    "RSVP a.s.a.p. c/o Gen. Lee, No. 7, Elm Ave.",
    "The USB, HDMI and VGA ports of the PC",
)
_ODD = (
    "Wait... what?!",
    "“Never,” she said, “never, never, never!”",
    "THIS WHOLE SENTENCE IS WRITTEN IN CAPITAL LETTERS, AND NOBODY KNOWS WHY.",
    "Apples; pears; plums; cherries; figs; dates; grapes; and one melon.",
    "a, b, c, d, e, f, g, h, i, j, k",
    "Shh, hush, psst, brr, hmm.",
    "Red (or was it blue?) - no, green - lamps [three of them] {all lit}.",
    "café, naïve, Zürich, São Paulo and Kraków",
    "He said yes yes yes yes yes yes yes yes yes yes yes yes yes yes.",
    "To be or not to be it is to be as it is if it is at all",
    "strengths lengths breadths twelfths scratched stretched screeched",
    "the the the the the the the the the the the the",
    "x = (a + b) / 2 * c ^ 3",
    "She sells seashells by the seashore; the shells she sells are surely seashells.",
    "hello_world and someCamelCaseName() are both fine.",
    "Hashtag #speech @everyone & co.",
)
_WHO = (
    "The old keeper",
    "A tired engineer",
    "My neighbour's cat",
    "Nobody in the village",
    "The choir",
    "Every second ship",
)
_DID = ("had forgotten", "was looking for", "quietly remembered", "never understood", "sold", "thoroughly photographed")
_WHAT = ("the little boat", "an extraordinarily complicated instrument", "three letters", "the road to the north", "it")
_MORE = (
    "before the storm came",
    "although everybody had warned against it",
    "and went home",
    "because the harbour administration's correspondence had been misunderstood for several decades",
    "in the end",
    "which is, as far as one can tell, the reason",
)


def sentences() -> list[str]:
    """The 500 texts, in an order that mixes their kinds."""
    dice = random.Random(1)
    texts = [*_WORDS, *_NUMBERS, *_ADDRESSES, *_SHORT_FORMS, *_ODD]
    texts += islice(_story(), 150)
    texts += [f"{text} {other}" for text, other in islice(_pairs(dice), 60)]
    while len(texts) < SENTENCES:
        made = f"{dice.choice(_WHO)} {dice.choice(_DID)} {dice.choice(_WHAT)}"
        for _ in range(dice.choice((0, 1, 1, 2, 4))):
            made += f", {dice.choice(_MORE)}"
        texts.append(f"{made}.")
    texts = [spoken_text(text) for text in texts]
    dice.shuffle(texts)
    return texts


def _story() -> Iterator[str]:
    story = STORY.read_text()
    for span in split_text(story, mode=ChunkingMode.SENTENCE, max_characters=400).spans:
        yield story[span.char_start : span.char_end]


def _pairs(dice: random.Random) -> Iterator[tuple[str, str]]:
    kinds = [*_NUMBERS, *_ADDRESSES, *_SHORT_FORMS, *_ODD]
    while True:
        yield dice.choice(kinds), dice.choice(kinds)


async def measure(_folder: Path, report: Report) -> None:
    """Speak, judge, report."""
    takes = await asyncio.to_thread(spoken, sentences())
    refused, experience = judged(takes, ROUNDS)
    report.row(f"good takes of {len(takes)} refused, in {ROUNDS} orders", refused, at_most=0)
    for long, texts in ((True, f"from {LONG_LETTERS} letters on"), (False, "shorter")):
        judgeable = [take for take in takes if _is_long(take[0]) is long]
        for share in (0.75, 0.6, 0.5, 0.4, 0.25):
            found = sum(is_short(experience, text, share * seconds) for text, seconds in judgeable)
            report.row(f"{share:.0%} of the sound, texts {texts}: refused", 100 * found / len(judgeable), " %")


def spoken(texts: list[str]) -> list[tuple[str, float]]:
    """The texts with the seconds of sound that the embedded engine makes of them; each passes the fixed checks."""
    engine = HibariEngine()
    clips = ((text, prepare_clip(wav_bytes(engine.speak(text)), "audio/wav", text)) for text in texts)
    return [(text, clip.size / SAMPLE_RATE_HZ) for text, clip in clips]


def judged(takes: list[tuple[str, float]], rounds: int) -> tuple[int, Experience]:
    """How many of the good takes the learnt pace refuses, in ``rounds`` orders, and what it has learnt by then."""
    experience, refused, dice = Experience(), 0, random.Random(2)
    for _ in range(rounds):
        for text, seconds in takes:
            if is_short(experience, text, seconds):
                refused += 1
            else:
                experience.spoken("voice", text, seconds)
        dice.shuffle(takes := list(takes))
    return refused, experience


def is_short(experience: Experience, text: str, seconds: float) -> bool:
    """What the take check asks."""
    return seconds < experience.shortest_seconds("voice", text, 1.0)


def _is_long(text: str) -> bool | None:
    """None for a text that is too short to be judged."""
    letters = letters_of(text)
    return None if letters < SHORTEST_JUDGED else letters >= LONG_LETTERS
