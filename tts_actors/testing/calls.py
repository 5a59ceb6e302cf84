"""The fault-injecting server's memory: one record per call, and the counters that faults depend on."""

import time
from collections import Counter, deque
from typing import Any, TypedDict

from tts_actors.testing.faults import digest

MAX_RECORDS = 200_000
"""Oldest records are dropped beyond this, so that a benchmark of hours does not fill the memory."""


class CallRecord(TypedDict):
    """One speech call, as ``GET /_control/calls`` shows it. Times are milliseconds since the server started.

    ``text`` is None without ``log_text``. ``status`` is None while nothing was answered. ``completed``: every byte
    of the intended answer was handed to the socket. ``client_gone``: the client closed before that. ``traceparent``:
    that header.
    """

    seq: int
    protocol: str
    text_sha256: str
    characters: int
    text: str | None
    started_ms: float
    ended_ms: float | None
    status: int | None
    fault: str | None
    completed: bool
    client_gone: bool
    in_flight_at_start: int
    traceparent: str | None


class CallLog:
    """Records calls and counts what is in flight. Not thread-safe: one event loop owns it."""

    def __init__(self) -> None:
        self.records: deque[CallRecord] = deque(maxlen=MAX_RECORDS)
        self.in_flight = 0
        self.max_in_flight = 0
        self.polls = 0
        self._seq = 0
        self._call = 0
        self._attempts: Counter[str] = Counter()
        self._started = time.monotonic()

    def start(
        self, protocol: str, text: str, *, log_text: bool, traceparent: str | None = None
    ) -> tuple[CallRecord, int, int]:
        """Open a record; also the call's number and the text's attempt number since the last :meth:`recount`."""
        self._seq += 1
        self._call += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        key = digest(text)
        self._attempts[key] += 1
        record = CallRecord(
            seq=self._seq,
            protocol=protocol,
            text_sha256=key,
            characters=len(text),
            text=text if log_text else None,
            started_ms=self._now_ms(),
            ended_ms=None,
            status=None,
            fault=None,
            completed=False,
            client_gone=False,
            in_flight_at_start=self.in_flight,
            traceparent=traceparent,
        )
        self.records.append(record)
        return record, self._call, self._attempts[key]

    def end(self, record: CallRecord) -> None:
        """Close the record that :meth:`start` opened; exactly once a call, however it ended."""
        record["ended_ms"] = self._now_ms()
        self.in_flight -= 1

    def clear(self) -> None:
        """Forget the records and start ``max_in_flight`` again. ``seq`` and the counters of faults go on."""
        self.records.clear()
        self.max_in_flight = self.in_flight
        self.polls = 0

    def recount(self) -> None:
        """Start the counters of ``fail_first_n_calls`` and ``fail_times_per_text`` again."""
        self._call = 0
        self._attempts.clear()

    def stats(self) -> dict[str, Any]:
        """Totals over the records that are kept, and the two gauges."""
        return {
            "calls": len(self.records),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "completed": sum(record["completed"] for record in self.records),
            "client_gone": sum(record["client_gone"] for record in self.records),
            "polls": self.polls,
        }

    def _now_ms(self) -> float:
        return round((time.monotonic() - self._started) * 1_000, 3)
