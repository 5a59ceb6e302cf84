"""Pictures for ``docs/listening.md``: what seams and levels look like before and after, with the embedded engine.

    .venv/bin/python -m benchmarks.listening

Writes PNG files beside the page and prints the table in it. Everything goes through the package's own functions; the
same machine gives the same pictures.
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from deployments.local_tts import HibariEngine
from tts_actors.audio import Pcm, pause_samples, trim_and_fade
from tts_actors.audio.loudness import even_loudness, loudness_lufs
from tts_actors.models import SAMPLE_RATE_HZ, ChunkingMode
from tts_actors.text import split_text, spoken_text

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "listening"
TEXT = (
    "The keeper climbed the stairs, one hand on the rail, while the wind outside rose and fell. Nobody spoke. "
    "Was the lamp still burning?\n\nIn the morning the sea was calm again."
)
CHUNK_CHARACTERS = 60
QUIET = 10 ** (-12 / 20)
"""The second voice of the loudness picture: the same engine, 12 dB down."""

SILENT = 33
"""Below this 16-bit level (-60 dBFS) it is silent."""


def joined(takes: list[Pcm], pauses: list[int]) -> tuple[Pcm, list[int]]:
    """Takes one after the other, each with its pause behind it, and where each seam begins."""
    parts: list[Pcm] = []
    seams, at = [], 0
    for take, pause in zip(takes, pauses, strict=True):
        parts += [take, np.zeros(pause, np.int16)]
        seams.append(at + take.size)
        at += take.size + pause
    return np.concatenate(parts), seams[:-1]


def silence_ms(pcm: Pcm, at: int) -> float:
    """Length of the silence around a seam, milliseconds."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > SILENT)
    before, after = loud[loud < at].max(), loud[loud >= at].min()
    return float(after - before - 1) / SAMPLE_RATE_HZ * 1_000


def step(pcm: Pcm, at: int) -> int:
    """The largest jump from one sample to the next within 5 ms of a seam: a click is a large one."""
    near = pcm[max(0, at - 120) : at + 120].astype(np.int32)
    return int(np.abs(np.diff(near)).max())


def draw(name: str, title: str, rows: list[tuple[str, Pcm, list[int]]]) -> None:
    """Waveforms one above the other on one time scale, seams marked."""
    figure, axes = plt.subplots(len(rows), 1, sharex=True, figsize=(9, 1.9 * len(rows)), dpi=90)
    for axis, (label, pcm, seams) in zip(axes, rows, strict=True):
        axis.plot(np.arange(pcm.size)[::8] / SAMPLE_RATE_HZ, pcm[::8] / 32_768, linewidth=0.4, color="#205080")
        for seam in seams:
            axis.axvline(seam / SAMPLE_RATE_HZ, color="#c03020", linewidth=0.8, linestyle="--")
        axis.set_title(label, fontsize=9, loc="left")
        axis.set_ylim(-0.6, 0.6)
    axes[-1].set_xlabel("seconds")
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(PICTURES / f"{name}.png")
    plt.close(figure)


def main() -> None:
    """Speak, draw, print the table."""
    mpl.use("Agg")
    PICTURES.mkdir(exist_ok=True)
    engine = HibariEngine()
    spans = split_text(TEXT, mode=ChunkingMode.SENTENCE, max_characters=CHUNK_CHARACTERS).spans
    takes = [engine.speak(spoken_text(TEXT[span.char_start : span.char_end])) for span in spans]
    clips = [trim_and_fade(take) for take in takes]
    before, old_seams = joined(takes, [0] * len(takes))
    after, new_seams = joined(clips, [pause_samples(span.boundary) for span in spans])
    rows = [
        ("before: the engine's takes end to end", before, old_seams),
        ("after: the finished file", after, new_seams),
    ]
    draw("seams", "Seams between chunks (dashed)", rows)
    print("| seam behind | silence before | after | largest step before | after |\n|---|---|---|---|---|")
    for span, old, new in zip(spans, old_seams, new_seams, strict=False):
        figures = f"{silence_ms(before, old):.0f} ms | {silence_ms(after, new):.0f} ms"
        print(f"| {span.boundary.value} | {figures} | {step(before, old)} | {step(after, new)} |")
    mixed = [clip if index % 2 == 0 else (clip * QUIET).astype(np.int16) for index, clip in enumerate(clips)]
    even = [even_loudness(clip) for clip in mixed]
    pauses = [pause_samples(span.boundary) for span in spans]
    draw(
        "loudness",
        "Two voices, one 12 dB quieter than the other, chunk by chunk",
        [("loudness: off", *joined(mixed, pauses)), ("loudness: on (-23 LUFS each)", *joined(even, pauses))],
    )
    print("\n| chunk | off | on |\n|---|---|---|")
    for index, (first, second) in enumerate(zip(mixed, even, strict=True)):
        print(f"| {index} | {loudness_lufs(first):.1f} LUFS | {loudness_lufs(second):.1f} LUFS |")


if __name__ == "__main__":
    main()
