"""Writes, barriers and deadlines: what a replica does with what its clients ask."""

from __future__ import annotations

import pytest

from raftkv.consensus.messages import (
    AppendEntries,
    HeartbeatReply,
    Propose,
    ReadIndex,
)
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Limits
from raftkv.errors import NoQuorum, Outcome, ShuttingDown, TimedOut, TooManyRequests
from raftkv.kv.results import PutResult
from raftkv.waiting import ReplicaLimits
from tests.replica.harness import Cluster, Server


def revisions(cluster: Cluster) -> set[int]:
    return {server.machine.store.revision for server in cluster.living}


def test_a_write_is_answered_by_the_node_that_took_it_with_the_same_result_at_each() -> None:
    cluster = Cluster()
    cluster.elect()
    for revision, server in enumerate(cluster.living, start=1):
        server.put(b"k")
        cluster.settle()
        assert server.answer(b"k") == PutResult(revision, revision)
        assert server.machine.store.revision == revision, "answered when applied here, not before"
    cluster.advance(100)
    assert revisions(cluster) == {3}


@pytest.mark.parametrize("seed", range(20))
def test_a_write_that_waits_at_a_living_node_when_the_leader_dies_is_done_once(seed: int) -> None:
    cluster = Cluster(seed=seed)
    old = cluster.elect()
    survivors = cluster.followers
    for i in range(20):
        for server in survivors:
            server.put(b"%s-%d" % (server.name.encode(), i))
            server.turn()
        if i == seed % 20:  # some batches are committed, some appended, some still on their way
            for _ in range(cluster.random.randrange(100)):
                if cluster.queue:
                    envelope = cluster.queue.popleft()
                    cluster[envelope.receiver].replica.step(envelope)
                    cluster[envelope.receiver].turn()
            cluster.kill(old)
    cluster.advance(1000)
    for server in survivors:
        for i in range(20):
            result = server.answer(b"%s-%d" % (server.name.encode(), i))
            assert isinstance(result, PutResult)
            assert result.created, "applied twice"
    assert revisions(cluster) == {40}


def test_a_lost_forwarded_batch_is_handed_on_again_to_the_same_leader() -> None:
    cluster = Cluster()
    cluster.elect()
    follower = cluster.followers[0]
    cluster.drop = {Propose}
    follower.put(b"k")
    cluster.settle()
    cluster.drop = set()
    assert follower.answers == {}
    cluster.advance(500)
    assert follower.answer(b"k") == PutResult(1, 1)


def test_a_batch_that_was_answered_late_and_sent_twice_is_applied_once() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    follower = cluster.followers[0]
    follower.put(b"k")
    follower.turn()
    proposal = next(e for e in cluster.queue if isinstance(e.message, Propose))
    for _ in range(3):
        cluster.queue.append(proposal)
    cluster.settle()
    cluster.advance(100)
    assert follower.answer(b"k") == PutResult(1, 1)
    assert leader.machine.store.revision == 1


def test_a_batch_of_an_earlier_life_is_dropped() -> None:
    cluster = Cluster()
    cluster.elect()
    follower = cluster.followers[0]
    follower.put(b"old")
    follower.turn()
    late = next(e for e in cluster.queue if isinstance(e.message, Propose))
    cluster.kill(follower)
    cluster.settle()
    follower.start()
    cluster.advance(200)
    follower.put(b"new")
    cluster.settle()
    cluster.queue.append(late)
    cluster.advance(100)
    assert follower.machine.store.get(b"new") is not None
    assert all(server.machine.store.get(b"old") is None for server in cluster.living)


def minority(cluster: Cluster) -> Server:
    """Cut everyone off from everyone; the old leader."""
    leader = cluster.leader
    cluster.cut = set(cluster.membership.voters)
    return leader


def test_without_a_majority_a_write_at_a_follower_is_definitely_not_applied() -> None:
    cluster = Cluster()
    cluster.elect()
    follower = cluster.followers[0]
    minority(cluster)
    cluster.advance(1000)
    follower.put(b"k", timeout_ms=500)
    cluster.advance(600)
    error = follower.answer(b"k")
    assert isinstance(error, NoQuorum)
    assert error.outcome is Outcome.NOT_APPLIED


def test_without_a_majority_a_write_in_the_leaders_log_is_unknown() -> None:
    cluster = Cluster()
    cluster.elect()
    leader = minority(cluster)
    leader.put(b"k", timeout_ms=2000)
    cluster.advance(2100)
    error = leader.answer(b"k")
    assert isinstance(error, NoQuorum)
    assert error.outcome is Outcome.UNKNOWN
    assert error.retry_after_ms is None, "repeating it might do it twice"
    cluster.cut = set()
    cluster.advance(2000)
    assert cluster.leader.machine.store.revision <= 1, "it may be there now, but once"


def test_with_a_leader_that_does_not_decide_a_write_times_out_unknown() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.drop = {AppendEntries}
    leader.put(b"k", timeout_ms=200)
    cluster.advance(250)
    error = leader.answer(b"k")
    assert isinstance(error, TimedOut)
    assert error.outcome is Outcome.UNKNOWN


def test_one_late_command_leaves_the_results_of_its_batch_in_place() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.drop = {AppendEntries}
    leader.put(b"a", ticket="a")
    leader.put(b"b", ticket="b", timeout_ms=100)
    leader.put(b"c", ticket="c")
    cluster.advance(150)
    assert isinstance(leader.answer("b"), TimedOut)
    cluster.drop = set()
    cluster.advance(200)
    assert leader.answer("a") == PutResult(1, 1)
    assert leader.answer("c") == PutResult(3, 1)


def test_a_barrier_sees_what_was_acknowledged_before_it_at_every_node() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    for i, reader in enumerate(cluster.living):
        leader.put(b"k", b"%d" % i, ticket=f"w{i}")
        cluster.settle()
        reader.barrier(f"r{i}")
        cluster.settle()
        assert reader.answer(f"r{i}") is None
        item = reader.machine.store.get(b"k")
        assert item is not None
        assert item.value == b"%d" % i


def test_a_deposed_leader_answers_no_barrier() -> None:
    cluster = Cluster()
    old = cluster.elect()
    cluster.cut = {old.name}
    cluster.advance(1500)
    cluster.leader.put(b"k", b"new")
    cluster.settle()
    old.barrier("r", timeout_ms=100)
    old.turn()
    cluster.advance(200)
    error = old.answer("r")
    assert isinstance(error, NoQuorum)
    assert error.outcome is Outcome.NOT_APPLIED


def test_an_isolated_leader_that_does_not_know_it_yet_answers_no_barrier() -> None:
    cluster = Cluster()
    old = cluster.elect()
    cluster.cut = {old.name}
    old.barrier("r", timeout_ms=50)
    old.turn()
    assert isinstance(old.replica.node.role, Leader)
    cluster.advance(60)
    assert isinstance(old.answer("r"), NoQuorum)


def test_one_round_serves_all_barriers_that_wait() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.drop = {HeartbeatReply}
    leader.barrier("first")
    leader.turn()
    assert isinstance(leader.replica.node.role, Leader)
    first_round = leader.replica.node.role.round
    for i in range(100):
        leader.barrier(i)
        leader.turn()
    assert leader.replica.node.role.round == first_round, "the others wait for the next round"
    cluster.drop = set()
    cluster.advance(100)
    assert len(leader.answers) == 101


def test_a_lost_read_index_is_asked_again() -> None:
    cluster = Cluster()
    cluster.elect()
    follower = cluster.followers[0]
    cluster.drop = {ReadIndex}
    follower.barrier("r")
    cluster.settle()
    cluster.drop = set()
    cluster.advance(400)
    assert follower.answer("r") is None


def test_a_barrier_waits_through_an_election() -> None:
    cluster = Cluster()
    old = cluster.elect()
    survivor = cluster.followers[0]
    survivor.barrier("r")
    survivor.turn()
    cluster.kill(old)
    cluster.advance(1000)
    assert survivor.answer("r") is None


def test_too_many_waiting_requests_are_refused_at_once() -> None:
    cluster = Cluster(limits=ReplicaLimits(max_waiting_requests=2, max_waiting_bytes=1000))
    server = cluster["n1"]
    server.put(b"a")
    with pytest.raises(TooManyRequests):
        server.put(b"b", b"x" * 1000)
    server.put(b"c")
    with pytest.raises(TooManyRequests) as refused:
        server.put(b"d")
    assert refused.value.outcome is Outcome.NOT_APPLIED
    server.barrier("r1")
    server.barrier("r2")
    with pytest.raises(TooManyRequests):
        server.barrier("r3")


def test_at_the_end_everyone_is_told_what_is_true_for_them() -> None:
    cluster = Cluster(limits=ReplicaLimits(max_inflight_batches=1))
    leader = cluster.elect()
    cluster.drop = {AppendEntries, HeartbeatReply}
    leader.put(b"in the log")
    leader.turn()
    leader.put(b"not in the log")
    leader.barrier("read")
    leader.turn()
    told = dict(leader.replica.fail_all(ShuttingDown, "stopping"))
    assert {ticket: error.outcome for ticket, error in told.items()} == {
        b"in the log": Outcome.UNKNOWN,
        b"not in the log": Outcome.NOT_APPLIED,
        "read": Outcome.NOT_APPLIED,
    }


def test_a_restarted_node_replays_its_log() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    for i in range(100):
        leader.put(b"key%d" % i)
        cluster.settle()
    for server in list(cluster.living):
        cluster.kill(server)
    for server in cluster.servers.values():
        server.start()
    cluster.elect()
    cluster.leader.barrier("r")
    cluster.settle()
    cluster.advance(100)
    assert revisions(cluster) == {100}
    assert cluster.leader.answer("r") is None


def test_a_batch_that_is_stuck_holds_up_those_that_would_overgrow_the_session_table() -> None:
    cluster = Cluster(limits=ReplicaLimits(max_batch_span=3))
    cluster.elect()
    follower = cluster.followers[0]
    cluster.drop = {Propose}
    follower.put(b"stuck")
    cluster.settle()
    cluster.drop = set()
    for i in range(10):
        follower.put(b"%d" % i)
        cluster.settle()
    assert len(follower.answers) == 2, "the next two of the span"
    cluster.advance(500)
    assert len(follower.answers) == 11


def test_a_batch_that_a_full_leader_did_not_take_is_offered_again_also_by_the_leader_itself() -> None:
    cluster = Cluster(node_limits=Limits(max_unsettled_bytes=100))
    old = cluster.elect()
    cluster.drop = {AppendEntries}
    large = cluster.followers[0]
    large.put(b"large", b"x" * 200)  # it fills the old leader, and then itself, when it leads
    cluster.settle()
    for server in cluster.followers:
        server.put(b"small-" + server.name.encode())
        cluster.settle()
    cluster.kill(old)
    cluster.advance(200)
    cluster.drop = set()
    cluster.advance(2000)
    assert all(
        len(server.replica.waiting) and not server.replica.waiting["batches"] for server in cluster.living
    )
    assert revisions(cluster) == {3}


def test_a_batch_that_is_handed_on_again_waits_longer_each_time() -> None:
    """Where nothing commits, copies must not pile up in the leader's log."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.drop = {AppendEntries}
    before = leader.replica.node.log.last_index
    cluster.followers[0].put(b"k", timeout_ms=60_000)
    cluster.advance(10_000)
    assert leader.replica.node.log.last_index - before <= 6
    cluster.drop = set()
    cluster.advance(200)
    assert revisions(cluster) == {1}
