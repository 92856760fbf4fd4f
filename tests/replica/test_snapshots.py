"""What a replica does with snapshots: its own, and a leader's."""

from __future__ import annotations

import pytest

from raftkv.consensus import Log, Node
from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.messages import Envelope, InstallSnapshot
from raftkv.consensus.types import GroupId, Index, Membership, NodeId, SnapshotMeta
from raftkv.errors import Outcome, RaftkvError
from tests.replica.harness import Cluster, Server, feed


def elected_with_one_behind() -> tuple[Cluster, Server, Server]:
    """A leader with a snapshot and no log before it, and a follower that heard of nothing since the start."""
    cluster = Cluster()
    leader = cluster.elect()
    behind = cluster.followers[0]
    cluster.cut.add(behind.name)
    for number in range(5):
        leader.put(b"key%d" % number)
        cluster.settle()
    cluster.advance(200)  # all is settled
    leader.take_snapshot()
    assert leader.replica.node.log.boundary.index == leader.replica.last_applied
    return cluster, leader, behind


def test_a_snapshot_that_comes_without_its_bytes_is_not_installed() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    follower = next(server for server in cluster.living if server is not leader)
    term, before = leader.replica.node.current_term, follower.replica.node.log.last_index
    message = InstallSnapshot(SnapshotMeta(Index(100), term, 5), cluster.membership)
    follower.replica.step(Envelope(GroupId(0), leader.name, follower.name, term, message))
    assert follower.replica.take_ready().installed is None
    assert follower.replica.node.log.last_index == before


def test_one_that_is_behind_gets_a_snapshot_and_then_entries() -> None:
    cluster, leader, behind = elected_with_one_behind()
    cluster.cut.clear()
    cluster.advance(200)
    assert cluster.snapshots_due == [(leader.name, behind.name)]
    behind.receive_snapshot(leader)
    leader.put(b"after")
    cluster.advance(200)
    assert behind.replica.last_applied == leader.replica.last_applied
    assert list(behind.machine.export()) == list(leader.machine.export())
    assert len(behind.machine.store) == 6


def test_a_snapshot_that_is_not_needed_any_more_changes_nothing() -> None:
    cluster, leader, behind = elected_with_one_behind()
    cluster.cut.clear()
    cluster.advance(200)
    behind.receive_snapshot(leader)
    leader.put(b"after")
    cluster.advance(200)
    behind.receive_snapshot(leader)  # a second one on its way, of the same position
    assert behind.replica.last_applied == leader.replica.last_applied
    assert list(behind.machine.export()) == list(leader.machine.export())


def test_a_write_that_comes_back_within_a_snapshot_is_answered_as_unknown() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    writer = cluster.followers[0]
    writer.put(b"mine")
    writer.turn()
    cluster.cut.add(writer.name)  # what it sent is on its way; it hears nothing
    cluster.settle()
    cluster.advance(200)
    assert leader.machine.store.mod_revision(b"mine") > 0
    leader.take_snapshot()
    cluster.cut.clear()
    cluster.advance(200)
    writer.receive_snapshot(leader)
    cluster.advance(2000)
    answer = writer.answer(b"mine")
    assert isinstance(answer, RaftkvError)
    assert answer.outcome is Outcome.UNKNOWN
    assert not any(writer.replica.waiting.values())
    assert writer.machine.store.get(b"mine").version == 1  # type: ignore[union-attr]


def test_a_restart_begins_with_the_snapshot_and_applies_what_follows() -> None:
    cluster, leader, _ = elected_with_one_behind()
    leader.put(b"after")
    cluster.advance(200)
    cluster.kill(leader)
    covered = leader.snapshot[0].index
    leader.start()
    assert leader.replica.last_applied == covered
    assert len(leader.machine.store) == 5
    cluster.cut.clear()
    cluster.advance(3000)
    assert len(leader.machine.store) == 6


def test_a_log_that_keeps_entries_for_slow_followers_is_not_applied_twice() -> None:
    cluster = Cluster(1)
    leader = cluster.elect()
    for _ in range(5):
        leader.put(b"key", ticket=object())
        cluster.settle()
    meta, chunks = leader.replica.capture()
    leader.snapshot = meta, tuple(chunks)  # and the log is whole
    cluster.kill(leader)
    leader.start()
    cluster.advance(2000)
    assert leader.machine.store.get(b"key").version == 5  # type: ignore[union-attr]


def test_a_machine_that_the_log_does_not_join_is_refused() -> None:
    with pytest.raises(InvariantBroken, match="doesn't join"):
        Node(
            NodeId("n1"),
            Membership.of("n1"),
            uniform=lambda a, b: a,
            now_ms=0,
            log=Log(),
            applied=Index(3),
        )


def test_only_the_snapshot_that_came_is_installed() -> None:
    _, leader, behind = elected_with_one_behind()
    meta, chunks = leader.snapshot
    restoring = feed(behind.replica.restorer(), chunks)
    term, membership = leader.replica.node.current_term, behind.cluster.membership
    behind.replica.install(leader.name, term, meta, membership, restoring)
    ready = behind.replica.take_ready()
    assert ready.installed == meta
    behind.replica.apply(ready)
    assert behind.replica.last_applied == meta.index
    with pytest.raises(InvariantBroken, match="never came"):
        behind.replica.apply(ready)


def test_another_one_that_comes_in_the_same_turn_does_not_take_its_place() -> None:
    _, leader, behind = elected_with_one_behind()
    meta, chunks = leader.snapshot
    term, members = leader.replica.node.current_term, leader.replica.node.membership
    behind.replica.install(leader.name, term, meta, members, feed(behind.replica.restorer(), chunks))
    earlier = SnapshotMeta(Index(meta.index - 1), meta.term, meta.time_ms)
    behind.replica.install(leader.name, term, earlier, members, behind.replica.restorer())
    behind.replica.install(leader.name, term, meta, members, behind.replica.restorer())
    behind.replica.apply(behind.replica.take_ready())
    assert behind.replica.last_applied == meta.index
    assert list(behind.machine.export()) == list(leader.machine.export())
