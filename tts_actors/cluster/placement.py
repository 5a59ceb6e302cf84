"""Which node the next job actor goes to, once the cluster has more than one.

Left alone, Ray puts an actor that asks for no CPU on any node, the head included. Here they are spread evenly over the
nodes without the head: whatever runs out of memory on the head ends the whole cluster. A job's chunk workers are sent
where its actor is, so spreading the actors spreads the work.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOOK_AGAIN_SECONDS = 2.0
"""How long the list of nodes is used: it is a round trip to the head, an actor's start is half a CPU second."""

DISTRUST_SECONDS = 30.0
"""How long a node on which an actor was lost is passed over while there is another. Ray takes 15 s and longer to notice
that a node is gone, and waits so long for an actor that it has sent there."""

SILENT_SECONDS = 90.0
"""How long a node on which an actor fell silent is passed over. Ray's health checks take 65 s to give it up."""


@dataclass(frozen=True, slots=True)
class Node:
    """A live node as far as placement cares."""

    id: str
    head: bool


class Placement:
    """Counts the actors on each node. ``nodes`` lists the live ones (it may block), ``now`` gives seconds.

    Actors that wait for a job count like those that have one: the next jobs run in them, where they are. (If they did
    not count, all spares would gather on the node with the fewest jobs, and the next jobs with them.)
    """

    def __init__(self, nodes: Callable[[], Sequence[Node]], now: Callable[[], float] = time.monotonic) -> None:
        self._list_nodes = nodes
        self._now = now
        self._nodes: Sequence[Node] = ()
        self._looked_at = float("-inf")
        self._actors: Counter[str] = Counter()
        self._distrusted: dict[str, float] = {}
        self._silent: dict[str, float] = {}

    def take(self) -> str | None:
        """The node for one more actor, which counts there until :meth:`give_back`; None on a cluster of one node."""
        if self._now() - self._looked_at >= LOOK_AGAIN_SECONDS:
            self._nodes, self._looked_at = self._list_nodes(), self._now()
        if len(self._nodes) < 2:
            return None
        workers = [node.id for node in self._nodes if not node.head] or [node.id for node in self._nodes]
        trusted = [node for node in workers if self._now() >= self._distrusted.get(node, 0.0)]
        chosen = min(trusted or workers, key=lambda node: (self._actors[node], node))
        self._actors[chosen] += 1
        return chosen

    def give_back(self, node: str | None) -> None:
        """The actor is gone."""
        if node is not None:
            self._actors[node] -= 1
            if self._actors[node] <= 0:
                del self._actors[node]

    def distrust(self, node: str | None) -> None:
        """An actor there was lost without anybody having ended it: the node may be gone."""
        if node is not None:
            self._pass_over(node, DISTRUST_SECONDS)

    def silent(self, node: str | None) -> None:
        """An actor there does not answer, though nobody has ended it: the node may hang, or be cut off."""
        if node is not None:
            self._silent[node] = self._now()
            self._pass_over(node, SILENT_SECONDS)

    def fell_silent(self, node: str | None, within_seconds: float) -> bool:
        """Whether that was said of the node within the last so many seconds."""
        return node is not None and self._now() - self._silent.get(node, float("-inf")) < within_seconds

    def _pass_over(self, node: str, seconds: float) -> None:
        self._distrusted[node] = max(self._now() + seconds, self._distrusted.get(node, 0.0))
