"""Raft thesis, section 3.10: leadership transfer. What a whole cluster does is in tests/scripts/transfer."""

from __future__ import annotations

import pytest

from raftkv.consensus import Envelope, Node
from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    Propose,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    TransferLeadership,
)
from raftkv.consensus.roles import Candidate, Follower, Leader, PreCandidate
from raftkv.consensus.types import GroupId, Index, Membership, NodeId, Term, Timing
from tests.consensus.harness import Cluster
from tests.consensus.single import Single, append, messages

N2, N3 = NodeId("n2"), NodeId("n3")
TIMEOUT_MS = Timing().election_timeout_min_ms


def leading(size: int = 3, *, up_to_date: tuple[str, ...] = ("n2", "n3")) -> Single:
    """n1 leads; its no-op is committed, and on these nodes' disks."""
    single = Single(size)
    single.lead()
    for peer in up_to_date:
        single.acknowledge(peer, 1)
    return single


def transfer(single: Single, target: NodeId | None) -> list[Envelope]:
    assert single.node.transfer(target)
    return single.end_turn()


def told(sent: list[Envelope]) -> list[str]:
    return [each.receiver for each in sent if isinstance(each.message, TimeoutNow)]


# -- the leader --------------------------------------------------------------------------------------------


def test_an_up_to_date_target_is_told_at_once() -> None:
    single = leading()
    assert told(transfer(single, N2)) == ["n2"]
    assert single.node.hands_over_to == N2


def test_the_target_is_told_once_its_disk_has_the_whole_log() -> None:
    """2. The prior leader fully updates the target server's log to match its own log."""
    single = leading()
    single.node.propose([b"a", b"b"])
    assert told(transfer(single, N2)) == []
    assert told(single.acknowledge("n3", 3)) == []
    assert told(single.acknowledge("n2", 2)) == []
    assert told(single.acknowledge("n2", 3)) == ["n2"]
    assert told(single.end_turn()) == []


def test_it_is_told_again_with_each_heartbeat() -> None:
    """The message may be lost."""
    single = leading()
    assert told(transfer(single, N2)) == ["n2"]
    assert told(single.wait(49)) == []
    assert told(single.wait(1)) == ["n2"]


def test_proposals_wait_while_the_lead_is_handed_over() -> None:
    """1. The prior leader stops accepting new client requests."""
    single = leading(up_to_date=("n3",))
    transfer(single, N2)
    assert not single.node.propose([b"own"])
    single.receive("n3", Propose((b"forwarded",)))
    assert single.node.log.last_index == 1
    single.wait(TIMEOUT_MS - 1)
    assert single.node.hands_over_to == N2


def test_reads_go_on_while_the_lead_is_handed_over() -> None:
    """Their rounds prove that nobody else leads yet."""
    single = leading(up_to_date=("n3",))
    transfer(single, N2)
    single.receive("n3", ReadIndex(7))
    sent = single.receive("n2", HeartbeatReply(single.leader_role.round))
    assert messages(sent, ReadIndexReply, "n3") == [ReadIndexReply(7, Index(1))]


def test_after_an_election_timeout_the_leader_goes_on() -> None:
    """If ... the leadership transfer does not complete after about an election timeout, it aborts."""
    single = leading(up_to_date=("n3",))
    transfer(single, N2)
    for _ in range(5):
        single.wait(50)
        single.hear_all()
    assert single.node.due_ms <= single.now_ms + 50
    single.wait(49)
    assert single.node.hands_over_to == N2
    assert single.node.due_ms == single.now_ms + 1
    single.wait(1)
    assert single.node.hands_over_to is None
    assert single.node.propose([b"a"])
    assert told(single.acknowledge("n2", 2)) == []


def test_the_same_target_again_gains_no_time() -> None:
    single = leading(up_to_date=("n3",))
    transfer(single, N2)
    single.wait(200)
    single.hear_all()
    transfer(single, N2)
    transfer(single, None)
    single.wait(100)
    assert single.node.hands_over_to is None


def test_another_target_replaces_the_first() -> None:
    single = leading(up_to_date=("n3",))
    transfer(single, N2)
    single.wait(200)
    single.hear_all()
    assert told(transfer(single, N3)) == ["n3"]
    single.wait(200)
    assert single.node.hands_over_to == N3


def test_to_itself_is_done_and_ends_what_is_under_way() -> None:
    single = leading(up_to_date=("n3",))
    transfer(single, N2)
    transfer(single, NodeId("n1"))
    assert single.node.hands_over_to is None
    assert single.node.leader == "n1"


@pytest.mark.parametrize("target", ["n9", ""])
def test_who_is_no_member_is_refused(target: str) -> None:
    single = leading()
    assert not single.node.transfer(NodeId(target))
    single.receive("n3", TransferLeadership(NodeId(target)))
    assert single.node.hands_over_to is None


def test_a_lost_link_to_the_target_ends_it() -> None:
    single = leading(up_to_date=("n3",))
    transfer(single, N2)
    single.node.peer_lost(N3)
    assert single.node.hands_over_to == N2
    single.node.peer_lost(N2)
    assert single.node.hands_over_to is None


def test_a_leader_that_steps_down_forgets_it() -> None:
    single = leading()
    transfer(single, N2)
    single.receive("n2", RequestVote(Index(1), Term(1), transfer=True), term=2)
    assert single.node.hands_over_to is None
    assert not single.node.transfer(N3)


def test_the_fittest_has_a_working_link_then_the_most_of_the_log() -> None:
    single = leading(5, up_to_date=("n2", "n3", "n4", "n5"))
    single.node.propose([b"a"])
    single.end_turn()
    single.acknowledge("n4", 2)
    transfer(single, None)
    assert single.node.hands_over_to == "n4"
    single.node.peer_lost(NodeId("n4"))
    assert single.node.hands_over_to is None
    for peer in ("n2", "n3"):
        single.node.peer_lost(NodeId(peer))
    transfer(single, None)
    assert single.node.hands_over_to == "n5"


def test_without_a_fit_follower_nothing_begins() -> None:
    alone = Single(1)
    alone.time_out()
    assert not alone.node.transfer(None)
    single = leading(5)
    single.wait(200)
    for peer in ("n4", "n5"):
        single.receive(peer, HeartbeatReply(0))
    single.wait(101)
    transfer(single, None)
    assert single.node.hands_over_to in ("n4", "n5")


# -- the others --------------------------------------------------------------------------------------------


def test_a_follower_passes_the_wish_on() -> None:
    single = Single()
    assert not single.node.transfer(N2)
    single.receive("n2", append(0, 0), term=1)
    assert not single.node.transfer(NodeId("n9"))
    (sent,) = transfer(single, N3)
    assert (sent.receiver, sent.message) == ("n2", TransferLeadership(N3))


def test_the_leader_heeds_a_followers_wish() -> None:
    single = leading()
    assert told(single.receive("n3", TransferLeadership(N2))) == ["n2"]
    follower = Single()
    follower.receive("n2", append(0, 0), term=1)
    assert follower.receive("n3", TransferLeadership(N2), term=1) == []


def test_the_target_stands_at_once_and_loyal_voters_follow_it() -> None:
    """3. The target stands without waiting; its request says that the leader wishes it (4.2.3)."""
    single = Single()
    single.receive("n2", append(0, 0), term=1)
    sent = single.receive("n2", TimeoutNow(), term=1)
    assert isinstance(single.node.role, Candidate)
    assert single.node.current_term == 2
    assert messages(sent, RequestVote) == [RequestVote(Index(0), Term(0), transfer=True)] * 2
    assert messages(sent, PreVote) == []
    voter = Single()
    voter.receive("n2", append(0, 0), term=1)
    assert voter.receive("n3", RequestVote(Index(0), Term(0)), term=2) == []
    (vote,) = voter.receive("n3", RequestVote(Index(0), Term(0), transfer=True), term=2)
    assert vote.message == RequestVoteReply(granted=True)


def test_a_wish_makes_no_pre_vote_welcome() -> None:
    voter = Single()
    voter.receive("n2", append(0, 0), term=1)
    (reply,) = voter.receive("n3", PreVote(Term(2), Index(0), Term(0)), term=1)
    assert reply.term == 1
    assert voter.node.current_term == 1


def test_the_leader_itself_follows_whom_it_told() -> None:
    single = leading()
    transfer(single, N2)
    sent = single.receive("n2", RequestVote(Index(1), Term(1), transfer=True), term=2)
    assert messages(sent, RequestVoteReply, "n2") == [RequestVoteReply(granted=True)]
    assert isinstance(single.node.role, Follower)


def test_a_wished_candidate_needs_a_log_and_an_unspent_vote_as_any_other() -> None:
    single = leading()
    single.node.propose([b"a"])
    single.end_turn()
    sent = single.receive("n2", RequestVote(Index(1), Term(1), transfer=True), term=2)
    assert messages(sent, RequestVoteReply) == [RequestVoteReply(granted=False)]
    voter = Single(vote="n2", term=2)
    sent = voter.receive("n3", RequestVote(Index(0), Term(0), transfer=True), term=2)
    assert messages(sent, RequestVoteReply) == [RequestVoteReply(granted=False)]


def test_its_own_vote_is_durable_before_it_asks_or_counts() -> None:
    single = Single(instant_disk=False)
    single.receive("n2", append(0, 0), term=1)
    single.write_done()
    assert messages(single.receive("n2", TimeoutNow(), term=1), RequestVote) == []
    assert isinstance(single.node.role, Candidate)
    assert single.node.role.votes == {}
    assert len(messages(single.write_done(), RequestVote)) == 2
    assert single.node.role.votes == {"n1": True}


def test_the_wish_holds_for_one_candidacy() -> None:
    single = Single()
    single.receive("n2", append(0, 0), term=1)
    single.receive("n2", TimeoutNow(), term=1)
    single.time_out()
    assert isinstance(single.node.role, PreCandidate)
    sent = single.grant_pre_vote("n3")
    assert messages(sent, RequestVote) == [RequestVote(Index(0), Term(0))] * 2


def test_who_hunts_may_be_told_too() -> None:
    """Its link to the leader broke just when the message had come through."""
    single = Single(5)
    single.receive("n2", append(0, 0), term=1)
    single.node.peer_lost(N2)
    single.wait(5)
    assert isinstance(single.node.role, PreCandidate)
    single.receive("n2", TimeoutNow(), term=1)
    assert isinstance(single.node.role, Candidate)


def test_timeout_now_of_an_older_term_is_ignored() -> None:
    single = Single(term=3)
    assert single.receive("n2", TimeoutNow(), term=2) == []
    single.receive("n2", append(0, 0), term=3)
    single.receive("n2", TimeoutNow(), term=3)
    assert single.receive("n2", TimeoutNow(), term=3) == []  # a copy: the node stands in the next already
    assert single.node.current_term == 4


def test_who_is_no_voter_does_not_stand() -> None:
    """TestTransferNonMember: one that isn't a member, or no more, has nothing to win."""
    node = Node(NodeId("n9"), Membership.of("n1", "n2", "n3"), uniform=lambda low, high: low, now_ms=0.0)
    node.step(Envelope(GroupId(0), N2, NodeId("n9"), Term(0), TimeoutNow()))
    assert isinstance(node.role, Follower)
    assert node.current_term == 0
    assert node.take_ready().promises == ()


def test_a_leader_ignores_it() -> None:
    single = leading()
    assert told(single.receive("n2", TimeoutNow())) == []
    assert isinstance(single.node.role, Leader)
    assert single.node.current_term == 1


# -- a cluster ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 5])
def test_there_and_back(size: int) -> None:
    """TestLeaderTransferBack: the lead goes round, with an entry between any two."""
    names = [f"n{i}" for i in range(1, size + 1)]
    cluster = Cluster(names)
    cluster.elect("n1")
    for old, new in zip(names, [*names[1:], "n1"], strict=True):
        assert cluster.propose(old, old.encode())
        assert cluster.transfer(old, new)
        cluster.settle()
        assert cluster.leaders == [new]
        cluster.advance(3)
        cluster.settle()
    logs = {tuple(cluster.node(name).log.slice(Index(1), 1 << 62)) for name in names}
    assert len(logs) == 1
    assert [each.data for each in logs.pop() if each.data] == [name.encode() for name in names]


def test_a_follower_that_must_be_brought_up_to_date_first() -> None:
    """TestLeaderTransferToSlowFollower: it was cut off for a while, and has to be probed."""
    cluster = Cluster(["n1", "n2", "n3"])
    cluster.elect("n1")
    cluster.isolate("n3")
    for number in range(20):
        cluster.propose("n1", b"%d" % number)
        cluster.settle()
    cluster.heal()
    cluster.transfer("n1", "n3")
    assert cluster.run(TIMEOUT_MS, until=lambda: cluster.leaders == ["n3"])
    assert cluster.node("n3").log.last_term == 2


def test_a_higher_term_ends_it() -> None:
    """TestLeaderTransferReceiveHigherTermVote."""
    single = leading(up_to_date=("n3",))
    transfer(single, N2)
    single.receive("n3", HeartbeatReply(0), term=5)
    assert single.node.hands_over_to is None
    assert single.node.leader is None


def test_what_is_appended_before_reaches_the_target() -> None:
    single = leading()
    assert single.node.propose([b"a"])
    sent = transfer(single, N2)
    assert len(messages(sent, AppendEntries, "n2")) == 1
    assert told(single.receive("n2", AppendEntriesReply(Index(2)))) == ["n2"]


def test_it_stays_a_leader_meanwhile() -> None:
    single = leading(up_to_date=("n3",))
    transfer(single, N2)
    sent = single.wait(50)
    assert {each.receiver for each in sent if isinstance(each.message, Heartbeat)} == {"n2", "n3"}
