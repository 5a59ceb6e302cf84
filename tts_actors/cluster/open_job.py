"""A person's way to a job's actor: ``ray.get_actor(job_id, namespace="tts")`` for a job that may have retired."""

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from tts_actors.cluster.calls import RESTART_SECONDS
from tts_actors.cluster.names import DIRECTORY, NAMESPACE
from tts_actors.errors import ConfigError, DirectoryUnavailable, NotFound, TtsError

REVIVE_SECONDS = 90.0
"""How long the start of an actor is waited for: a second as a rule, many on a busy machine."""


def open_job(job_id: str) -> Any:
    """The handle of the job's actor; its methods are called with ``.remote()``. A retired job gets its actor again.

    A revived actor stays for ``retention.retire_after_seconds``; open the job again after that.

    Raises :class:`ConfigError` if this process has not joined a Ray cluster (asking Ray for an actor would quietly
    start a second, empty one), :class:`NotFound` if there is no such job, :class:`JobExpired` if its life is over,
    :class:`NotReady` while it waits in the queue, and :class:`DirectoryUnavailable` if the service does not answer.
    """
    if not ray.is_initialized():
        raise ConfigError("Ray is not connected: call ray.init(address=...) with the service's cluster first")
    if job_id == DIRECTORY:
        raise NotFound("there is no such job", "job_id")
    try:
        return ray.get_actor(job_id, namespace=NAMESPACE)
    except ValueError:
        _revive(job_id)
    try:
        return ray.get_actor(job_id, namespace=NAMESPACE)
    except ValueError as error:
        raise DirectoryUnavailable("the job's actor has gone again", RESTART_SECONDS) from error


def _revive(job_id: str) -> None:
    try:
        directory = ray.get_actor(DIRECTORY, namespace=NAMESPACE)
        ray.get(directory.revive.remote(job_id), timeout=REVIVE_SECONDS)
    except RayTaskError as error:
        if isinstance(error.cause, TtsError):
            raise error.cause from None
        raise
    except (ValueError, GetTimeoutError, RayActorError) as error:
        raise DirectoryUnavailable("no service answers in this cluster", RESTART_SECONDS) from error
