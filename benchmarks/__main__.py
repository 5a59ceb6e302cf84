"""``python -m benchmarks [NAME ...]``: make the named measurements, or all of them, and write the page anew.

``--quick`` is a trial with tiny sizes, kept below ``build/bench``; ``--haproxy`` only measures in Serve's HAProxy mode,
and ``--no-haproxy`` not at all. ``report`` writes ``docs/performance.md`` and its pictures from the kept results.

Every group runs in a process of its own, below which nothing stays alive when it has ended.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.harness import ROOT, NotPossible
from benchmarks.measurements import GROUPS, limit_seconds, names_of, new_report, run_group
from benchmarks.processes import adopt_orphans, end_children
from benchmarks.report import write_page

LOOPBACK_ONLY = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""HAProxy mode listens on all interfaces: here there is only one."""

STOP_SECONDS = 90.0


def main() -> int:
    """Exit status: 0 if everything that was asked for was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    known = [name for group in GROUPS.values() for name in group.names]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"report, or of: {', '.join(known)}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--haproxy", action="store_true")
    parser.add_argument("--no-haproxy", action="store_true")
    parser.add_argument("--in-group", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.names) - {*known, "report"}:
        parser.error(f"no measurement {', '.join(unknown)}; there are: {', '.join(known)}")
    signal.signal(signal.SIGTERM, _interrupt)
    if options.in_group:
        mode = "haproxy" if options.haproxy else ""
        return 0 if asyncio.run(run_group(GROUPS[options.in_group], options.names, mode, options.quick)) else 1
    if options.names == ["report"]:
        write_page()
        return 0
    modes = ["haproxy"] if options.haproxy else [""] if options.no_haproxy else ["", "haproxy"]
    failed = _measure_all(options.names, modes, options.quick)
    if not options.quick:
        write_page()
    print(f"failed: {', '.join(failed)}" if failed else "all measured", flush=True)
    return 1 if failed else 0


def _measure_all(names: Sequence[str], modes: Sequence[str], quick: bool) -> list[str]:
    """Group by group, whatever happens to one; returns what failed."""
    adopt_orphans()
    failed, took = [], {}
    started = time.monotonic()
    for mode in modes:
        for key, group in GROUPS.items():
            asked = [name for name in names_of(group, mode) if name in names or (not names and not group.extra)]
            if not asked:
                continue
            began = time.time()
            if not _measure(key, asked, mode, quick):
                failed.append(f"{key} {mode}".strip())
            took |= _seconds(asked, mode, quick, began)
    whole = time.monotonic() - started
    for name, seconds in took.items():
        print(f"{name:<30} {seconds:>6.0f} s", flush=True)
    print(f"{'starting and stopping':<30} {whole - sum(took.values()):>6.0f} s\ntook {whole:.0f} s", flush=True)
    return failed


def _seconds(names: Sequence[str], mode: str, quick: bool, since: float) -> dict[str, float]:
    """What each measurement took, as its result says."""
    reports = [new_report(name, mode, quick) for name in names]
    written = [report for report in reports if report.path.exists() and report.path.stat().st_mtime >= since]
    return {report.file_name: json.loads(report.path.read_text())["seconds"] for report in written}


def _measure(key: str, names: Sequence[str], mode: str, quick: bool) -> bool:
    command = [sys.executable, "-m", "benchmarks", "--in-group", key, *names]
    environment = dict(os.environ)
    if quick:
        command.append("--quick")
    if mode:
        try:
            _check_loopback_only()
        except NotPossible as error:
            print(f"{', '.join(names)} with HAProxy: not measured: {error}", flush=True)
            return True
        command = [*LOOPBACK_ONLY, *command, "--haproxy"]
        environment["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    since = time.time()
    try:
        status = process.wait(limit_seconds(names))
    except subprocess.TimeoutExpired:
        status = None
    finally:
        _end(process)
        end_children()
    for name in names:  # what the process had no time to say itself
        report = new_report(name, mode, quick)
        if not report.path.exists() or report.path.stat().st_mtime < since:
            report.error = "the measurement did not end" if status is None else f"it ended with status {status}"
            report.write()
    return status == 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _check_loopback_only() -> None:
    try:
        possible = subprocess.run([*LOOPBACK_ONLY, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        possible = False
    if not possible:
        raise NotPossible(
            "HAProxy mode listens on all interfaces; a network namespace is not to be had here (unshare, ip)"
        )


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
