"""The timeout rule this project started from; the formula exists nowhere else.

It is applied in one place too: :func:`tts_actors.chunk_worker.call_backend_tts`, to each attempt.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeoutPolicy:
    """Time that one backend call may take, from the number of characters it has to speak.

    All values are milliseconds (``per_character_ms``: milliseconds per Unicode character). The defaults are the
    original orchestrator's: 5 s to get going, 35 ms a character up to 70 s, 5 s of margin, never above 75 s.
    """

    base_ms: int = 5_000
    per_character_ms: int = 35
    backend_cap_ms: int = 70_000
    margin_ms: int = 5_000
    cap_ms: int = 75_000

    def timeout_ms(self, character_count: int) -> int:
        """Milliseconds for a chunk of ``character_count`` characters; never shrinks as the count grows."""
        backend_ms = min(self.base_ms + self.per_character_ms * character_count, self.backend_cap_ms)
        return min(backend_ms + self.margin_ms, self.cap_ms)
