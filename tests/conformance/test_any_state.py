"""What every role makes of what may come at any time: votes, PreVotes, answers nobody waits for, a tick.

Scenarios that etcd-io/raft's ``raft_test.go`` tries in all states; docs/conformance.md says which.
"""

from __future__ import annotations

import pytest

from raftkv.consensus import Envelope, Node
from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesRefusal,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    LeaseGrant,
    LeaseRead,
    Message,
    PreVote,
    PreVoteReply,
    Propose,
    ReadIndex,
    RequestVote,
    RequestVoteReply,
)
from raftkv.consensus.roles import Candidate, Follower, Leader, PreCandidate
from raftkv.consensus.types import GroupId, HardState, Index, Membership, NodeId, Term
from tests.consensus.single import Single, append, messages

ROLES = {"follower": Follower, "pre-candidate": PreCandidate, "candidate": Candidate, "leader": Leader}


def in_role(role: str) -> Single:
    """A node of five with the log 1, 1, and a vote in its term. As leader, it has heard nobody for long."""
    single = Single(5, log=[1, 1], term=3, vote="n4")
    match role:
        case "pre-candidate":
            single.time_out()
        case "candidate":
            single.stand()
        case "leader":
            single.lead()
            # Time has passed, but no tick has told it that it lost its majority.
            single.now_ms += 301
            single.node.clock(single.now_ms)
    assert isinstance(single.node.role, ROLES[role])
    return single


@pytest.mark.parametrize("role", ROLES)
def test_a_vote_of_a_later_term_is_granted_in_any_role(role: str) -> None:
    """The term is taken, the old vote forgotten, the new one on disk before it leaves."""
    single = in_role(role)
    single.instant_disk = False
    single.receive("n2", RequestVote(Index(9), Term(9)), term=9)
    assert (single.node.current_term, single.node.voted_for) == (9, "n2")
    assert isinstance(single.node.role, Follower)
    assert single.ready.write is not None
    assert single.ready.write.hard_state == HardState(Term(9), NodeId("n2"))
    assert messages(single.write_done(), RequestVoteReply, "n2") == [RequestVoteReply(granted=True)]


@pytest.mark.parametrize("role", ROLES)
def test_a_vote_of_a_later_term_is_refused_to_a_stale_log_but_the_term_is_taken(role: str) -> None:
    single = in_role(role)
    sent = single.receive("n2", RequestVote(Index(1), Term(1)), term=9)
    assert messages(sent, RequestVoteReply, "n2") == [RequestVoteReply(granted=False)]
    assert (single.node.current_term, single.node.voted_for) == (9, None)
    assert isinstance(single.node.role, Follower)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("last", "last_term", "granted"), [(9, 9, True), (1, 1, False)])
def test_a_pre_vote_changes_no_role(role: str, last: int, last_term: int, granted: bool) -> None:
    """Whatever is answered: neither term, vote, role nor timer move, and nothing goes to the disk."""
    single = in_role(role)
    single.end_turn()
    due_ms = single.node.due_ms
    before = (single.node.current_term, single.node.voted_for, single.node.role, single.terms)
    if role == "candidate":  # it waits for its own election first
        single.now_ms = due_ms
        single.node.clock(single.now_ms)
    term = single.node.current_term
    sent = single.receive("n2", PreVote(Term(9), Index(last), Term(last_term)), term=term)
    assert messages(sent, PreVoteReply, "n2") == [PreVoteReply(Term(9), granted)]
    assert (single.node.current_term, single.node.voted_for, single.node.role, single.terms) == before
    assert single.node.due_ms == due_ms
    assert single.ready.write is None


@pytest.mark.parametrize("voted_for", [None, "n1", "n2", "n3"])
@pytest.mark.parametrize("last", range(4))
@pytest.mark.parametrize("last_term", range(1, 4))
def test_the_pre_vote_table(voted_for: str | None, last: int, last_term: int) -> None:
    """Who has voted in this term may still help in the next; only the log counts."""
    single = Single(log=[1, 2], term=4, vote=voted_for)
    sent = single.receive("n2", PreVote(Term(5), Index(last), Term(last_term)), term=4)
    granted = last_term > 2 or (last_term == 2 and last >= 2)
    assert messages(sent, PreVoteReply) == [PreVoteReply(Term(5), granted)]


UNASKED: dict[str, list[Message]] = {
    "follower": [
        PreVoteReply(Term(4), granted=True),
        RequestVoteReply(granted=True),
        AppendEntriesReply(Index(9)),
        AppendEntriesRefusal(Index(2), Index(0), Term(0)),
        HeartbeatReply(9),
        LeaseGrant(9, 300),
        Propose((b"x",)),
        ReadIndex(7),
        LeaseRead(8),
    ],
    "leader": [PreVoteReply(Term(5), granted=True), RequestVoteReply(granted=True)],
}
UNASKED["pre-candidate"] = UNASKED["follower"][1:]
UNASKED["candidate"] = [UNASKED["follower"][0], *UNASKED["follower"][2:]]


@pytest.mark.parametrize(
    ("role", "message"),
    [(role, message) for role, unasked in UNASKED.items() for message in unasked],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_a_role_did_not_ask_for_changes_nothing(role: str, message: Message) -> None:
    """Nobody comes from follower to leader, nor from leader to candidate, by an answer: also not by all."""
    single = in_role(role)
    before = (single.node.current_term, single.node.voted_for, single.terms, single.node.commit_index)
    state = single.node.role
    for peer in single.peers:
        assert single.receive(peer, message) == []
    after = (single.node.current_term, single.node.voted_for, single.terms, single.node.commit_index)
    assert after == before
    assert single.node.role is state


@pytest.mark.parametrize("role", ["follower", "pre-candidate", "candidate"])
def test_only_a_leader_beats(role: str) -> None:
    """Until its own timer is due, time alone makes nobody else say anything; and then it is no heartbeat."""
    single = in_role(role)
    assert single.wait(single.node.due_ms - single.now_ms - 1) == []
    assert {type(each.message) for each in single.time_out()} == {PreVote}


@pytest.mark.parametrize("role", ["candidate", "leader"])
def test_who_leads_or_stands_does_not_stand_again_for_a_lost_link(role: str) -> None:
    single = in_role(role)
    state = single.node.role
    single.node.peer_lost(NodeId("n2"))
    sent = single.end_turn()
    assert single.node.role is state
    assert all(isinstance(each.message, AppendEntries) and each.receiver == "n2" for each in sent)


def outsider() -> Node:
    """A node that isn't among its own voters."""
    membership = Membership.of("n1", "n2", "n3")
    return Node(NodeId("n9"), membership, uniform=lambda low, high: low, now_ms=0.0)


def hear(node: Node, message: Message, term: int) -> list[Message]:
    node.step(Envelope(GroupId(0), NodeId("n1"), node.node_id, Term(term), message))
    ready = node.take_ready()
    if ready.write is not None:
        node.persisted(ready.mark)
    return [each.message for each in (*ready.messages, *ready.promises)]


def test_who_is_no_voter_never_stands() -> None:
    node = outsider()
    for _ in range(5):
        node.tick(node.due_ms)
        ready = node.take_ready()
        assert (ready.messages, ready.write, ready.promises) == ((), None, ())
    assert isinstance(node.role, Follower)
    assert node.current_term == 0


def test_who_is_no_voter_follows_and_votes() -> None:
    """Its configuration may be older than the others' (etcd#10998)."""
    node = outsider()
    assert hear(node, RequestVote(Index(0), Term(0)), 1) == [RequestVoteReply(granted=True)]
    assert hear(node, append(0, 0), 2) == [AppendEntriesReply(Index(0))]
    assert hear(node, Heartbeat(Index(0), Index(0), 1), 2) == [HeartbeatReply(1)]
    assert (node.leader, node.current_term) == ("n1", 2)


def test_a_bundle_is_taken_once() -> None:
    """What a turn led to is in one ``Ready``, and not in the next one again."""
    single = Single(instant_disk=False)
    single.stand()
    single.write_done()
    node = single.node
    node.step(Envelope(GroupId(0), NodeId("n2"), NodeId("n1"), Term(1), RequestVoteReply(granted=True)))
    first = node.take_ready()
    assert first.messages
    assert first.write is not None
    node.persisted(first.mark)
    node.step(Envelope(GroupId(0), NodeId("n2"), NodeId("n1"), Term(1), AppendEntriesReply(Index(1))))
    second = node.take_ready()
    assert [each.index for each in second.committed] == [1]
    third = node.take_ready()
    assert (third.messages, third.promises, third.committed, third.reads, third.write) == (
        (),
        (),
        (),
        (),
        None,
    )
