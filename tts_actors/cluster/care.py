"""An operator's way into the running service, through Ray."""

import logging
import socket
from typing import Any, cast

import ray
from ray.exceptions import RayError

from tts_actors.cluster.names import DIRECTORY, NAMESPACE
from tts_actors.errors import ConfigError, DirectoryUnavailable

ANSWER_SECONDS = 60.0
"""A sweep starts at most some hundred jobs, each in its own time: it answers long before."""

CONNECT_SECONDS = 5.0


def _reach(address: str) -> None:
    """Raise :class:`ConfigError` at once if nobody listens at ``HOST:PORT``: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(f"no Ray can be reached at {address} ({type(error).__name__})", "address") from error


def sweep_now(address: str) -> dict[str, int]:
    """Have the directory sweep once; returns how many actors there are afterwards, by what they do.

    Raises :class:`ConfigError` if there is no Ray at ``address`` and :class:`DirectoryUnavailable` if no service runs
    there; so do the others here.
    """
    return _told(address, ANSWER_SECONDS, "sweep")


def drain(address: str, grace_seconds: float) -> dict[str, int]:
    """Have the service take no new work; returns once its running jobs have ended or, after the grace, are put back."""
    return _told(address, grace_seconds + ANSWER_SECONDS, "drain", grace_seconds)


def undrain(address: str) -> dict[str, int]:
    """Have the service take new work again and go on with what was put back."""
    return _told(address, ANSWER_SECONDS, "undrain")


def _told(address: str, timeout_seconds: float, method: str, *arguments: object) -> dict[str, int]:
    """The directory's answer, from a process that joins the cluster for this one call."""
    _reach(address)
    try:
        ray.init(address=address, namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray can be reached at {address} ({type(error).__name__})", "address") from error
    try:
        directory: Any = ray.get_actor(DIRECTORY, namespace=NAMESPACE)
        answer = getattr(directory, method).remote(*arguments)
        return dict(cast("dict[str, int]", ray.get(answer, timeout=timeout_seconds)))
    except (ValueError, RayError) as error:
        reason = f"the service's directory does not answer ({type(error).__name__})"
        raise DirectoryUnavailable(reason, 2.0) from error
    finally:
        ray.shutdown()
