"""Raft thesis, section 6.4: read-only queries by ReadIndex."""

from __future__ import annotations

import pytest

from raftkv.consensus.messages import Heartbeat, HeartbeatReply, ReadIndex, ReadIndexReply
from raftkv.consensus.ready import ReadGrant
from raftkv.consensus.types import Index, Limits
from tests.consensus.harness import Cluster
from tests.consensus.single import Single, messages


def leading(size: int = 3) -> Single:
    """A leader whose no-op (index 1) is committed."""
    single = Single(size)
    single.lead()
    for peer in single.peers:
        single.acknowledge(peer, 1)
    return single


def reads(single: Single) -> list[ReadGrant]:
    """What the last turn granted."""
    return list(single.ready.reads)


def ask(single: Single, read_id: int) -> int:
    """Register a read; returns the number of the round that was begun for it (0: none)."""
    assert single.node.read(read_id)
    rounds = {m.round for m in messages(single.end_turn(), Heartbeat) if isinstance(m, Heartbeat)}
    return max(rounds, default=0)


@pytest.mark.parametrize(("size", "answers"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (7, 3)])
def test_a_majority_must_confirm_after_the_read_arrived(size: int, answers: int) -> None:
    """The leader issues a new round of heartbeats and waits for acknowledgments from a majority."""
    single = leading(size) if size > 1 else Single(1)
    if size == 1:
        single.time_out()
    number = ask(single, 7)
    for peer in single.peers[:answers]:
        assert reads(single) == []
        single.receive(peer, HeartbeatReply(number))
    assert reads(single) == [ReadGrant(7, Index(1))]


def test_answers_to_an_earlier_round_confirm_nothing() -> None:
    """R3: late or repeated answers to what was sent before the read arrived."""
    single = leading()
    single.wait(50)
    number = ask(single, 7)
    for _ in range(2):
        for peer in single.peers:
            single.receive(peer, HeartbeatReply(number - 1))
    assert reads(single) == []
    single.receive("n2", HeartbeatReply(number))
    assert reads(single) == [ReadGrant(7, Index(1))]


def test_a_round_serves_only_the_reads_that_came_before_it() -> None:
    single = leading()
    first = ask(single, 1)
    assert ask(single, 2) == 0, "one round at a time"
    assert ask(single, 3) == 0
    sent = single.receive("n2", HeartbeatReply(first))
    assert reads(single) == [ReadGrant(1, Index(1))]
    second = max(m.round for m in messages(sent, Heartbeat) if isinstance(m, Heartbeat))
    assert second > first
    single.receive("n3", HeartbeatReply(first))
    assert reads(single) == []
    single.receive("n3", HeartbeatReply(second))
    assert reads(single) == [ReadGrant(2, Index(1)), ReadGrant(3, Index(1))]


def test_the_read_index_is_the_commit_index_when_the_round_began() -> None:
    """It saves its current commit index in readIndex, the lower bound of the state the query runs against."""
    single = leading()
    single.node.propose([b"a"])
    number = ask(single, 7)
    single.acknowledge("n2", 2)
    single.receive("n2", HeartbeatReply(number))
    assert reads(single) == [ReadGrant(7, Index(1))]


def test_a_new_leader_waits_for_its_no_op() -> None:
    """If the leader has not yet marked an entry from its current term committed, it waits until it has."""
    single = Single(log=[1, 1])
    single.lead()
    assert ask(single, 7) == 0
    single.receive("n2", HeartbeatReply(single.leader_role.round))
    assert reads(single) == []
    sent = single.acknowledge("n2", 3)
    (request,) = messages(sent, Heartbeat, "n2")
    assert isinstance(request, Heartbeat)
    single.receive("n2", HeartbeatReply(request.round))
    assert reads(single) == [ReadGrant(7, Index(3))]


def test_a_leader_that_steps_down_forgets_its_reads() -> None:
    single = leading()
    number = ask(single, 7)
    single.receive("n3", HeartbeatReply(0), term=9)
    single.receive("n2", HeartbeatReply(number))
    assert reads(single) == []


def test_confirmed_reads_are_freed() -> None:
    single = leading()
    number = ask(single, 7)
    single.receive("n2", HeartbeatReply(number))
    assert single.leader_role.reads_open is None
    assert single.leader_role.reads_waiting == []
    single.receive("n2", HeartbeatReply(number))
    assert reads(single) == []


def test_followers_ask_the_leader() -> None:
    """Followers can serve reads: they ask the leader for a readIndex, and wait until they have applied it."""
    single = leading()
    sent = single.receive("n3", ReadIndex(55))
    number = max(m.round for m in messages(sent, Heartbeat) if isinstance(m, Heartbeat))
    sent = single.receive("n2", HeartbeatReply(number))
    assert messages(sent, ReadIndexReply, "n3") == [ReadIndexReply(55, Index(1))]
    follower = Single()
    follower.receive("n2", Heartbeat(Index(0), Index(0), 1), term=1)
    assert follower.node.read(9)
    assert messages(follower.end_turn(), ReadIndex, "n2") == [ReadIndex(9)]
    follower.receive("n2", ReadIndexReply(9, Index(4)))
    assert reads(follower) == [ReadGrant(9, Index(4))]


def test_a_follower_answers_a_round_once() -> None:
    single = Single()
    for number, answered in [(1, True), (1, False), (2, True), (1, False)]:
        sent = single.receive("n2", Heartbeat(Index(0), Index(0), number), term=1)
        assert bool(sent) is answered


def test_waiting_reads_are_bounded() -> None:
    single = Single(limits=Limits(max_waiting_reads=2))
    single.lead()
    assert [single.node.read(i) for i in range(3)] == [True, True, False]


def test_a_minority_leader_grants_nothing() -> None:
    cluster = Cluster([f"n{i}" for i in range(1, 6)])
    cluster.elect("n1")
    for name in ("n3", "n4", "n5"):
        cluster.isolate(name)
    cluster.read("n1", 1)
    cluster.run(2000)
    assert cluster.checks.granted == set()
    assert cluster.leaders == []
    assert not cluster.read("n1", 2)
