"""How the splitter's time grows with the text: run it, read the last column, which should stay flat.

.venv/bin/python benchmarks/split_growth.py
"""

import time

from tts_actors.models import ChunkingMode
from tts_actors.text import split_text

SIZES = (10_000, 100_000, 1_000_000)
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


def _texts(size: int) -> dict[str, tuple[str, str]]:
    texts = {name: ((unit * (size // len(unit) + 1))[:size], language) for name, (unit, language) in KINDS.items()}
    texts["spaces between two words"] = ("word" + " " * (size - 8) + "word", "en")
    texts["carriage returns"] = (texts["carriage returns"][0] + "a", "en")
    return texts


def main() -> None:
    """Print characters, chunks, milliseconds and nanoseconds per character for every kind, mode and size."""
    print(f"{'kind':26} {'mode':16} {'characters':>10} {'chunks':>8} {'ms':>9} {'ns/char':>9}")
    for kind in _texts(1_000):
        for mode in (ChunkingMode.SENTENCE, ChunkingMode.CHARACTER_COUNT):
            for size in SIZES:
                text, language = _texts(size)[kind]
                began = time.perf_counter()
                split = split_text(text, mode=mode, max_characters=CAP, language=language)
                elapsed = time.perf_counter() - began
                counts = f"{len(text):>10} {len(split.spans):>8}"
                times = f"{elapsed * 1e3:>9.1f} {elapsed / len(text) * 1e9:>9.0f}"
                print(f"{kind:26} {mode.value:16} {counts} {times}", flush=True)


if __name__ == "__main__":
    main()
