"""Hunting on disks of any speed: a new leader soon, and without a storm of terms."""

from __future__ import annotations

import pytest

from tests.consensus.harness import Cluster

STEP_MS = 0.5


def run_with_disks(cluster: Cluster, fsync_ms: float, deadline_ms: float, commit_index: int = 2) -> None:
    """Let time pass, every write taking ``fsync_ms``, until a leader has its no-op committed."""
    started: dict[str, float] = {}
    end_ms = cluster.now_ms + deadline_ms
    while not any(cluster.node(name).commit_index >= commit_index for name in cluster.leaders):
        assert cluster.now_ms < end_ms, "no leader in time"
        cluster.advance(STEP_MS)
        for link in sorted(cluster.links):
            for _ in range(len(cluster.links[link])):
                cluster.deliver(link)
        for server in cluster.living:
            name = server.node_id
            if not server.disk.queue:
                started.pop(name, None)
            elif cluster.now_ms - started.setdefault(name, cluster.now_ms) >= fsync_ms:
                del started[name]
                cluster.complete_write(name)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fsync_ms", [450.0, 700.0, 1000.0])
@pytest.mark.parametrize("size", [1, 3])
def test_a_disk_slower_than_the_election_timeout_still_elects(size: int, fsync_ms: float, seed: int) -> None:
    cluster = Cluster([f"n{i}" for i in range(1, size + 1)], seed=seed)
    for server in cluster.living:
        server.disk.slow = True
    run_with_disks(cluster, fsync_ms, deadline_ms=30_000, commit_index=1)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("fsync_ms", [0.5, 5.0, 20.0, 40.0])
@pytest.mark.parametrize("size", [3, 5])
def test_a_slow_disk_makes_no_storm_of_terms(size: int, fsync_ms: float, seed: int) -> None:
    """Two fsyncs make a leader and one more commits its no-op; a lost round costs about as much again."""
    cluster = Cluster([f"n{i}" for i in range(1, size + 1)], seed=seed)
    cluster.elect("n1")
    cluster.crash("n1")
    for server in cluster.living:
        server.disk.slow = True
    for server in cluster.living:
        cluster.peer_lost(server.node_id, "n1")
    run_with_disks(cluster, fsync_ms, deadline_ms=80 + 15 * fsync_ms)
    (leader,) = cluster.leaders
    assert cluster.node(leader).current_term <= 4
