"""Raft thesis: PreVote (9.6), CheckQuorum (6.2), loyalty to a live leader (4.2.3); our hunting."""

from __future__ import annotations

import pytest

from raftkv.consensus.messages import Heartbeat, HeartbeatReply, PreVote, PreVoteReply, RequestVote
from raftkv.consensus.roles import Candidate, Follower, Leader, PreCandidate
from raftkv.consensus.types import Index, NodeId, Term, Timing
from tests.consensus.harness import Cluster
from tests.consensus.single import Single, messages


def hearing(single: Single, leader: str = "n2") -> Single:
    single.receive(leader, Heartbeat(Index(0), Index(0), 1), term=1)
    return single


def test_a_pre_vote_changes_nobodys_term_or_vote() -> None:
    """9.6: a candidate only increments its term if it first learns that a majority would vote for it."""
    asker = Single(term=3)
    sent = asker.time_out()
    assert {each.term for each in sent} == {3}
    assert messages(sent, PreVote, "n2") == [PreVote(Term(4), Index(0), Term(0))]
    assert (asker.node.current_term, asker.ready.write) == (3, None)
    voter = Single(term=3)
    voter.receive("n2", PreVote(Term(4), Index(0), Term(0)), term=3)
    assert (voter.node.current_term, voter.node.voted_for, voter.ready.write) == (3, None, None)


@pytest.mark.parametrize(
    ("size", "granted", "role"),
    [
        (1, 0, Leader),
        (3, 0, PreCandidate),
        (3, 1, Candidate),
        (5, 1, PreCandidate),
        (5, 2, Candidate),
        (7, 2, PreCandidate),
        (7, 3, Candidate),
    ],
)
def test_a_majority_of_pre_votes_is_needed(size: int, granted: int, role: type) -> None:
    single = Single(size)
    single.time_out()
    for peer in single.peers[:granted]:
        single.grant_pre_vote(peer)
    assert isinstance(single.node.role, role)


@pytest.mark.parametrize(
    ("next_term", "last_index", "last_term", "granted"),
    [
        (4, 2, 2, True),
        (4, 3, 2, True),
        (4, 1, 3, True),
        (4, 1, 2, False),  # it misses an entry
        (4, 9, 1, False),  # an older last term
        (3, 9, 9, False),  # not beyond our term
    ],
)
def test_a_pre_vote_is_granted_like_a_vote(
    next_term: int, last_index: int, last_term: int, granted: bool
) -> None:
    single = Single(log=[1, 2], term=3, vote="n3")
    sent = single.receive("n2", PreVote(Term(next_term), Index(last_index), Term(last_term)), term=3)
    assert messages(sent, PreVoteReply) == [PreVoteReply(Term(next_term), granted)]


def test_pre_votes_may_be_granted_to_several() -> None:
    single = Single()
    for asker in ("n2", "n3"):
        sent = single.receive(asker, PreVote(Term(1), Index(0), Term(0)), term=0)
        assert messages(sent, PreVoteReply) == [PreVoteReply(Term(1), granted=True)]


def test_stale_pre_vote_answers_are_not_counted() -> None:
    """They name the term that they are about."""
    single = Single(term=3)
    single.time_out()
    single.receive("n2", PreVoteReply(Term(3), granted=True))
    assert isinstance(single.node.role, PreCandidate)
    single.receive("n2", PreVoteReply(Term(4), granted=True))
    assert isinstance(single.node.role, Candidate)


def test_a_pre_vote_is_no_vote() -> None:
    """Late PreVote answers don't count in the election that follows."""
    single = Single(5)
    single.stand()
    for peer in single.peers:
        single.receive(peer, PreVoteReply(Term(1), granted=True))
        single.receive(peer, PreVoteReply(Term(2), granted=True))
    assert isinstance(single.node.role, Candidate)


def test_a_grant_outlives_a_later_refusal_and_counts_once() -> None:
    single = Single(5)
    single.time_out()
    for granted in (True, False, True):
        single.receive("n2", PreVoteReply(Term(1), granted=granted))
    assert isinstance(single.node.role, PreCandidate)
    single.receive("n3", PreVoteReply(Term(1), granted=True))
    assert isinstance(single.node.role, Candidate)


def test_a_pre_candidate_behind_learns_the_term_from_a_refusal() -> None:
    """E8: it must not ask about a past term for ever."""
    voter = Single(term=7)
    (refusal,) = voter.receive("n2", PreVote(Term(4), Index(0), Term(0)), term=3)
    assert refusal.term == 7
    asker = Single(term=3)
    asker.time_out()
    asker.receive("n2", refusal.message, term=7)
    assert asker.node.current_term == 7
    assert isinstance(asker.node.role, Follower)


@pytest.mark.parametrize(("after_ms", "loyal"), [(0, True), (299, True), (300, False)])
def test_a_voter_that_heard_its_leader_lately_helps_nobody_to_depose_it(after_ms: int, loyal: bool) -> None:
    """4.2.3: within the minimum election timeout it neither grants nor takes over the term."""
    single = hearing(Single())
    single.node.tick(single.now_ms + after_ms)
    sent = single.receive("n3", PreVote(Term(2), Index(0), Term(0)), term=1)
    assert messages(sent, PreVoteReply) == [PreVoteReply(Term(2), granted=not loyal)]
    sent = single.receive("n3", RequestVote(Index(0), Term(0)), term=2)
    assert bool(sent) is not loyal
    assert (single.node.current_term, single.node.voted_for) == ((1, None) if loyal else (2, "n3"))


def test_a_leader_with_a_majority_is_not_deposed_by_a_vote_request() -> None:
    single = Single()
    single.lead()
    assert single.receive("n3", RequestVote(Index(9), Term(9)), term=8) == []
    assert single.node.current_term == 1


def test_a_leader_without_a_majority_steps_down() -> None:
    """6.2: a leader steps down if an election timeout elapses without a successful round of heartbeats."""
    for size, answering, leads in [(3, 0, False), (3, 1, True), (5, 1, False), (5, 2, True), (7, 2, False)]:
        single = Single(size)
        single.lead()
        for _ in range(7):
            single.wait(50)
            for peer in single.peers[:answering]:
                if isinstance(single.node.role, Leader):
                    single.receive(peer, HeartbeatReply(0))
        assert isinstance(single.node.role, Leader) is leads, f"{answering} of {size}"
        assert single.node.current_term == 1
        assert single.node.propose([b"a"]) is leads


def test_a_partitioned_node_does_not_disturb_when_it_comes_back() -> None:
    """9.6: PreVote solves the issue of a partitioned server disrupting the cluster when it rejoins."""
    cluster = Cluster(["n1", "n2", "n3"])
    cluster.elect("n1")
    cluster.isolate("n3")
    cluster.run(5000)
    assert cluster.node("n3").current_term == 1
    cluster.propose("n1", b"a")
    cluster.run(100)
    cluster.heal()
    cluster.run(2000)
    assert cluster.leaders == ["n1"]
    assert {server.node.current_term for server in cluster.living if server.node} == {1}
    assert cluster.node("n3").commit_index == 2


@pytest.mark.parametrize("seed", range(20))
def test_partial_connectivity_elects_no_second_leader(seed: int) -> None:
    """E9: n1 and n3 don't hear each other, n2 hears both: no leader flip-flop."""
    cluster = Cluster(["n1", "n2", "n3"], seed=seed)
    cluster.elect("n1")
    cluster.cut("n1", "n3")
    cluster.peer_lost("n3", "n1")
    cluster.peer_lost("n1", "n3")
    cluster.run(5000)
    assert cluster.leaders == ["n1"]
    assert cluster.node("n2").current_term == 1


def test_quorum_loss_moves_the_leadership_to_the_only_connected_node() -> None:
    """E10, first shape: all hear only n3. The leader n1 steps down, and n3, which all hear, is elected."""
    names = [f"n{i}" for i in range(1, 6)]
    cluster = Cluster(names)
    cluster.elect("n1")
    for one in names:
        for other in names:
            if one < other and "n3" not in (one, other):
                cluster.cut(one, other)
    assert cluster.run(10_000, lambda: cluster.leaders == ["n3"])
    cluster.propose("n3", b"a")
    assert cluster.run(1000, lambda: all(s.applied and s.applied[-1].data == b"a" for s in cluster.living))


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_killed_leader_is_replaced_within_milliseconds(size: int, seed: int) -> None:
    """Hunting: links break, the first follower in the order of ids asks at once, and usually wins alone."""
    cluster = Cluster([f"n{i}" for i in range(1, size + 1)], seed=seed)
    cluster.elect("n2")
    cluster.crash("n2")
    start = cluster.now_ms
    for server in cluster.living:
        cluster.peer_lost(server.node_id, "n2")
    assert cluster.run(100, lambda: bool(cluster.leaders), latency_ms=0.3)
    assert cluster.leaders == ["n1"]
    assert cluster.now_ms - start < 5


@pytest.mark.parametrize("seed", range(30))
def test_late_notices_cost_milliseconds_too(seed: int) -> None:
    """The others learn 10 ms later that the link broke; until then they are loyal and refuse."""
    cluster = Cluster(["n1", "n2", "n3", "n4", "n5"], seed=seed)
    cluster.elect("n1")
    cluster.crash("n1")
    start = cluster.now_ms
    cluster.peer_lost("n2", "n1")
    cluster.run(10, latency_ms=0.3)
    assert cluster.leaders == []
    for name in ("n3", "n4", "n5"):
        cluster.peer_lost(name, "n1")
    assert cluster.run(200, lambda: bool(cluster.leaders), latency_ms=0.3)
    assert cluster.now_ms - start < 60


def test_hunting_ends_when_the_leader_is_heard() -> None:
    single = hearing(Single())
    single.node.peer_lost(NodeId("n2"))
    assert single.node.leader is None
    single.wait(5)
    assert isinstance(single.node.role, PreCandidate)
    hearing(single)
    assert single.node.leader == "n2"
    assert single.wait(50) == []


def test_a_lost_link_to_somebody_else_is_nothing() -> None:
    single = hearing(Single())
    single.node.peer_lost(NodeId("n3"))
    assert single.node.leader == "n2"


def test_timings_that_cannot_work_are_refused() -> None:
    """E12: the heartbeat must be shorter than the election timeout."""
    for heartbeat, low, high in [(300, 300, 600), (50, 600, 300), (0, 300, 600), (50, 300, 300)]:
        with pytest.raises(ValueError, match="heartbeat"):
            Timing(heartbeat_ms=heartbeat, election_timeout_min_ms=low, election_timeout_max_ms=high)
