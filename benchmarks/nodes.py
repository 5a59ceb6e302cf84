"""One, two and three worker nodes: throughput when the speech servers' limit grows with the nodes.

All nodes are on one machine, so what grows is what waits: each call takes a second, and a node has eight of them. The
machine's cores must not be the bound; their load is reported beside the figures.
"""

import asyncio
import time
from pathlib import Path

import psutil

from benchmarks.harness import Report
from tests.chaos.stage import until
from tests.integration.ray_cluster import Cluster, running_cluster

NODES = (1, 2, 3)
DELAY_MS, CLIP_MS = 1_000, 1_000
CALLS, JOBS, CHUNKS = 8, 2, 64
"""A node's: calls at once, jobs, and chunks of each job. The ideal is then 16 s whatever the number of nodes."""

SENTENCE = "This is one of the sentences of the text. "
REST_SECONDS, QUIET_PERCENT = 20.0, 25.0


async def measure(_folder: Path, report: Report) -> None:
    """Run and report."""
    await asyncio.to_thread(_measure, report)


def _measure(report: Report) -> None:
    rates: dict[int, list[float]] = {}
    with running_cluster(NODES[0]) as cluster:
        for nodes in NODES:
            cluster.fill(nodes)
            _deploy(cluster, nodes)
            _jobs(cluster, nodes, chunks=CALLS)  # so many processes have started and stay for the next
            rates[nodes] = []
            loads = []
            for _ in range(report.count(2, quick=1)):
                _rest()
                psutil.cpu_percent()
                rates[nodes].append(_jobs(cluster, nodes, report.count(CHUNKS, quick=CALLS)))
                loads.append(psutil.cpu_percent())
            name = f"{nodes} node{'s' if nodes > 1 else ''}, {nodes * CALLS} calls of 1 s at once"
            report.row(name, rates[nodes], " chunks/s")
            report.row(f"{name}: cores in use", loads, " %")
    for nodes in NODES[1:]:
        linear = [rate / (nodes * one) for rate, one in zip(rates[nodes], rates[1], strict=True)]
        report.row(f"{nodes} nodes over {nodes} times one node", linear, "x", at_least=0.9)


def _deploy(cluster: Cluster, nodes: int) -> None:
    document = cluster.config(limits={"spare_actors": nodes * JOBS, "max_active_jobs": nodes * JOBS})
    (backend,) = document["applications"][0]["args"]["backends"]
    backend |= {"max_concurrency": nodes * CALLS, "min_concurrency": nodes * CALLS}
    document["applications"][0]["deployments"][0]["num_replicas"] = 1
    cluster.backend.set_faults(delay_ms=DELAY_MS, fixed_audio_ms=CLIP_MS, log_text=False)
    cluster.deploy(document)


def _jobs(cluster: Cluster, nodes: int, chunks: int) -> float:
    """Chunks a second of so many jobs that begin together; their workers are on all nodes."""
    started = time.monotonic()
    ids = [cluster.create(SENTENCE * chunks) for _ in range(nodes * JOBS)]
    spread = 0
    while any(row.state != "completed" for row in cluster.rows(ids)):
        if spread < nodes:
            spread = len(cluster.at_work())
        time.sleep(0.05)
    seconds = time.monotonic() - started
    assert all(row.chunks_completed == chunks for row in cluster.rows(ids)), "a chunk is a sentence"
    assert spread == nodes or chunks == CALLS, f"chunk workers on {spread} of {nodes} nodes"
    return nodes * JOBS * chunks / seconds


def _rest() -> None:
    """Until the warm actors for the next jobs are there: seen by the machine having little to do."""
    time.sleep(2)
    give_up = time.monotonic() + REST_SECONDS
    until(lambda: psutil.cpu_percent(0.5) < QUIET_PERCENT or time.monotonic() > give_up, "the machine is quiet")
