"""``python -m benchmarks [--haproxy] [NAME ...]``: run the named measurements, or all of them.

``--haproxy``: with Serve's HAProxy mode, in a network namespace of its own.
"""

import os
import subprocess
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

NAMESPACE = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]

names = sys.argv[1:]
if "--haproxy" in names:
    if subprocess.run([*NAMESPACE, "true"], check=False).returncode != 0:
        sys.exit(
            "error: HAProxy mode listens on all interfaces, so it is measured in a network namespace of its own, and "
            "this machine allows none (unshare --net, ip link)"
        )
    names.remove("--haproxy")
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    os.execvp(NAMESPACE[0], [*NAMESPACE, sys.executable, "-m", "benchmarks", *names])

for name in names or MEASUREMENTS:
    if name not in MEASUREMENTS:
        sys.exit(f"error: no measurement {name!r}; there are: {', '.join(MEASUREMENTS)}")
    print(name, flush=True)
    MEASUREMENTS[name]()
