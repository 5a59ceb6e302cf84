"""Traces over the real HTTP application: one job is one trace, down to what the backend is sent."""

import gzip
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from tests.unit.http_service import HttpService, http_service
from tts_actors import trace_export, tracing
from tts_actors.config import TracingArgs
from tts_actors.errors import BackendError, ConfigError
from tts_actors.logs import configure_logs
from tts_actors.trace_export import OtelTracer, check_tracing, export_traces

JOBS = "/v1/audio/speech/jobs"
TEXT = "The lamp is lit. The sea is calm tonight. Nobody sails."
KEY = "key-of-alice"
ANSWER_SECONDS = 90
CALLERS_TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLERS_SPAN = "b7ad6b7169203331"
HEADERS = {"Authorization": f"Bearer {KEY}", "traceparent": f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-01"}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.trace_with(OtelTracer(provider))
    yield exporter
    tracing.trace_with(None)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpService]:
    monkeypatch.setenv("TTS_API_KEYS", f"alice:{KEY}")
    with http_service(tmp_path) as running:
        yield running


def _create(service: HttpService, text: str = TEXT, **headers: str) -> dict[str, Any]:
    body = {"model": "fake-tts", "input": text, "chunking": {"mode": "sentence", "max_characters": 20}}
    answer = requests.post(service.url + JOBS, json=body, headers=HEADERS | headers, timeout=ANSWER_SECONDS)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def _wait(service: HttpService, job_id: str) -> dict[str, Any]:
    url = f"{service.url}{JOBS}/{job_id}?wait=60"
    return dict(requests.get(url, headers={"Authorization": f"Bearer {KEY}"}, timeout=ANSWER_SECONDS).json())


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + ANSWER_SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def _trace_id(span: ReadableSpan) -> str:
    return f"{span.get_span_context().trace_id:032x}"


def _named(exporter: InMemorySpanExporter, name: str, trace_id: str = CALLERS_TRACE) -> list[ReadableSpan]:
    return [s for s in exporter.get_finished_spans() if s.name == name and _trace_id(s) == trace_id]


def _all_named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def _parents(exporter: InMemorySpanExporter, span: ReadableSpan) -> list[str]:
    """Names from the span's parent up to the root."""
    by_id = {s.get_span_context().span_id: s for s in exporter.get_finished_spans()}
    names = []
    while span.parent is not None and span.parent.span_id in by_id:
        span = by_id[span.parent.span_id]
        names.append(span.name)
    return names


def test_one_job_is_one_trace_from_the_callers_request_to_each_backend_call(
    service: HttpService, spans: InMemorySpanExporter
) -> None:
    job = _create(service, TEXT.replace("calm", "calm [[fault:503*1]]"))
    assert _wait(service, job["id"])["status"] == "completed"
    (request,) = _named(spans, f"POST {JOBS}")
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == CALLERS_SPAN
    _until(lambda: bool(_named(spans, "tts.job.run")))  # it ends after the final row is written
    (run,) = _named(spans, "tts.job.run")
    assert (run.attributes or {})["tts.job.state"] == "completed"
    assert _named(spans, "tts.directory.start")
    calls = _named(spans, "tts.backend.call")
    assert len(calls) == job["chunks"]["total"] + 1, "one was repeated"
    for call in calls:
        assert _parents(spans, call) == ["tts.chunk", "tts.job.run", f"POST {JOBS}"]
    failed = [dict(call.attributes or {}) for call in calls if not call.status.is_ok]
    assert [(a["error.type"], a["http.response.status_code"]) for a in failed] == [("status", 503)]
    sent = {call["traceparent"] for call in service.backend.calls}
    assert sent == {f"00-{CALLERS_TRACE}-{call.get_span_context().span_id:016x}-01" for call in calls}


def test_a_job_that_loses_its_actor_goes_on_in_the_same_trace(
    service: HttpService, spans: InMemorySpanExporter
) -> None:
    job = _create(service, "The lamp [[delay:700]] is lit. The sea is calm.")
    _until(lambda: bool(service.backend.calls))
    service.loop.call_soon_threadsafe(service.parts.spawner.handles[job["id"]].kill)
    assert _wait(service, job["id"])["status"] == "completed"
    _until(lambda: len(_named(spans, "tts.job.run")) == 2)
    runs = _named(spans, "tts.job.run")
    assert [(run.attributes or {})["tts.job.activation"] for run in runs] == [1, 2]
    assert {_trace_id(call) for call in spans.get_finished_spans() if call.name == "tts.backend.call"} == {
        CALLERS_TRACE
    }


def test_speech_without_a_job_is_traced_too_and_without_a_caller_a_trace_begins_here(
    service: HttpService, spans: InMemorySpanExporter
) -> None:
    body = {"model": "fake-tts", "voice": "alloy", "input": "The lamp is lit.", "response_format": "wav"}
    for traceparent in ("nonsense", "00-0-0-00"):
        headers = {"Authorization": f"Bearer {KEY}", "traceparent": traceparent}
        url = f"{service.url}/v1/audio/speech"
        assert requests.post(url, json=body, headers=headers, timeout=ANSWER_SECONDS).status_code == 200
    _until(lambda: len(_all_named(spans, "POST /v1/audio/speech")) == 2)  # they end after the answer's last byte
    calls = _all_named(spans, "tts.backend.call")
    assert [_parents(spans, call) for call in calls] == [["tts.chunk", "POST /v1/audio/speech"]] * 2
    assert len({_trace_id(call) for call in calls}) == 2


def test_no_text_and_no_key_is_in_a_trace_and_health_checks_make_none(
    service: HttpService, spans: InMemorySpanExporter
) -> None:
    job = _create(service, "The lamp [[fault:400]] is lit.")
    assert _wait(service, job["id"])["status"] == "failed"
    for path in ("/health", "/readyz", "/"):
        assert requests.get(service.url + path, timeout=ANSWER_SECONDS).status_code == 200
    found = spans.get_finished_spans()
    asked = {span.name for span in found if span.kind is SpanKind.SERVER}
    assert f"POST {JOBS}" in asked
    assert not asked & {"GET", "GET /", "GET /health", "GET /readyz"}
    written = "".join(span.to_json() for span in found)
    assert "tts.backend.call" in written
    for word in ("lamp", "fault", KEY, "Bearer"):
        assert word not in written, word


def test_without_a_tracer_nothing_is_made_and_the_backend_is_sent_no_trace(service: HttpService) -> None:
    job = _create(service)
    assert _wait(service, job["id"])["status"] == "completed"
    assert {call["traceparent"] for call in service.backend.calls} == {None}
    assert tracing.span("tts.chunk") is tracing.NO_SPAN
    assert (tracing.traceparent(), tracing.trace_id(), tracing.trace_headers()) == (None, None, {})


def test_what_raises_marks_its_span_and_is_not_swallowed(spans: InMemorySpanExporter) -> None:
    with pytest.raises(BackendError), tracing.span("tts.backend.call"):
        raise BackendError("the text was: secret", "status", 500)
    (span,) = spans.get_finished_spans()
    assert dict(span.attributes or {}) == {"error.type": "status", "http.response.status_code": 500}
    assert "secret" not in span.to_json()


def test_a_log_line_names_its_trace(spans: InMemorySpanExporter, capfd: pytest.CaptureFixture[str]) -> None:
    structlog.reset_defaults()
    configure_logs()
    with tracing.span("tts.job.run", parent=HEADERS["traceparent"]):
        structlog.get_logger().info("job_claimed")
    structlog.get_logger().info("job_ended")
    structlog.reset_defaults()
    inside, outside = map(json.loads, capfd.readouterr().err.splitlines())
    assert inside["trace_id"] == CALLERS_TRACE
    assert "trace_id" not in outside


class _Collector(BaseHTTPRequestHandler):
    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


def test_without_the_extra_the_deployment_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"tts-actors\[traces\]"):
        check_tracing(TracingArgs(exporter="otlp"))


def test_traces_go_to_a_collector() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with HTTPServer(("127.0.0.1", 0), _Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        args = TracingArgs(exporter="otlp", endpoint=f"http://127.0.0.1:{collector.server_port}/v1/traces")
        check_tracing(args)
        provider = trace_export._provider(args)
        with OtelTracer(provider).span("tts.job.run", tracing.SpanKind.INTERNAL, HEADERS["traceparent"], {}):
            pass
        provider.shutdown()
        collector.shutdown()
    sent = ExportTraceServiceRequest.FromString(_Collector.bodies[0])
    (span,) = sent.resource_spans[0].scope_spans[0].spans
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("tts.job.run", CALLERS_TRACE, CALLERS_SPAN)


def test_traces_go_into_a_file_one_span_a_line(tmp_path: Path) -> None:
    args = TracingArgs(exporter="file", path=str(tmp_path / "deep" / "traces.jsonl"))
    check_tracing(args)
    provider = trace_export._provider(args)
    tracer = OtelTracer(provider)
    with (
        tracer.span("outer", tracing.SpanKind.SERVER, None, {}),
        tracer.span("inner", tracing.SpanKind.CLIENT, None, {"tts.backend": "a"}),
    ):
        pass
    provider.shutdown()
    inner, outer = map(json.loads, (tmp_path / "deep" / "traces.jsonl").read_text().splitlines())
    assert (inner["name"], outer["name"]) == ("inner", "outer")
    assert inner["parent_id"] == outer["context"]["span_id"]
    assert inner["resource"]["attributes"]["service.name"] == "tts-actors"


def test_a_process_traces_as_it_is_told_and_stops_when_told_so(tmp_path: Path) -> None:
    export_traces(TracingArgs())
    assert tracing.span("x") is tracing.NO_SPAN
    export_traces(TracingArgs(exporter="file", path=str(tmp_path / "traces.jsonl"), sample_ratio=0.0))
    with tracing.span("x") as span:
        span.set("kept", False)
    assert span is not tracing.NO_SPAN
    export_traces(TracingArgs())
    assert tracing.span("x") is tracing.NO_SPAN
    assert (tmp_path / "traces.jsonl").read_text() == ""


def test_traces_that_cannot_be_written_are_refused_when_the_service_is_deployed(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="needs a path"):
        TracingArgs(exporter="file")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"tracing\.path"):
        check_tracing(TracingArgs(exporter="file", path=str(tmp_path / "file" / "traces.jsonl")))
