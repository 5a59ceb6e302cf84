"""The one way in which classes become Ray actors."""

from typing import Any, cast

import ray

MAX_CALLS = 10_000
"""Calls at once that an actor takes: everybody who waits for something is a call."""


def actor_class(cls: type, *, max_restarts: int) -> Any:
    """``cls`` as a Ray actor class: no CPU reserved (admission bounds the work), no task events (dead actors would
    fill the head node's memory). Ray's own types know neither option, hence ``Any``.
    """
    decorate = cast("Any", ray.remote)(
        num_cpus=0, max_restarts=max_restarts, max_concurrency=MAX_CALLS, enable_task_events=False
    )
    return decorate(cls)
