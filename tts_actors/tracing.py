"""Traces: one job is one trace, from the request through directory, actor and worker to each call of a backend.

Nothing is traced until a process hands in a :class:`Tracer` (``trace_export.py`` has OpenTelemetry's); until then a
span is one object that does nothing. Between processes a trace travels as W3C's ``traceparent``. Attributes name
routes, ids, backends and outcomes: never a text, a key or a server's own words, which may repeat the text.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol

Attribute = str | int | float | bool


class SpanKind(StrEnum):
    """Where a span stands: it answers somebody, calls somebody, or is our own work."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


class Span(Protocol):
    """A piece of work being timed."""

    def rename(self, name: str) -> None: ...

    def set(self, key: str, value: Attribute) -> None: ...

    def fail(self, kind: str) -> None:
        """The work did not succeed; ``kind`` is one of a few words, never a message."""


class Tracer(Protocol):
    """Makes spans; must be quick and must not raise."""

    def span(
        self, name: str, kind: SpanKind, parent: str | None, attributes: Mapping[str, Attribute]
    ) -> AbstractContextManager[Span]:
        """A span under ``parent`` (a traceparent) or, without one, under the present one."""

    def traceparent(self) -> str | None:
        """The present span as W3C writes it; None outside of all spans."""


class _NoSpan:
    """A span while nobody wants to know."""

    def __enter__(self) -> "_NoSpan":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was measured."""

    def rename(self, name: str) -> None: ...

    def set(self, key: str, value: Attribute) -> None: ...

    def fail(self, kind: str) -> None: ...


NO_SPAN = _NoSpan()
"""For what is never traced."""

_NOTHING: Mapping[str, Attribute] = {}
_tracer: Tracer | None = None


def trace_with(tracer: Tracer | None) -> None:
    """From now on this process traces with ``tracer``; None: not at all."""
    global _tracer
    _tracer = tracer


def span(
    name: str,
    attributes: Mapping[str, Attribute] = _NOTHING,
    *,
    parent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> AbstractContextManager[Span]:
    """A span that lasts as long as its ``with`` block; what is begun inside, tasks too, belongs under it."""
    return NO_SPAN if _tracer is None else _tracer.span(name, kind, parent, attributes)


def traceparent() -> str | None:
    """The present span, to be handed to another process; None if nothing is traced."""
    return None if _tracer is None else _tracer.traceparent()


def trace_headers() -> dict[str, str]:
    """What a request to another service carries so that its spans join this trace."""
    found = traceparent()
    return {} if found is None else {"traceparent": found}


def trace_id() -> str | None:
    """The present trace's id, for log lines."""
    found = traceparent()
    return None if found is None else found.split("-")[1]
