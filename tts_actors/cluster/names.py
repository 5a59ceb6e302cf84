"""Names that both sides of a Ray call must agree on."""

NAMESPACE = "tts"
"""Ray namespace of all actors; a job actor's name is its job id."""

DIRECTORY = "tts-directory"
"""Name of the one detached actor; everything else is its child."""
