"""The service on a real Ray cluster of a head and two workers, with PostgreSQL and S3: deployed, and hurt."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import nodes
from tests.chaos.trial import Undisturbed, run
from tests.integration.ray_cluster import Cluster, DeployFailed, running_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> Undisturbed:
    return Undisturbed(cluster)


@pytest.mark.long
def test_stores_on_one_node_are_refused_by_name(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(DeployFailed, match=r"store_url: SQLite cannot serve a Ray cluster of 3 nodes"):
        cluster.deploy(cluster.config(store_url=f"sqlite+aiosqlite:///{tmp_path}/jobs.db"))
    with pytest.raises(DeployFailed, match=r"clip_url: a directory cannot serve a Ray cluster of 3 nodes"):
        cluster.deploy(cluster.config(clip_url=f"file://{tmp_path}/clips"))


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_lost_node_loses_no_job_and_no_stored_chunk(cluster: Cluster, undisturbed: Undisturbed) -> None:
    cluster.deploy(nodes.config(cluster))
    report = run("node lost", nodes.lose_a_node, cluster, undisturbed)
    assert (report.problems, report.lost, report.twice, report.equal) == ([], 0, 0, True), report
