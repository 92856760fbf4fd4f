"""Raft paper, section 5.2: leader election. (PreVote comes before it; see test_thesis_9_6.py.)"""

from __future__ import annotations

import random

import pytest

from raftkv.consensus.messages import AppendEntries, Heartbeat, RequestVote, RequestVoteReply
from raftkv.consensus.roles import Candidate, Follower, Leader, PreCandidate
from raftkv.consensus.types import EntryKind, Index, Term, Timing
from tests.consensus.harness import Cluster, entry
from tests.consensus.single import Single, append, messages


def test_servers_begin_as_followers() -> None:
    """When servers start up, they begin as followers."""
    assert isinstance(Single().node.role, Follower)
    assert Single().node.leader is None


def test_a_server_remains_follower_while_it_hears_a_leader() -> None:
    """A server remains in follower state as long as it receives valid RPCs from a leader or candidate."""
    single = Single()
    for _ in range(20):
        assert single.wait(290) == []
        single.receive("n2", Heartbeat(Index(0), Index(0), 0), term=1)
    assert single.node.leader == "n2"
    single.wait(301)
    assert isinstance(single.node.role, PreCandidate)


def test_granting_a_vote_resets_the_election_timeout() -> None:
    """... without receiving AppendEntries from current leader or granting vote to candidate (Figure 2)."""
    single = Single()
    single.wait(290)
    single.receive("n2", RequestVote(Index(0), Term(0)), term=1)
    single.wait(290)
    assert isinstance(single.node.role, Follower)


def test_refusing_a_vote_does_not_reset_the_election_timeout_for_good() -> None:
    """A candidate that can't win must not keep those that can from standing."""
    single = Single(log=[1, 1], term=2)
    single.wait(290)
    single.receive("n2", RequestVote(Index(0), Term(0)), term=2)
    single.wait(20)
    assert isinstance(single.node.role, PreCandidate)


def test_leaders_send_periodic_heartbeats_to_all_followers() -> None:
    """Leaders send periodic heartbeats to all followers in order to maintain their authority."""
    single = Single(5)
    single.lead()
    for _ in range(10):
        single.hear_all()
        sent = single.wait(50)
        assert sorted(each.receiver for each in sent if isinstance(each.message, Heartbeat)) == single.peers


def test_to_begin_an_election_a_follower_increments_its_term_and_votes_for_itself() -> None:
    """It increments its current term, transitions to candidate, votes for itself and asks all others."""
    single = Single(5, term=3)
    sent = single.stand()
    assert single.node.current_term == 4
    assert single.node.voted_for == "n1"
    assert isinstance(single.node.role, Candidate)
    assert [each.receiver for each in sent if isinstance(each.message, RequestVote)] == single.peers


@pytest.mark.parametrize(
    ("size", "granted", "refused", "role"),
    [
        # a majority is needed; the candidate's own vote is one
        (3, 0, 0, Candidate),
        (3, 1, 0, Leader),
        (3, 2, 0, Leader),
        (3, 0, 1, Candidate),
        (3, 0, 2, Follower),
        (3, 1, 1, Leader),
        (5, 1, 0, Candidate),
        (5, 2, 0, Leader),
        (5, 4, 0, Leader),
        (5, 1, 2, Candidate),
        (5, 1, 3, Follower),
        (5, 0, 3, Follower),
        (5, 2, 2, Leader),
        (7, 2, 0, Candidate),
        (7, 3, 0, Leader),
        (7, 2, 3, Candidate),
        (7, 2, 4, Follower),
        (7, 3, 3, Leader),
        (2, 0, 0, Candidate),
        (2, 1, 0, Leader),
        (2, 0, 1, Follower),
        (4, 1, 0, Candidate),
        (4, 2, 0, Leader),
        (4, 1, 2, Follower),
    ],
)
def test_a_candidate_wins_with_a_majority(size: int, granted: int, refused: int, role: type) -> None:
    """A candidate wins an election if it receives votes from a majority of the servers in the full cluster.

    NB: an election that can't be won any more ends in the follower state at once.
    """
    single = Single(size)
    single.stand()
    for i, peer in enumerate(single.peers[: granted + refused]):
        if isinstance(single.node.role, Candidate):
            single.receive(peer, RequestVoteReply(granted=i < granted))
    assert isinstance(single.node.role, role)


def test_a_lone_server_elects_itself() -> None:
    single = Single(1)
    single.time_out()
    assert isinstance(single.node.role, Leader)
    assert [each.kind for each in single.applied] == [EntryKind.NOOP]


def test_a_vote_counts_once_however_often_it_arrives() -> None:
    single = Single(5)
    single.stand()
    for _ in range(3):
        single.receive("n2", RequestVoteReply(granted=True))
    assert isinstance(single.node.role, Candidate)


def test_each_server_votes_for_at_most_one_candidate_in_a_term() -> None:
    """First come, first served; the same candidate is granted again (E6), whose first answer was lost."""
    single = Single()
    for candidate, granted in [("n2", True), ("n3", False), ("n2", True), ("n3", False)]:
        sent = single.receive(candidate, RequestVote(Index(0), Term(0)), term=1)
        assert messages(sent, RequestVoteReply, candidate) == [RequestVoteReply(granted)]
    sent = single.receive("n3", RequestVote(Index(0), Term(0)), term=2)
    assert messages(sent, RequestVoteReply) == [RequestVoteReply(granted=True)]


def test_a_vote_is_promised_only_when_it_is_durable() -> None:
    """Figure 2: persistent state is updated on stable storage before responding to RPCs (E1)."""
    single = Single(instant_disk=False)
    assert single.receive("n2", RequestVote(Index(0), Term(0)), term=1) == []
    (vote,) = single.write_done()
    assert vote.message == RequestVoteReply(granted=True)
    assert single.ready.write is None


def test_a_candidates_own_vote_counts_only_when_it_is_durable() -> None:
    single = Single(1, instant_disk=False)
    single.time_out()
    single.wait(10)
    assert isinstance(single.node.role, Candidate)
    single.write_done()
    assert isinstance(single.node.role, Leader)


def test_a_late_completion_of_an_older_write_is_no_vote() -> None:
    """A write of term 1 completes when the node stands for term 2: it isn't the vote of term 2."""
    single = Single(3, instant_disk=False)
    single.receive("n2", append(0, 0), term=1)
    single.write_done()
    single.receive("n2", append(0, 0, [entry(1, 1)]), term=1)
    single.time_out()
    single.grant_pre_vote("n2")
    assert isinstance(single.node.role, Candidate)
    single.write_done()
    assert single.node.role.votes == {}


def test_a_node_does_not_stand_again_while_its_disk_is_busy_with_its_term() -> None:
    """Another term would only queue behind it: a disk slower than the election timeout would elect nobody."""
    single = Single(3, instant_disk=False)
    single.time_out()
    single.grant_pre_vote("n2")
    for _ in range(10):
        single.wait(Timing().election_timeout_max_ms)
    assert isinstance(single.node.role, Candidate)
    assert single.node.current_term == 1
    single.write_done()
    assert single.node.role.votes == {"n1": True}


def test_a_restarted_server_remembers_its_vote() -> None:
    single = Single(term=4, vote="n3")
    for candidate, granted in [("n2", False), ("n3", True)]:
        sent = single.receive(candidate, RequestVote(Index(0), Term(0)), term=4)
        assert messages(sent, RequestVoteReply) == [RequestVoteReply(granted)]


def test_a_candidate_returns_to_follower_when_a_leader_of_its_term_speaks() -> None:
    """If the leader's term is at least as large as the candidate's, the candidate recognizes the leader."""
    for message in (append(0, 0), Heartbeat(Index(0), Index(0), 1)):
        single = Single()
        single.stand()
        single.receive("n2", message)
        assert isinstance(single.node.role, Follower)
        assert single.node.leader == "n2"
        assert single.node.voted_for == "n1"


def test_a_candidate_refuses_an_older_leader_and_continues() -> None:
    """If the term in the RPC is smaller, the candidate rejects it and continues in candidate state."""
    single = Single(term=5)
    single.stand()
    single.receive("n2", append(0, 0), term=5)
    assert isinstance(single.node.role, Candidate)


def test_a_candidate_without_a_majority_times_out_and_tries_again() -> None:
    """When this happens, each candidate will time out and start a new election by incrementing its term."""
    single = Single()
    single.stand()
    single.time_out()
    assert isinstance(single.node.role, PreCandidate)
    single.grant_pre_vote("n3")
    assert isinstance(single.node.role, Candidate)
    assert single.node.current_term == 2


def test_a_new_leader_announces_itself_at_once() -> None:
    """It then sends heartbeat messages to all of the other servers to prevent new elections."""
    sent = Single(5).lead()
    for kind in (Heartbeat, AppendEntries):
        assert sorted(each.receiver for each in sent if isinstance(each.message, kind)) == [
            "n2",
            "n3",
            "n4",
            "n5",
        ]


def test_election_timeouts_are_spread_over_the_whole_interval() -> None:
    """Raft uses randomized election timeouts to ensure that split votes are rare."""
    timing = Timing()
    low, high = timing.election_timeout_min_ms, timing.election_timeout_max_ms
    draws = [Cluster(["n1", "n2", "n3"], seed=seed).node("n1").due_ms for seed in range(600)]
    assert all(low <= each <= high for each in draws)
    tenth = (high - low) / 10
    assert {int((each - low) // tenth) for each in draws} >= set(range(10))


def test_split_votes_are_rare() -> None:
    """A follower's timeout falls within a millisecond of another's in few of 1000 elections."""
    chance = random.Random(5)
    close = 0
    for seed in range(1000):
        cluster = Cluster(["n1", "n2", "n3", "n4", "n5"], seed=chance.randrange(1 << 30) + seed)
        first, second, *_ = sorted(server.node.due_ms for server in cluster.living if server.node)
        close += second - first < 1
    assert close < 100


def test_every_node_can_be_the_leader_in_turn() -> None:
    cluster = Cluster(["n1", "n2", "n3"])
    for name in ["n1", "n2", "n3", "n1"]:
        cluster.now_ms += 700
        cluster.elect(name)
        assert cluster.leaders == [name]


def test_a_leader_ignores_its_own_election_timeout() -> None:
    """A leader never asks itself for votes; its term stays (campaign while leader)."""
    single = Single()
    single.lead()
    for _ in range(40):
        single.hear_all()
        single.wait(40)
    assert isinstance(single.node.role, Leader)
    assert single.node.current_term == 1
