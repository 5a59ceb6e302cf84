"""Clients that read slowly, or nothing, on the real service: what proxy and HTTP replica keep for them is bounded."""

import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import requests

from tests.integration.service import Service
from tests.unit.test_slow_readers import rest_of, stalled

READERS = 6
BOUND_BYTES = 8 * 2**20
"""For each of them; docs/api.md says so."""

ROUTES = ("format=pcm", "format=pcm&live=1")
STILL_SECONDS = 2.0
STILL_BYTES = 2**19


def _memory(service: Service) -> int:
    """Bytes of the proxy and the HTTP replica that no other process shares."""
    return sum(
        process.memory_full_info().uss
        for title in ("ProxyActor", "ServeReplica:tts:ingress")
        for process in service.processes(title)
    )


def _still(figure: Callable[[], int]) -> int:
    """The figure once it has not moved for a while."""
    last, since = figure(), time.monotonic()
    while time.monotonic() - since < STILL_SECONDS:
        time.sleep(0.1)  # the figure lies in other processes
        if abs((now := figure()) - last) > STILL_BYTES:
            last, since = now, time.monotonic()
    return last


@pytest.mark.long
def test_a_client_that_does_not_read_costs_no_more_memory_than_is_stated(service: Service) -> None:
    job = service.create("The lamp is lit. " * 1_200, chunking={"mode": "character_count"})
    assert service.job(job["id"], wait=60)["status"] == "completed"
    path = f"/v1/audio/speech/jobs/{job['id']}/audio?"
    for query in ROUTES:  # what is allocated once is there after this
        whole = requests.get(f"{service.url}{path}{query}", timeout=60).content
    assert len(whole) > 4 * BOUND_BYTES
    before = _still(lambda: _memory(service))
    with ExitStack() as clients:
        waiting = [clients.enter_context(stalled(service.url, path + ROUTES[n % 2])) for n in range(READERS)]
        assert _still(lambda: _memory(service)) - before <= READERS * BOUND_BYTES
        file, live = (rest_of(client) for client in waiting[:2])  # slow is not lost: the rest comes when it is read
    assert file.endswith(whole)
    assert live.endswith(b"\r\n0\r\n\r\n")
    assert len(live) > len(whole)
