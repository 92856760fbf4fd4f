"""Raft paper, section 5.1: terms."""

from __future__ import annotations

import pytest

from raftkv.consensus.messages import (
    AppendEntriesReply,
    Envelope,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVoteReply,
    Propose,
    RequestVote,
    RequestVoteReply,
)
from raftkv.consensus.roles import Candidate, Follower, Leader, PreCandidate
from raftkv.consensus.types import GroupId, Index, NodeId, Term
from tests.consensus.harness import entries
from tests.consensus.single import Single, append, messages


def in_role(role: str) -> Single:
    """A node of three in the given role: in term 4 as candidate, else 3."""
    single = Single(log=[1, 3])
    match role:
        case "pre-candidate":
            single.time_out()
        case "candidate":
            single.stand()
    return single


ROLES = {"follower": Follower, "pre-candidate": PreCandidate, "candidate": Candidate, "leader": Leader}


@pytest.mark.parametrize("role", ["follower", "pre-candidate", "candidate"])
@pytest.mark.parametrize(
    "message",
    [
        append(0, 0),
        Heartbeat(Index(0), Index(0), 1),
        RequestVote(Index(9), Term(9)),
        AppendEntriesReply(Index(0)),
        PreVoteReply(Term(9), granted=False),
        RequestVoteReply(granted=False),
        HeartbeatReply(0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_larger_term_is_adopted_and_makes_a_follower(role: str, message: Message) -> None:
    """If one server's current term is smaller than the other's, it updates to the larger value."""
    single = in_role(role)
    assert isinstance(single.node.role, ROLES[role])
    single.receive("n2", message, term=9)
    assert single.node.current_term == 9
    assert isinstance(single.node.role, Follower)
    assert single.ready.write is not None
    assert single.ready.write.hard_state is not None
    assert single.ready.write.hard_state.current_term == 9


@pytest.mark.parametrize(
    "message",
    [append(0, 0), Heartbeat(Index(0), Index(0), 1), AppendEntriesReply(Index(0)), HeartbeatReply(0)],
)
def test_a_leader_that_learns_of_a_larger_term_steps_down(message: Message) -> None:
    """If a leader discovers that its term is out of date, it immediately reverts to follower state."""
    single = Single(log=[1, 3])
    single.lead()
    single.receive("n2", message, term=9)
    assert single.node.current_term == 9
    assert isinstance(single.node.role, Follower)


@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_requests_of_a_stale_term_are_refused(role: str) -> None:
    """If a server receives a request with a stale term number, it rejects the request."""
    single = Single(log=[1, 3])
    if role == "candidate":
        single.stand()
    elif role == "leader":
        single.lead()
    before = (single.terms, single.node.commit_index, single.node.voted_for, single.node.current_term)
    stale = append(1, 1, entries(2, 2, 2, first=2), commit=3)
    for message in (stale, Heartbeat(Index(2), Index(2), 9), RequestVote(Index(99), Term(99))):
        sent = single.receive("n2", message, term=2)
        assert all(each.term == single.node.current_term for each in sent), "the answer tells our term"
        assert all(each == RequestVoteReply(granted=False) for each in messages(sent, RequestVoteReply))
    assert (single.terms, single.node.commit_index, single.node.voted_for, single.node.current_term) == before
    assert isinstance(single.node.role, ROLES[role])


def test_a_stale_leader_learns_the_new_term_from_the_answer() -> None:
    """Current terms are exchanged whenever servers communicate."""
    single = Single(log=[1, 3])
    for message in (append(2, 2), Heartbeat(Index(0), Index(0), 5)):
        (answer,) = single.receive("n2", message, term=2)
        assert answer.term == 3
        assert answer.receiver == "n2"


def test_answers_of_a_stale_term_are_ignored() -> None:
    """E5: a vote that was granted in an older term counts for nothing now."""
    single = Single()
    single.stand()
    single.time_out()
    single.grant_pre_vote("n2")
    assert single.node.current_term == 2
    single.receive("n2", RequestVoteReply(granted=True), term=1)
    assert isinstance(single.node.role, Candidate)
    single.receive("n2", RequestVoteReply(granted=True), term=2)
    assert isinstance(single.node.role, Leader)


def test_the_vote_is_forgotten_only_with_a_new_term() -> None:
    """E4: stepping down within a term keeps votedFor."""
    single = Single()
    single.lead()
    single.wait(301)
    assert isinstance(single.node.role, Follower)
    assert single.node.voted_for == "n1"
    assert messages(single.receive("n2", RequestVote(Index(9), Term(9))), RequestVoteReply) == [
        RequestVoteReply(granted=False)
    ]


def test_strangers_are_not_heard() -> None:
    """Of those who are no members, only who leads or would lead (thesis 4.1); nobody of another group, nor
    what is addressed to another node.
    """
    single = Single()
    assert single.receive("n9", HeartbeatReply(1), term=9) == []
    assert single.receive("n9", RequestVoteReply(granted=True), term=9) == []
    assert single.receive("n9", Propose((b"x",)), term=9) == []
    assert single.node.current_term == 0
    for group, receiver in ((1, "n1"), (0, "n2")):
        heartbeat = Heartbeat(Index(0), Index(0), 1)
        single.node.step(Envelope(GroupId(group), NodeId("n2"), NodeId(receiver), Term(9), heartbeat))
        assert single.end_turn() == []
    assert single.node.current_term == 0


def test_leaders_and_candidates_that_are_no_members_are_heard() -> None:
    """It may be our own membership that is old (thesis 4.1)."""
    single = Single()
    assert messages(single.receive("n9", RequestVote(Index(0), Term(0)), term=3), RequestVoteReply) == [
        RequestVoteReply(granted=True)
    ]
    assert single.node.current_term == 3
    single.receive("n9", Heartbeat(Index(0), Index(0), 1), term=3)
    assert single.node.leader == "n9"
