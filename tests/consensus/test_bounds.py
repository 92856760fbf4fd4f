"""What a leader takes is bounded by its own disk, too: its followers may commit without it."""

from __future__ import annotations

from raftkv.consensus.types import Limits
from tests.consensus.harness import Cluster


def test_a_leader_whose_disk_hangs_takes_no_more_than_the_bound() -> None:
    cluster = Cluster(["n1", "n2", "n3"], limits=Limits(max_unsettled_bytes=100))
    cluster.elect("n1")
    cluster.servers["n1"].disk.slow = True
    for _ in range(2):
        assert cluster.propose("n1", b"x" * 60)
        cluster.settle()
    assert cluster.node("n1").commit_index == 3, "the others commit"
    assert not cluster.propose("n1", b"x")
    cluster.complete_write("n1")
    assert cluster.propose("n1", b"x"), "what its disk has got leaves room"
