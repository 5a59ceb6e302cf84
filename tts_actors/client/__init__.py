"""A client of the service: what programs and the command line use to make long texts speak.

It knows the HTTP contract and nothing of what is behind it. :class:`TtsClient` talks to a service by its URL,
:func:`open_job` reaches a job's actor through Ray.
"""

from typing import Any

from tts_actors.client.answers import Job, JobPage
from tts_actors.client.connection import ApiError, Unreachable
from tts_actors.client.service import SpeechOptions, TtsClient

__all__ = ["ApiError", "Job", "JobPage", "SpeechOptions", "TtsClient", "Unreachable", "open_job"]


def open_job(job_id: str) -> Any:
    """The handle of a job's actor, in a process that has joined the service's Ray cluster.

    A finished job whose actor has retired gets one again, for ``retention.retire_after_seconds``. Raises
    :class:`~tts_actors.errors.NotFound` when there is no such job, :class:`~tts_actors.errors.JobExpired` when its life
    is over, :class:`~tts_actors.errors.NotReady` while it waits in the queue, and
    :class:`~tts_actors.errors.ConfigError` when Ray is not connected. Ray is imported by this call, not before.
    """
    from tts_actors.cluster.open_job import open_job as open_with_ray

    return open_with_ray(job_id)
