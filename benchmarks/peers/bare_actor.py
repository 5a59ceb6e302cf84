"""A Ray actor that does nothing, in a module without Serve: importing that would make its start twice as dear."""

import ray


@ray.remote
class BareActor:
    """Named, async, one method."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def run(self) -> str:
        return self._name
