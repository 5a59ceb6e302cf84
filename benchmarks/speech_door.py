"""OpenAI's door: how late the first byte of a long text is, what a short text costs, how many a second. [aims 3, 4]

The stub is asked directly in the same rounds: what differs is the service's.
"""

import itertools
import time
from statistics import median

from benchmarks.harness import Report, milliseconds, percentile, ratios, rounds, timed
from benchmarks.rates import rate
from benchmarks.service import CLIP_MS, REFILL_TWO_SECONDS, SENTENCE, Stage

DELAY_MS = 50
BURST = 5
"""One-chunk requests in a row, one after the other, in each round."""

LONG_BURST = 2
"""Long texts in a row in each round: as many as there are warm actors."""


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    stage.backend.set_faults(delay_ms=DELAY_MS, fixed_audio_ms=None)  # clips as long as their texts: chunks grow
    numbers, firsts = itertools.count(), []

    async def long() -> float:
        firsts.append([await _long(stage, next(numbers)) for _ in range(LONG_BURST)])
        await stage.rest(REFILL_TWO_SECONDS)
        return median(firsts[-1])

    try:
        direct = {"direct": lambda: _several(stage, _door(stage.backend.url))}
        found = await rounds(report.count(5), direct | {"long": long})
        _say_long(report, found, [first for burst in firsts[1:] for first in burst])
        # A median of five such small differences is by a third another one in the next run.
        found = await rounds(
            report.count(15),
            direct
            | {
                "nothing": lambda: _nothing(stage),
                "relay": lambda: _several(stage, _relay(stage)),
                "short": lambda: _several(stage, _door(stage.url)),
            },
        )
        _say_short(report, found)
        stage.backend.set_faults(delay_ms=0)
        speech = await rounds(
            report.count(5),
            {
                "nothing": lambda: rate(lambda: stage.get(f"{stage.peer}/nothing")),
                "relay": lambda: rate(lambda: _first_byte(stage, _relay(stage), SENTENCE)),
                "spoken": lambda: rate(lambda: _first_byte(stage, _door(stage.url), SENTENCE)),
            },
            warm=0,
        )
        report.row("empty deployment, 16 clients", speech["nothing"], "/s")
        report.row("a deployment that passes the call on, 16 clients", speech["relay"], "/s")
        report.row("its rate over the empty deployment's", ratios(speech["relay"], speech["nothing"]), "x")
        report.row("one-chunk speech, 16 clients", speech["spoken"], "/s")
        over = ratios(speech["spoken"], speech["nothing"])
        report.row("one-chunk speech: rate over the empty deployment's", over, "x", at_least=0.6, of=4)
    finally:
        stage.backend.set_faults(delay_ms=200, fixed_audio_ms=CLIP_MS)


def _say_long(report: Report, found: dict[str, list[float]], firsts: list[float]) -> None:
    direct = median(found["direct"])
    report.row("first sentence from the backend itself", milliseconds(found["direct"]), " ms")
    report.row("first byte of 40 sentences", milliseconds(found["long"]), " ms")
    late = [(value - other) * 1_000 for value, other in zip(found["long"], found["direct"], strict=True)]
    report.row("first byte later than directly, p50", late, " ms", at_most=40, of=3)
    report.row(
        f"first byte later than directly, p95 of {len(firsts)}",
        percentile(milliseconds(firsts), 95) - direct * 1_000,
        " ms",
        at_most=100,
        of=3,
    )


def _say_short(report: Report, found: dict[str, list[float]]) -> None:
    report.row("an empty deployment answers in", milliseconds(found["nothing"]), " ms")
    report.row("one-chunk speech", milliseconds(found["short"]), " ms")
    passed = [(value - other) * 1_000 for value, other in zip(found["relay"], found["direct"], strict=True)]
    report.row("a deployment that passes the call on: more than directly", passed, " ms")
    more = [(value - other) * 1_000 for value, other in zip(found["short"], found["direct"], strict=True)]
    report.row("one-chunk speech: more than directly, p50", more, " ms", at_most=5, of=4)


async def _several(stage: Stage, url: str) -> float:
    return median([await _first_byte(stage, url, SENTENCE) for _ in range(BURST)])


async def _nothing(stage: Stage) -> float:
    return median([await timed(stage.get(f"{stage.peer}/nothing")) for _ in range(BURST)])


async def _long(stage: Stage, number: int) -> float:
    return await _first_byte(stage, _door(stage.url), f"Round {number}. {SENTENCE * 39}")


def _door(url: str) -> str:
    return f"{url}/v1/audio/speech"


def _relay(stage: Stage) -> str:
    return f"{stage.peer}/relay?to={_door(stage.backend.url)}"


async def _first_byte(stage: Stage, url: str, text: str) -> float:
    """Seconds to the first byte of audio; the rest is read too."""
    body = {"model": "stub", "input": text, "voice": "tone", "response_format": "pcm"}
    started = time.perf_counter()
    async with stage.session.post(url, json=body) as response:
        assert response.status == 200, await response.text()
        await response.content.readany()
        first = time.perf_counter() - started
        await response.read()
    return first
