"""What befalls a cluster of several nodes: a node is lost, a node falls silent, the service is deployed anew.

``python -m tests.chaos nodes [ROW ...]`` prints one line each: ``lost``, ``silent``, ``deploy``, or ``lost=20`` for
twenty of them, in the order given; without rows twenty lost nodes, three silent ones and three deployments.
"""

import contextlib
import math
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import requests

from tests.chaos.faults import Strike, claimed_again, goes_on
from tests.chaos.stage import story, until
from tests.chaos.trial import HEAD, Report, Undisturbed, run
from tests.integration.ray_cluster import Cluster, Node, running_cluster

NODES = 3
JOBS, SENTENCES = 4, 48
DELAY_MS = 800
"""So long that a job runs for some seconds on the twelve calls at once that all jobs share."""

UPDATE_SENTENCES, UPDATE_DELAY_MS = 64, 4_000
"""Jobs of a minute and a half: a deployment takes some 30 s on two cores."""

LIMITS = {"spare_actors": JOBS}
"""All jobs begin at once: on a busy machine an actor takes ten seconds to start."""

RETENTION = {"retire_after_seconds": 120}
"""The actor of a job that has ended meanwhile still tells where the job ran."""

LOST_SECONDS = 60.0
"""An actor and a chunk worker have to start, both on what is left, and an actor that was just being started on the lost
node is waited for until Ray gives the node up."""

SILENT_SECONDS = 45.0
"""The jobs' rows stand still for 11 to 15 s until their actors are given up; then an actor and a chunk worker start.
Ray's health checks would take 65 s."""


class Reader(threading.Thread):
    """A client that asks for a job again and again, and counts what went wrong."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._stopped = threading.Event()
        self.reads = self.failures = 0
        self.longest_seconds = 0.0

    def run(self) -> None:
        well_at = time.monotonic()
        while not self._stopped.wait(0.1):
            self.reads += 1
            try:
                well = requests.get(self._url, timeout=20).status_code == 200
            except requests.RequestException:
                well = False
            self.failures += not well
            if well:
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - well_at)
                well_at = time.monotonic()

    def stop(self) -> str:
        """End it; what it saw, as a phrase."""
        self._stopped.set()
        self.join(30)
        return f"{self.failures} of {self.reads} reads failed, at most {self.longest_seconds:.1f} s between answers"


@contextlib.contextmanager
def _read_meanwhile(cluster: Cluster, strike_texts: dict[str, str], notes: list[str]) -> Iterator[None]:
    reader = Reader(f"{cluster.url}/v1/audio/speech/jobs/{next(iter(strike_texts))}")
    reader.start()
    try:
        yield
    finally:
        notes.append(reader.stop())


def config(cluster: Cluster) -> dict[str, Any]:
    """What is deployed before the faults."""
    return cluster.config(limits=LIMITS, retention=RETENTION)


def _jobs_under_way(cluster: Cluster, sentences: int = SENTENCES, delay_ms: int = DELAY_MS) -> dict[str, str]:
    """Running jobs, their actors and chunk workers on more than one node."""
    cluster.backend.set_faults(delay_ms=delay_ms)
    texts = {cluster.create(text): text for text in (story(n, sentences) for n in range(JOBS))}
    until(lambda: all(row.chunks_completed >= 3 for row in cluster.rows(list(texts))), "three chunks of each are done")
    places = cluster.places(list(texts))
    assert len(places) == JOBS, f"of {JOBS} actors only {len(places)} are on workers"
    assert len(set(places.values())) > 1, "all actors are on one node"
    assert set(cluster.at_work()) <= set(places.values()), "chunk workers are elsewhere than their jobs' actors"
    return texts


def _busiest(cluster: Cluster) -> tuple[Node, int]:
    """The worker with most running jobs, and how many those are."""
    (found,) = Counter(cluster.places([row.id for row in cluster.rows()]).values()).most_common(1)
    return found


def _all_go_on(cluster: Cluster, strike: Strike) -> bool:
    rows = cluster.rows(list(strike.texts))
    return all(strike.resumed(before, now) for before, now in zip(strike.before, rows, strict=True))


def lose_a_node(cluster: Cluster) -> Strike:
    """``kill -9`` of everything on the node with most jobs."""
    texts = _jobs_under_way(cluster)
    ids, notes = list(texts), list[str]()
    promised = [row.promised for row in cluster.rows(ids)]
    stored = cluster.clips(ids)
    node, jobs = _busiest(cluster)
    kills = len(node.family())
    cluster.lose(node)
    struck = time.monotonic()
    strike = Strike(texts, cluster.rows(ids), stored, kills, struck, goes_on, within_seconds=LOST_SECONDS)
    if promised != [row.promised for row in strike.before]:
        strike.extra.append("a deadline or a timeout moved")
    with _read_meanwhile(cluster, texts, notes):
        until(lambda: _all_go_on(cluster, strike), "all jobs go on")
        strike.resumed_at = time.monotonic()
        cluster.add_worker()  # in the place of the lost one
        until(lambda: not cluster.rows(), "all jobs have ended")
    strike.note = f"{jobs} of {len(ids)} jobs ran there; {notes[0]}"
    return strike


def silence_a_node(cluster: Cluster) -> Strike:
    """Everything on the node stands still, with open connections, until its jobs are done elsewhere; then it wakes.

    Ray may not have given it up by then: it goes on as a node, without the actors that were given up.
    """
    texts = _jobs_under_way(cluster)
    ids = list(texts)
    stored = cluster.clips(ids)
    node, jobs = _busiest(cluster)
    actors = {job_id: psutil.Process(pid) for job_id, pid in cluster.actors(ids).items()}
    there = [job_id for job_id, home in cluster.places(ids).items() if home is node]
    kills = node.signal(signal.SIGSTOP)
    struck = time.monotonic()
    strike = Strike(texts, cluster.rows(ids), stored, kills, struck, goes_on, within_seconds=SILENT_SECONDS)
    try:
        until(lambda: _all_go_on(cluster, strike), "all jobs go on", SILENT_SECONDS)
        strike.resumed_at = time.monotonic()
        until(lambda: not cluster.rows(), "all jobs have ended")
    finally:
        node.signal(signal.SIGCONT)
    ended = [row.version for row in cluster.rows(ids)]
    given_up = [actors[row.id] for row in strike.before if row.id in there and row.state == "in_progress"]
    until(lambda: not any(actor.is_running() for actor in given_up), "the actors that were given up are gone")
    if ended != [row.version for row in cluster.rows(ids)]:
        strike.extra.append("an actor of the woken node wrote to a job that had ended")
    if node in cluster.workers:
        cluster.lose(node)
    strike.note = f"{jobs} of {len(ids)} jobs ran there; {len(given_up)} actors were given up and are gone"
    return strike


def deploy_anew(cluster: Cluster) -> Strike:
    """``serve deploy`` of a changed configuration: the directory hands all running jobs over to the next one."""
    texts = _jobs_under_way(cluster, UPDATE_SENTENCES, UPDATE_DELAY_MS)
    ids, notes = list(texts), list[str]()
    before, stored = cluster.rows(ids), cluster.clips(ids)
    seconds_kept = RETENTION["retire_after_seconds"] + int(time.monotonic()) % 1_000
    changed = cluster.config(limits=LIMITS, retention={"retire_after_seconds": seconds_kept})
    with _read_meanwhile(cluster, texts, notes):
        seconds = cluster.deploy(changed, typed=True)
        up_at = time.monotonic()
        until(
            lambda: all(now.epoch > then.epoch for then, now in zip(before, cluster.rows(ids), strict=True)),
            "all jobs have moved",
        )
        cluster.backend.set_faults(delay_ms=100)
        until(lambda: not cluster.rows(), "all jobs have ended")
    strike = Strike(texts, before, stored, len(ids), up_at, claimed_again)
    moves = [now.epoch - then.epoch for then, now in zip(before, cluster.rows(ids), strict=True)]
    if any(move != 1 for move in moves):
        strike.extra.append(f"the jobs were claimed {moves} times")
    strike.note = f"new replicas served {seconds:.0f} s after the command; {notes[0]}"
    return strike


KINDS: dict[str, tuple[str, Callable[[Cluster], Strike], int]] = {
    "lost": ("node-lost", lose_a_node, 20),
    "silent": ("node-silent", silence_a_node, 3),
    "deploy": ("serve-deploy", deploy_anew, 3),
}
"""Name of the row, what happens, and how often if all is asked for."""


def main(rows: list[str]) -> int:
    """The rows on one cluster, then their sums; returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no cluster behind
    asked = [row.partition("=") for row in rows or [f"{kind}={times}" for kind, (*_, times) in KINDS.items()]]
    if unknown := [kind for kind, equal, times in asked if kind not in KINDS or bool(equal) != times.isdigit()]:
        print(f"error: no row {unknown[0]!r}; there are: {', '.join(KINDS)}, or KIND=TIMES", file=sys.stderr)
        return 2
    started = time.monotonic()
    reports: list[Report] = []
    with running_cluster(NODES) as cluster:
        cluster.deploy(config(cluster))
        undisturbed = Undisturbed(cluster)
        print(HEAD, flush=True)
        for kind in [kind for kind, _, times in asked for _ in range(int(times or 1))]:
            name, fault, _ = KINDS[kind]
            try:
                reports.append(run(name, fault, cluster, undisturbed))
            except Exception as error:  # noqa: BLE001 - what could not be staged is a failure, and the others go on
                reports.append(Report(name, problems=[f"{type(error).__name__}: {error}"]))
            print(reports[-1], flush=True)
            cluster.fill(NODES)
    for kind in dict.fromkeys(kind for kind, *_ in asked):
        print(_sum([report for report in reports if report.fault == KINDS[kind][0]]))
    failed = sum(bool(report.problems) for report in reports)
    print(f"{failed} failed; {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def _sum(reports: list[Report]) -> str:
    total = Report(f"{len(reports)} x {reports[0].fault}", equal=all(report.equal for report in reports))
    for report in reports:
        for figure in ("kills", "jobs", "lost", "twice", "again", "took_seconds"):
            setattr(total, figure, getattr(total, figure) + getattr(report, figure))
    resumed = sorted(report.resumed_seconds for report in reports if not math.isnan(report.resumed_seconds))
    if resumed:
        total.resumed_seconds = resumed[-1]
        total.note = f"went on after {resumed[len(resumed) // 2]:.1f} s (median), {resumed[-1]:.1f} s at most"
    return str(total)
