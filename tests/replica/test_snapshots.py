"""What a replica does with a leader's snapshot."""

from __future__ import annotations

from raftkv.consensus.messages import Envelope, InstallSnapshot
from raftkv.consensus.types import GroupId, Index, SnapshotMeta
from tests.replica.harness import Cluster


def test_a_snapshot_that_comes_without_its_bytes_is_not_installed() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    follower = next(server for server in cluster.living if server is not leader)
    term, before = leader.replica.node.current_term, follower.replica.node.log.last_index
    message = InstallSnapshot(SnapshotMeta(Index(100), term, 5))
    follower.replica.step(Envelope(GroupId(0), leader.name, follower.name, term, message))
    assert follower.replica.take_ready().installed is None
    assert follower.replica.node.log.last_index == before
