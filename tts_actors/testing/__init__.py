"""Stand-ins for the outside world, shipped so that anybody can test against a speech server that misbehaves."""

from tts_actors.testing.calls import CallRecord
from tts_actors.testing.faults import NAMED_FAULTS, Faults, digest
from tts_actors.testing.process import FakeBackendProcess
from tts_actors.testing.server import FakeBackend, running_backend

__all__ = [
    "NAMED_FAULTS",
    "CallRecord",
    "FakeBackend",
    "FakeBackendProcess",
    "Faults",
    "digest",
    "running_backend",
]
