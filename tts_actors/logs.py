"""Structured logs: one JSON object a line on standard error, with job, request and trace ids.

Never with text, audio or keys.
"""

import logging
import sys
import traceback
from pathlib import Path

import structlog
from structlog.typing import EventDict

from tts_actors import tracing

PLACES = 4
"""Frames of a traceback that :func:`place_of` tells: the fault's own and who called it."""


def configure_logs(level: int = logging.INFO) -> None:
    """Set up this process; call it once where a process begins. Records below ``level`` cost next to nothing."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def place_of(error: BaseException) -> str:
    """Where an unforeseen error was raised, innermost frame last. Its message may hold a caller's text: not told."""
    frames = traceback.extract_tb(error.__traceback__)[-PLACES:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)


def _add_trace(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Which trace the line belongs to, while something is traced."""
    found = tracing.trace_id()
    if found is not None:
        event["trace_id"] = found
    return event
