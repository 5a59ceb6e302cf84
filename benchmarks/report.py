"""Writes ``docs/performance.md`` between its markers, and its pictures, from the results that are kept."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, ROOT, Row, number

PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "images"
BEGIN = "<!-- measured: written by `python -m benchmarks report`, do not edit -->"
END = "<!-- end of measured -->"

AIMS = {
    1: "40 chunks x 200 ms, POST to last chunk read",
    2: "2,000 chunks x 200 ms, 64 in flight",
    3: "First audio byte",
    4: "One-chunk speech request",
    5: "Accepting",
    6: "Finished chunks of 50 kB, 16 clients",
    7: "Churn of small jobs",
    8: "A 3,000-sentence job",
    9: "Growth",
    10: "Real engine, 100,000 characters",
    11: "CPU per chunk",
}
Result = dict[str, Any]


def write_page() -> None:
    """Put tables and pictures of all results into the page; its other sections stay as they are."""
    results = load_results()
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{render(results)}\n{END}{after}")
    for result in results:
        for curve in result["curves"]:
            _draw(curve)


def load_results(folder: Path = RESULTS) -> list[Result]:
    """All kept results, by their aims."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return sorted(results, key=lambda result: (min(result["aims"], default=99), result["name"], result["mode"]))


def render(results: Sequence[Result]) -> str:
    """The generated part of the page."""
    if not results:
        return "Nothing was measured yet: `make bench`.\n"
    parts = [_circumstances(results), _summary(results)]
    parts += [
        _section(name, [r for r in results if r["name"] == name]) for name in dict.fromkeys(r["name"] for r in results)
    ]
    return "\n".join(parts)


def _circumstances(results: Sequence[Result]) -> str:
    def several(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values)))

    machine = several(
        f"{m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB, {m['system']}" for m in (r["machine"] for r in results)
    )
    versions = several(", ".join(f"{name} {version}" for name, version in r["versions"].items()) for r in results)
    when = sorted(result["when"] for result in results)
    commits = several(result["commit"] for result in results)
    span = when[0] if when[0] == when[-1] else f"{when[0]} to {when[-1]}"
    return (
        f"Measured {span} at commit {commits} on {machine}; {versions}. Figures are medians of n values, mostly one a "
        "round, with their range in brackets; ratios are made round by round. The other column is Serve's HAProxy "
        "mode, in a network namespace that has only loopback.\n"
    )


def _summary(results: Sequence[Result]) -> str:
    lines = ["| | figure | measured | with HAProxy | aim | |", "|---|---|---|---|---|---|"]
    reached = total = 0
    for aim, subject in AIMS.items():
        for what, rows in _by_figure(result for result in results if aim in result["aims"]).items():
            first = next(iter(rows.values()))
            if first["aim"] and first.get("of", 0) in (0, aim):
                verdicts = [row["reached"] for row in rows.values()]
                total, reached = total + 1, reached + any(verdicts)
                words = {True: "reached", False: "**missed**"}
                said = words[rows[""]["reached"]] if "" in rows else "with HAProxy: " + words[verdicts[0]]
                if len(set(verdicts)) > 1:
                    said += "; with HAProxy " + words[rows["haproxy"]["reached"]]
                lines.append(f"| {aim}. {subject} | {what} | {_cell(rows)} | {first['aim']} | {said} |")
    failed = [f"{r['name']} {r['mode']}: {r['error']}".replace("|", "/") for r in results if r["error"]]
    lines += ["", f"{reached} of {total} aims are reached in at least one of the two modes."]
    lines += [f"\n**Not measured:** {'; '.join(failed)}"] if failed else []
    return "\n".join(lines) + "\n"


def _section(name: str, results: Sequence[Result]) -> str:
    took = " and ".join(f"{r['seconds']:.0f} s{' with HAProxy' * bool(r['mode'])}" for r in results)
    lines = [f"### {results[0]['title']}", "", f"`make bench BENCH={name}` (took {took})", ""]
    lines += ["| figure | n | measured | with HAProxy | aim |", "|---|---|---|---|---|"]
    lines += [
        f"| {what} | {_count(rows)} | {_cell(rows)} | {_aim(rows)} |" for what, rows in _by_figure(results).items()
    ]
    notes = dict.fromkeys(note for result in results for note in result["notes"])
    lines += [f"\n{note[0].upper()}{note[1:]}." for note in notes]
    lines += [f"\n![{c['title']}](images/bench_{c['picture']}.png)" for result in results for c in result["curves"]]
    return "\n".join(lines) + "\n"


def _by_figure(results: Iterable[Result]) -> dict[str, dict[str, Any]]:
    """Rows by what they are about, then by mode."""
    figures: dict[str, dict[str, Any]] = {}
    for result in results:
        for row in result["rows"]:
            figures.setdefault(row["what"], {})[result["mode"]] = row
    return figures


def _cell(rows: dict[str, Any]) -> str:
    return " | ".join(Row(**rows[mode]).text() if mode in rows else "" for mode in ("", "haproxy"))


def _count(rows: dict[str, Any]) -> str:
    """How many values the median is of; both counts if the two modes differ."""
    return " / ".join(dict.fromkeys(str(len(row["values"])) for row in rows.values()))


def _aim(rows: dict[str, Any]) -> str:
    return str(next(iter(rows.values()))["aim"])


def _draw(curve: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter

    figure, axis = plt.subplots(figsize=(7, 3.6), dpi=100)
    lines = curve["lines"]
    if any(isinstance(x, str) for points in lines.values() for x, _ in points):
        width = 0.8 / len(lines)
        for index, (name, points) in enumerate(lines.items()):
            axis.bar([place + index * width for place in range(len(points))], [y for _, y in points], width, label=name)
        names = [x for x, _ in next(iter(lines.values()))]
        axis.set_xticks([place + 0.4 - width / 2 for place in range(len(names))], names)
    else:
        for name, points in lines.items():
            axis.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x)))
    axis.set_ylim(bottom=0)
    axis.set_xlabel(curve["x_label"])
    axis.set_ylabel(curve["y_label"])
    axis.set_title(curve["title"], fontsize=10)
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    PICTURES.mkdir(exist_ok=True)
    figure.savefig(PICTURES / f"bench_{curve['picture']}.png", metadata={"Software": None})
    plt.close(figure)
