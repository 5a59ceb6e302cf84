"""The measuring itself: turns, verdicts, what is kept, and that the page says what the kept results say."""

import json
from pathlib import Path

import pytest

from benchmarks import harness, report
from benchmarks.harness import Report, percentile, rounds
from benchmarks.measurements import GROUPS, new_report


async def test_contenders_take_turns_and_the_order_is_turned_round() -> None:
    order: list[str] = []

    async def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = await rounds(2, {"a": lambda: turn("a"), "b": lambda: turn("b")}, warm=1)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert found == {"a": [3.0, 6.0], "b": [4.0, 5.0]}, "the warm round is thrown away"


async def test_a_contender_may_give_several_figures() -> None:
    async def turn() -> dict[str, float]:
        return {"first": 1.0, "last": 2.0}

    assert await rounds(1, {"job": turn}) == {"job.first": [1.0], "job.last": [2.0]}


def test_the_median_is_held_against_the_aim() -> None:
    found = Report("name", "title")
    assert found.row("fast", [1.0, 1.2, 9.0], "x", at_most=1.2).reached is True
    assert found.row("slow", [1.0, 1.3, 1.3], "x", at_most=1.2).reached is False
    assert found.row("rate", [0.5], "x", at_least=0.6).reached is False
    assert found.row("no aim", 3.0).reached is None
    assert found.rows[0].text() == "1.2x (1 to 9)"


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 95), percentile(values, 99), percentile([7.0], 95)) == (95.0, 99.0, 7.0)


def test_a_result_is_kept_with_its_circumstances_and_shown_in_both_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    for mode, value in (("", 1.5), ("haproxy", 1.3)):
        found = Report("forty_chunks", "Forty", mode, aims=[1])
        found.row("over the ideal", [value], "x", at_most=1.4)
        found.write()
    failed = Report("many_chunks", "Many", aims=[2], error="it broke")
    failed.write()
    kept = json.loads((tmp_path / "forty_chunks.haproxy.json").read_text())
    assert kept["machine"]["cores"]
    assert kept["versions"]["python"]
    assert kept["when"].endswith("UTC")
    page = report.render(report.load_results(tmp_path))
    assert "| over the ideal | 1.5x | 1.3x | at most 1.4x | **missed**; with HAProxy reached |" in page
    assert "`make bench BENCH=forty_chunks` (took 0 s and 0 s with HAProxy)" in page
    assert "| over the ideal | 1 | 1.5x | 1.3x | at most 1.4x |" in page, "with how many values the median is of"
    assert "many_chunks : it broke" in page


def test_every_measurement_says_what_it_is_and_every_aim_is_measured() -> None:
    names = [name for group in GROUPS.values() for name in group.names]
    reports = [new_report(name, "", quick=False) for name in names]
    assert all(found.title for found in reports)
    assert {aim for found in reports for aim in found.aims} == set(report.AIMS)


def test_the_page_says_what_the_kept_results_say() -> None:
    page = report.PAGE.read_text()
    assert report.render(report.load_results()) in page, "write it anew: python -m benchmarks report"
