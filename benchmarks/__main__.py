"""``python -m benchmarks [NAME ...]``: run the named measurements, or all of them."""

import sys

from benchmarks import flaky_backends, forty_chunks, long_job, many_chunks, speech_door, whole_book

MEASUREMENTS = {
    "flaky_backends": flaky_backends.main,
    "forty_chunks": forty_chunks.main,
    "long_job": long_job.main,
    "many_chunks": many_chunks.main,
    "speech_door": speech_door.main,
    "whole_book": whole_book.main,
}

for name in sys.argv[1:] or MEASUREMENTS:
    if name not in MEASUREMENTS:
        sys.exit(f"error: no measurement {name!r}; there are: {', '.join(MEASUREMENTS)}")
    print(name, flush=True)
    MEASUREMENTS[name]()
