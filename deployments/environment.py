"""The environment that Ray's processes should have. ``make serve`` sets it; before ``ray start`` an operator does.

``python -m deployments.environment`` prints it for a shell: ``eval "$(python -m deployments.environment)"``.
"""

from collections.abc import Mapping

RAY_DEFAULTS = {
    # Dead job actors stay in the head's memory: 100,000 of them by default.
    "RAY_maximum_gcs_destroyed_actor_cached_count": "5000",
    # Ray runs its workers at niceness 15: whatever else computes on the machine, a speech server say, would come first.
    "RAY_worker_niceness": "0",
    # One thread a process: the parallelism is in the processes, and thread pools per core only fight.
    "OMP_NUM_THREADS": "1",
    # glibc keeps freed memory per thread: an engine replica held 800 MB where it needs 350.
    "MALLOC_ARENA_MAX": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Every line of the logs counts: Ray would merge those that look alike.
    "RAY_DEDUP_LOGS": "0",
    # Serve kills a proxy that has not answered within 5 s (at its start) or 10 s (later), three times in a row. On a
    # starved machine it then kills what is well, with all connections; one that hangs is replaced after two minutes.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    # The proxy reaches the replicas by gRPC (on a port that they have open anyway), not by calls of an actor with an
    # object for each message: 1.8 times the requests. An answer of the engine can be longer than gRPC's 4 MB.
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20),
    # One event loop a process, not a thread for the application: nothing here keeps a loop busy, and messages from
    # thread to thread cost a third of the requests that HAProxy could have answered.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.proxy:proxy_middlewares",
}


def missing(environ: Mapping[str, str]) -> list[str]:
    """Which of them are not set here. A node's processes have what was exported where its ``ray start`` was typed."""
    return sorted(RAY_DEFAULTS.keys() - environ.keys())


if __name__ == "__main__":
    for name, value in RAY_DEFAULTS.items():
        print(f"export {name}={value}")  # noqa: T201 - that is what it is for
