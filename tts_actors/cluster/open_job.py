"""A person's way to a job's actor: the handle behind ``ray.get_actor(job_id, namespace="tts")``, or words that help."""

from typing import Any

import ray

from tts_actors.cluster.names import DIRECTORY, NAMESPACE
from tts_actors.errors import ConfigError, NotFound


def open_job(job_id: str) -> Any:
    """The handle of the actor that carries ``job_id`` out; its methods are called with ``.remote()``.

    Raises :class:`ConfigError` if this process has not joined a Ray cluster (asking Ray for an actor would quietly
    start a second, empty one) and :class:`NotFound` if the job has no actor: it never existed, or it has retired.
    """
    if not ray.is_initialized():
        raise ConfigError("Ray is not connected: call ray.init(address=...) with the service's cluster first")
    try:
        if job_id == DIRECTORY:
            raise ValueError(job_id)
        return ray.get_actor(job_id, namespace=NAMESPACE)
    except ValueError:
        raise NotFound(
            "no actor has this job: it never existed, or it has ended and its actor has retired; "
            "tts_actors.client.TtsClient still reads its state and its audio",
            "job_id",
        ) from None
