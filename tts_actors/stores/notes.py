"""What one operation may tell the one right behind it in the same transaction: keys of ``sa.Connection.info``.

Between the two nothing else has written, so what the first one knows need not be looked up by the second. Only SQLite's
transactions have more than one operation.
"""

BEFORE = "tts.before"
"""What the operation before has left; absent or None without one, or if it left nothing."""

AFTER = "tts.after"
"""Set at the end of an operation that succeeds."""
