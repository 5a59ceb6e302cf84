"""Job actors are spread over the nodes of a cluster, away from its head and from nodes that were lost."""

from collections import Counter

from tts_actors.cluster.placement import DISTRUST_SECONDS, LOOK_AGAIN_SECONDS, SILENT_SECONDS, Node, Placement

HEAD = Node("head", head=True)
WORKERS = [Node("a", head=False), Node("b", head=False), Node("c", head=False)]


class Cluster:
    """Nodes and a clock in a test's hands."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = list(nodes)
        self.now = 100.0
        self.placement = Placement(lambda: list(self.nodes), lambda: self.now)

    def take(self, count: int) -> list[str | None]:
        return [self.placement.take() for _ in range(count)]


def test_on_one_node_the_choice_is_left_to_ray() -> None:
    assert Cluster(HEAD).take(2) == [None, None]


def test_actors_are_spread_evenly_and_none_is_put_on_the_head() -> None:
    assert Counter(Cluster(HEAD, *WORKERS).take(9)) == {"a": 3, "b": 3, "c": 3}


def test_a_place_that_came_free_is_taken_first() -> None:
    cluster = Cluster(HEAD, *WORKERS)
    cluster.take(6)
    cluster.placement.give_back("b")
    assert cluster.take(1) == ["b"]


def test_a_node_on_which_an_actor_was_lost_is_passed_over_for_a_while() -> None:
    cluster = Cluster(HEAD, *WORKERS)
    cluster.placement.distrust("a")
    assert Counter(cluster.take(4)) == {"b": 2, "c": 2}
    cluster.now += DISTRUST_SECONDS
    assert cluster.take(1) == ["a"]


def test_if_every_node_has_lost_an_actor_they_are_used_all_the_same() -> None:
    cluster = Cluster(HEAD, *WORKERS[:2])
    for node in "ab":
        cluster.placement.distrust(node)
    assert Counter(cluster.take(4)) == {"a": 2, "b": 2}


def test_nodes_that_join_and_leave_are_noticed() -> None:
    cluster = Cluster(HEAD, WORKERS[0])
    assert cluster.take(2) == ["a", "a"]
    cluster.nodes = [HEAD, WORKERS[1]]
    cluster.now += LOOK_AGAIN_SECONDS
    assert cluster.take(2) == ["b", "b"]


def test_a_silent_node_is_passed_over_for_longer_than_ray_takes_to_give_it_up() -> None:
    cluster = Cluster(HEAD, *WORKERS)
    cluster.placement.silent("a")
    cluster.placement.distrust("a")  # the actors there are lost too, when they are ended
    cluster.now += 71
    assert Counter(cluster.take(4)) == {"b": 2, "c": 2}
    cluster.now += SILENT_SECONDS
    assert cluster.take(1) == ["a"]


def test_an_actor_that_was_being_started_on_a_node_that_fell_silent_can_be_told_from_later_ones() -> None:
    cluster = Cluster(HEAD, *WORKERS)
    cluster.now += 5
    cluster.placement.silent("a")
    cluster.now += 1
    assert cluster.placement.fell_silent("a", within_seconds=3)
    assert not cluster.placement.fell_silent("a", within_seconds=1)  # started afterwards: for want of another node
    assert not cluster.placement.fell_silent("b", within_seconds=3)
    assert not cluster.placement.fell_silent(None, within_seconds=3)
