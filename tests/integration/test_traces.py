"""A trace through the real processes: HTTP replica, directory, job actor, worker, and the backend."""

import json
import time
from typing import Any

import requests

from tests.integration.service import Service

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLERS_SPAN = "b7ad6b7169203331"
FLUSH_SECONDS = 30


def _spans(service: Service) -> list[dict[str, Any]]:
    written = (service.folder / "traces.jsonl").read_text()
    lines = written[: written.rfind("\n") + 1].splitlines()  # another process may be in the middle of one
    return [span for span in map(json.loads, lines) if span["context"]["trace_id"] == f"0x{TRACE_ID}"]


def _names(spans: list[dict[str, Any]]) -> set[str]:
    return {str(span["name"]) for span in spans}


def _orphans(spans: list[dict[str, Any]]) -> set[str]:
    """Names of spans whose parent is not there."""
    there = {span["context"]["span_id"] for span in spans} | {f"0x{CALLERS_SPAN}"}
    return {str(span["name"]) for span in spans if span["parent_id"] not in there}


def test_a_job_is_one_trace_over_all_processes(service: Service) -> None:
    answer = requests.post(
        f"{service.url}/v1/audio/speech/jobs",
        # Of a batch job the first chunk is a worker's too; any other's may be spoken by the door.
        json={"model": "fake-tts", "input": "The lamp is lit. The sea is calm tonight.", "priority": "batch"},
        headers={"traceparent": f"00-{TRACE_ID}-{CALLERS_SPAN}-01"},
        timeout=30,
    )
    assert service.job(answer.json()["id"], wait=60)["status"] == "completed"
    wanted = {"POST /v1/audio/speech/jobs", "tts.directory.start", "tts.job.run", "tts.chunk", "tts.backend.call"}
    give_up = time.monotonic() + FLUSH_SECONDS
    while lacking := (wanted - _names(_spans(service))) | _orphans(_spans(service)):
        assert time.monotonic() < give_up, f"not exported, or without what is above it: {lacking}"
        time.sleep(0.2)  # each process writes once a second
    spans = _spans(service)
    assert len({span["resource"]["attributes"]["process.pid"] for span in spans}) == 4
    made = {
        f"00-{TRACE_ID}-{span['context']['span_id'][2:]}-01" for span in spans if span["name"] == "tts.backend.call"
    }
    sent = {call["traceparent"] for call in service.backend.calls() if TRACE_ID in (call["traceparent"] or "")}
    assert sent
    assert sent == made
