"""How the splitter's time grows with the text, for prose and for texts made to be hard. [aim 9]"""

import time
from pathlib import Path

from benchmarks.harness import Curve, Report
from tts_actors.models import ChunkingMode
from tts_actors.text import split_text

SIZES = (10_000, 100_000)
CAP = 400
ENGLISH = (
    "The lighthouse had stood on the cliff for two hundred years. Nobody knew who had built it! "
    "Was it Mr. Smith, as they said; or was it someone else? "
)
CHINESE = "灯塔在悬崖上矗立了两百年。没有人知道是谁建造的！是史密斯先生吗，还是别人？"

KINDS = {
    "prose": (ENGLISH, "en"),
    "prose, paragraphs": (ENGLISH * 3 + "\n\n", "en"),
    "Chinese, one paragraph": (CHINESE, "zh"),
    "Chinese, no marks": ("灯塔在悬崖上", "zh"),
    "Thai": ("ประภาคารเก่าตั้งอยู่บนหน้าผา ", "th"),
    "aaaa": ("a", "en"),
    "dots": (".", "en"),
    "dashes": ("-", "en"),
    "opening quotes": ("“", "en"),
    "quote, full stop": ('". ', "en"),
    "one-letter paragraphs": ("a\n\n", "en"),
    "short lines": ("a.\n", "en"),
    "ellipses": ("A... ", "en"),
    "numbered": ("1. ", "en"),
    "emoji": ("👩‍👩‍👧", "en"),
    "combining marks": ("\u0301", "en"),
    "carriage returns": ("\r \n", "en"),
}
DRAWN = ("prose", "Chinese, one paragraph", "Thai", "one-letter paragraphs", "emoji", "spaces between two words")


async def measure(_folder: Path, report: Report) -> None:
    """Run and report."""
    sizes = (1_000, 10_000) if report.quick else SIZES
    lines: dict[str, list[tuple[float | str, float]]] = {}
    worst: tuple[float, str] = (0.0, "")
    for kind in _texts(1_000):
        for mode in (ChunkingMode.SENTENCE, ChunkingMode.CHARACTER_COUNT):
            took = [_nanoseconds(*_texts(size)[kind], mode) for size in sizes]
            worst = max(worst, (took[-1] / took[0], f"{kind}, {mode.value}"))
            if mode is ChunkingMode.SENTENCE and kind in DRAWN:
                lines[kind] = list(zip(sizes, took, strict=True))
    for size, took_ns in lines["prose"]:
        report.row(f"splitting prose of {size:,} characters, a character", took_ns, " ns")
    what = f"time a character, {sizes[-1]:,} over {sizes[0]:,} characters: the worst of {len(KINDS) + 1} kinds of text"
    report.row(what, worst[0], "x", at_most=2)
    report.note(f"the worst is: {worst[1]}")
    report.curves.append(Curve("growth_split", "Splitting", "characters", "ns a character", lines))


def _nanoseconds(text: str, language: str, mode: ChunkingMode) -> float:
    """CPU time, best of two: neither another process nor a pause of the machine is growth."""
    took = []
    for _ in range(2):
        began = time.process_time()
        split_text(text, mode=mode, max_characters=CAP, language=language)
        took.append(time.process_time() - began)
    return min(took) / len(text) * 1e9


def _texts(size: int) -> dict[str, tuple[str, str]]:
    texts = {name: ((unit * (size // len(unit) + 1))[:size], language) for name, (unit, language) in KINDS.items()}
    texts["spaces between two words"] = ("word" + " " * (size - 8) + "word", "en")
    texts["carriage returns"] = (texts["carriage returns"][0] + "a", "en")
    return texts
