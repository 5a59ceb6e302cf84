"""What Prometheus would see of a running service."""

import re
import time
from pathlib import Path

import requests

from tests.integration.service import Service
from tts_actors.metrics import ALL, Kind

SCRAPE_SECONDS = 60

UNCALLED_FOR = {"tts_jobs_recovered", "tts_hedges"}
"""What counts nothing while nobody dies and nobody is slow: Prometheus sees it from its first time on."""


def _scrape(service: Service) -> str:
    (port_file,) = Path(service.ray_option("--session_dir")).glob("metrics_export_port_*")
    port = port_file.read_text()
    return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text


def _exported(name: str, kind: Kind) -> str:
    return f"ray_{name}" + {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: "_count"}[kind]


def test_every_metric_is_exported_and_none_names_a_job(service: Service) -> None:
    job = service.create("The lamp is lit. [[fault:503*1]] The sea is calm tonight. Nobody sails.")
    assert service.job(job["id"], wait=60)["status"] == "completed"
    wanted = {_exported(metric.name, metric.kind) for metric in ALL if metric.name not in UNCALLED_FOR}
    give_up = time.monotonic() + SCRAPE_SECONDS
    while missing := {name for name in wanted if not re.search(rf"^{name}\b", _scrape(service), re.M)}:
        assert time.monotonic() < give_up, f"not exported: {missing}"
        time.sleep(1)  # Ray's workers report on a clock of their own
    scraped = _scrape(service)
    ours = [line for line in scraped.splitlines() if line.startswith("ray_tts_")]
    assert not any("job-" in line or job["id"] in line for line in ours)
    assert any('backend="fake"' in line and 'outcome="status"' in line for line in ours)
    assert any('backend="fake"' in line and 'outcome="ok"' in line for line in ours)
