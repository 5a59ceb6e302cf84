"""Looks at processes from outside (CPU, memory, descriptors), and ends those that a measurement left behind."""

import contextlib
import ctypes
import re
from collections import Counter
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
"""From ``linux/prctl.h``."""

ROLES = {
    "ServeReplica:tts:ingress": "ingress",
    "JobActor": "job actor",
    "_synthesize_slice": "chunk worker",
    "ray::IDLE": "chunk worker",  # a worker between two slices
    "PoolActor": "pool",
    "DirectoryActor": "directory",
    "ProxyActor": "proxy",
    "HAProxy": "proxy",
    "haproxy": "proxy",
    "ServeReplica:engine": "engine",
    "ServeReplica:peer": "peer",
    "raylet": "Ray itself",
    "gcs_server": "Ray itself",
}
"""What a process is, by a word of its title; the first that fits."""

GONE = (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError, PermissionError, FileNotFoundError)


def adopt_orphans() -> None:
    """Make every process that loses its parent below us our child, so that none can be lost sight of."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """Kill everything below this process."""
    for _ in range(10):
        children = psutil.Process().children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        _, alive = psutil.wait_procs(children, timeout=5)
        if not children and not alive:
            return


def family(pid: int) -> list[psutil.Process]:
    """The process and all below it."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_family(pid: int) -> None:
    """Kill the process and all below it."""
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def role(process: psutil.Process) -> str:
    """What the process is in the service."""
    try:
        title = " ".join(process.cmdline())
    except GONE:  # it ended meanwhile
        return "other"
    return next((name for word, name in ROLES.items() if word in title), "other")


def memory_mb(pid: int) -> float:
    """Proportional set size of the process and all below it: shared pages count once."""
    return sum(pss_mb(process) for process in family(pid))


def pss_mb(process: psutil.Process) -> float:
    """Proportional set size of one process."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{process.pid}/smaps_rollup").read_text(), re.MULTILINE)
    except GONE:
        return 0.0
    return int(found[1]) / 1_024 if found else 0.0


def cpu_seconds(pid: int) -> dict[tuple[int, str], float]:
    """CPU used so far, for each process with its role."""
    used = {}
    for process in family(pid):
        with contextlib.suppress(*GONE):
            times = process.cpu_times()
            used[process.pid, role(process)] = times.user + times.system
    return used


def cpu_by_role(before: dict[tuple[int, str], float], after: dict[tuple[int, str], float]) -> Counter[str]:
    """CPU seconds between two looks, by role. A process that took up another role counts for the new one."""
    earlier = {pid: used for (pid, _), used in before.items()}
    spent: Counter[str] = Counter()
    for (pid, name), used in after.items():
        spent[name] += used - earlier.get(pid, 0.0)
    return spent


def descriptors(pid: int) -> int:
    """Open file descriptors of the process and all below it."""
    total = 0
    for process in family(pid):
        with contextlib.suppress(*GONE):
            total += process.num_fds()
    return total
