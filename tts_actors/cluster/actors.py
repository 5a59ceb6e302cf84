"""The one way in which classes become Ray actors."""

from typing import Any, cast

import ray

MAX_CALLS = 10_000
"""Calls at once that an actor takes: everybody who waits for something is a call."""

HEAD_RESOURCE = "node:__internal_head__"
"""A resource that Ray gives to the head node alone."""


def actor_class(cls: type, *, max_restarts: int, on_head: bool = False) -> Any:
    """``cls`` as a Ray actor class: no CPU reserved (admission bounds the work), no task events (dead actors would
    fill the head node's memory). Ray's own types know neither option, hence ``Any``.

    ``on_head`` is for the few that everything hangs on: the cluster ends with its head anyway, so there they add no
    second node whose loss all jobs feel.
    """
    decorate = cast("Any", ray.remote)(
        num_cpus=0,
        resources={HEAD_RESOURCE: 0.001} if on_head else None,
        max_restarts=max_restarts,
        max_concurrency=MAX_CALLS,
        enable_task_events=False,
    )
    return decorate(cls)
