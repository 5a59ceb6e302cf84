"""Where traces go: OpenTelemetry, to a collector (OTLP over HTTP) or into a file.

OpenTelemetry is imported only by a process that is told to trace.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from tts_actors import __version__, tracing
from tts_actors.config import TracingArgs
from tts_actors.errors import BackendError, ConfigError
from tts_actors.tracing import Attribute, SpanKind

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span

FLUSH_MS = 1_000
"""How long ended spans wait to be sent together. Actors are ended without a farewell: what waits then is lost."""

_exporting: TracingArgs | None = None


def export_traces(args: TracingArgs) -> None:
    """This process traces as configured from now on. Raises :class:`ConfigError` if it cannot."""
    global _exporting
    if args == _exporting or (args.exporter is None and _exporting is None):
        return
    _exporting = args
    tracing.trace_with(None if args.exporter is None else OtelTracer(_provider(args)))


def check_tracing(args: TracingArgs) -> None:
    """Raise :class:`ConfigError` if traces could not go where they are configured to go."""
    if args.exporter == "otlp":
        _otlp(args).shutdown()
    elif args.exporter == "file":
        _FileExporter(str(args.path)).shutdown()


def _provider(args: TracingArgs) -> "TracerProvider":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    resource = Resource.create(
        {"service.name": args.service_name, "service.version": __version__, "process.pid": os.getpid()}
    )
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(args.sample_ratio)), resource=resource)
    exporter = _otlp(args) if args.exporter == "otlp" else cast("SpanExporter", _FileExporter(str(args.path)))
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=FLUSH_MS))
    return provider


def _otlp(args: TracingArgs) -> "SpanExporter":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            "tracing.exporter: otlp needs the extra: pip install 'tts-actors[traces]'", "tracing.exporter"
        ) from error
    exporter: SpanExporter = OTLPSpanExporter(endpoint=args.endpoint)
    return exporter


class OtelTracer:
    """The :class:`~tts_actors.tracing.Tracer` on OpenTelemetry."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind as OtelKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("tts_actors", __version__)
        self._wire = TraceContextTextMapPropagator()
        self._no_context = Context()
        self._kinds = {kind: OtelKind[kind.name] for kind in SpanKind}

    @contextmanager
    def span(
        self, name: str, kind: SpanKind, parent: str | None, attributes: Mapping[str, Attribute]
    ) -> Iterator["_OtelSpan"]:
        context = None
        if parent is not None:  # one that cannot be read begins a trace of its own
            context = self._wire.extract({"traceparent": parent}, self._no_context)
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=self._kinds[kind],
            attributes=attributes,
            record_exception=False,  # its message may repeat what a server said
            set_status_on_exception=False,
        ) as span:
            made = _OtelSpan(span)
            try:
                yield made
            except BaseException as error:
                made.fail(error.kind if isinstance(error, BackendError) else type(error).__name__)
                if isinstance(error, BackendError) and error.status:
                    made.set("http.response.status_code", error.status)
                raise

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        self._wire.inject(carrier)
        return carrier.get("traceparent")


class _OtelSpan:
    def __init__(self, span: "Span") -> None:
        self._span = span
        self.rename = span.update_name
        self.set = span.set_attribute

    def fail(self, kind: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)


class _FileExporter:
    """One span a line, as JSON; many processes write to one file, so a batch is one write."""

    def __init__(self, path: str) -> None:
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        except OSError as error:
            reason = f"tracing.path: {path} cannot be written ({type(error).__name__})"
            raise ConfigError(reason, "tracing.path") from error

    def export(self, spans: Sequence["ReadableSpan"]) -> "SpanExportResult":
        from opentelemetry.sdk.trace.export import SpanExportResult

        lines = "".join(span.to_json(indent=None) + "\n" for span in spans)
        try:
            os.write(self._file, lines.encode())
        except OSError:  # a full disk: spans are lost, jobs are not
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        os.close(self._file)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Every batch is written at once."""
        return True
