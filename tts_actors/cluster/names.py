"""Names and versions that both sides of a Ray call must agree on."""

from dataclasses import dataclass

NAMESPACE = "tts"
"""Ray namespace of all actors; a job actor's name is its job id."""

DIRECTORY = "tts-directory"
"""Name of the one detached actor; everything else is its child."""

AT_THE_DOOR = "door:"
"""What stands before a job's id where a door asks for its first chunk: when the job's worker has died, what this held
is taken back, and a door's call goes on."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a directory was made from: code and configuration, and when they were deployed (unix milliseconds)."""

    content: str
    deployed_at_ms: int

    def replaces(self, found: object) -> bool:
        """Whether the directory of this deployment takes the place of ``found``'s.

        During an update old replicas and new ones are up together: the old ones use the new directory, or the two would
        replace each other's for as long as both are there. Anything but a :class:`Version` is older code's.
        """
        if not isinstance(found, Version):
            return True
        return found.content != self.content and found.deployed_at_ms < self.deployed_at_ms
