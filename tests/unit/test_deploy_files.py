"""What is in ``deploy/`` fits the code: every metric that a dashboard or an alert names exists."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tts_actors import metrics
from tts_actors.metrics import ALL, Kind

DEPLOY = Path(__file__).parents[2] / "deploy"
SUFFIXES = {Kind.COUNTER: ("_total",), Kind.GAUGE: ("",), Kind.HISTOGRAM: ("_bucket", "_count", "_sum")}
EXPORTED = {f"ray_{metric.name}{suffix}" for metric in ALL for suffix in SUFFIXES[metric.kind]}


def _expressions() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "tts-actors.json").read_text())
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return shown + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_every_metric_that_is_shown_or_alerted_on_is_recorded() -> None:
    named = {name for expression in _expressions() for name in re.findall(r"\bray_tts_\w+", expression)}
    assert len(named) > 10
    assert named <= EXPORTED


def test_every_metric_that_is_recorded_is_in_the_dashboard_or_in_an_alert() -> None:
    shown = " ".join(_expressions())
    assert [metric.name for metric in ALL if not re.search(rf"\bray_{metric.name}(_|\b)", shown)] == []


def test_every_label_that_is_used_belongs_to_its_metric() -> None:
    labels = {f"ray_{metric.name}{suffix}": metric.labels for metric in ALL for suffix in SUFFIXES[metric.kind]}
    for expression in _expressions():
        for name, selector in re.findall(r"\b(ray_tts_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= set(labels[name]), expression


def test_no_label_can_hold_a_job_a_tenant_or_a_text() -> None:
    assert {label for metric in ALL for label in metric.labels} <= {
        "backend",
        "outcome",
        "state",
        "operation",
        "priority",
    }


def test_the_scrape_configuration_keeps_what_is_shown() -> None:
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    kept = re.compile(scrape["scrape_configs"][0]["metric_relabel_configs"][0]["regex"])
    assert all(kept.fullmatch(name) for name in EXPORTED)


def test_what_is_recorded_goes_to_the_recorder_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float, tuple[str, ...]]] = []
    monkeypatch.setattr(metrics, "_recorder", lambda metric, value, labels: seen.append((metric.name, value, labels)))
    metrics.record(metrics.JOBS_ENDED, 1, "completed")
    with pytest.raises(KeyError), metrics.timed(metrics.STORE, "job_read"):
        raise KeyError
    assert seen[0] == ("tts_jobs_ended", 1, ("completed",))
    assert seen[1][0] == "tts_store_seconds"
    assert seen[1][2] == ("job_read",)
