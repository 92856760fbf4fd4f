"""Who wishes for other members is answered when that is decided and applied where it was asked, or when it
won't be.
"""

from __future__ import annotations

import pytest

from raftkv.consensus.messages import AppendEntries, ChangeMembers, ChangeMembersReply
from raftkv.consensus.types import AddLearner, Change, Move, NodeId, Promote, Remove
from raftkv.errors import (
    ChangeRefused,
    NoQuorum,
    Outcome,
    RaftkvError,
    ShuttingDown,
    TimedOut,
    TooManyRequests,
)
from raftkv.kv.results import PutResult
from raftkv.members import MAX_WISHES
from tests.replica.harness import Cluster, Server

N1, N2, N3, N4 = (NodeId(f"n{i}") for i in range(1, 5))


def wish(
    cluster: Cluster, server: Server, change: Change, *, force: bool = False, timeout_ms: float = 5000
) -> None:
    """Its ticket is "wish"."""
    server.replica.change_members(change, force, "wish", cluster.now_ms + timeout_ms)


def elected(size: int = 3) -> Cluster:
    cluster = Cluster(size)
    cluster.elect()
    return cluster


def failure(server: Server, kind: type[RaftkvError], outcome: Outcome) -> str:
    """The detail of the one error that "wish" was answered with."""
    error = server.answer("wish")
    assert isinstance(error, kind)
    assert error.outcome is outcome
    return str(error)


def voters(server: Server) -> tuple[NodeId, ...]:
    membership = server.replica.node.membership
    assert not membership.is_joint
    return membership.voters


@pytest.mark.parametrize("through_the_leader", [False, True])
def test_a_voter_is_removed(through_the_leader: bool) -> None:
    """Answered when the last entry of the change is applied, with its index."""
    cluster = elected()
    leader, (other, gone) = cluster.leader, cluster.followers
    asked = leader if through_the_leader else other
    wish(cluster, asked, Remove(gone.name))
    cluster.advance(100)
    assert asked.answer("wish") == asked.replica.node.membership_since  # type: ignore[comparison-overlap]
    assert asked.replica.last_applied >= asked.replica.node.membership_since
    assert voters(asked) == tuple(sorted((leader.name, other.name)))


def test_it_is_not_answered_before_the_joint_membership_is_left() -> None:
    cluster = elected()
    leader, gone = cluster.leader, cluster.followers[1]
    wish(cluster, leader, Remove(gone.name))
    leader.turn()
    joint = leader.replica.node.membership_since
    while leader.replica.last_applied < joint:
        envelope = cluster.queue.popleft()
        cluster.servers[envelope.receiver].replica.step(envelope)
        cluster.servers[envelope.receiver].turn()
    assert leader.replica.node.membership_since > joint, "and left, in its log"
    assert not leader.answers
    cluster.settle()
    assert isinstance(leader.answer("wish"), int)


@pytest.mark.parametrize("self_asked", [False, True])
def test_who_asks_for_its_own_removal_hears_of_it(self_asked: bool) -> None:
    """A follower, or the leader, which hands over then."""
    cluster = elected()
    gone = cluster.followers[0] if self_asked else cluster.leader
    wish(cluster, gone, Remove(gone.name))
    cluster.advance(200)
    assert gone.answer("wish") == gone.replica.node.membership_since  # type: ignore[comparison-overlap]
    assert gone.name not in voters(gone)
    assert cluster.leader is not gone


def test_a_cluster_grows_and_shrinks_while_clients_write() -> None:
    """1, 3, 1 members: every write is applied, at whichever member it was asked."""
    cluster = elected(1)
    first = cluster["n1"]
    written = 0
    for name in ("n2", "n3"):
        server = cluster.join(name)
        wish(cluster, first, AddLearner(server.name, f"{name}:1"))
        for _ in range(20):
            written += 1
            first.put(b"%d" % written)
            cluster.advance(20)
        assert first.answers.pop("wish")
        assert server.name in voters(first)
    for server in (cluster["n1"], cluster["n2"]):
        wish(cluster, cluster["n3"], Remove(server.name))
        for _ in range(40):
            written += 1
            cluster["n3"].put(b"%d" % written)
            cluster.advance(20)
        assert cluster["n3"].answers.pop("wish")
    assert voters(cluster["n3"]) == (N3,)
    for number in range(1, written + 1):
        asked = first if number <= 40 else cluster["n3"]
        assert isinstance(asked.answer(b"%d" % number), PutResult)


def test_a_learner_is_added_and_promoted_on_request() -> None:
    cluster = elected()
    asked, server = cluster.followers[0], cluster.join("n4")
    wish(cluster, asked, AddLearner(N4, "n4:1", promote=False))
    cluster.advance(1000)
    assert asked.answers.pop("wish")
    assert N4 not in voters(asked)
    wish(cluster, asked, Promote(N4))
    cluster.advance(100)
    assert asked.answers.pop("wish")
    assert N4 in voters(asked)
    assert server.replica.node.membership == asked.replica.node.membership


def test_what_is_there_already_is_done() -> None:
    cluster = elected()
    asked = cluster.followers[0]
    wish(cluster, asked, Remove(NodeId("n9")))
    cluster.settle()
    assert isinstance(asked.answer("wish"), int)
    assert asked.replica.node.membership_since == 0


def test_what_cannot_be_is_refused() -> None:
    cluster = elected()
    asked = cluster.followers[0]
    wish(cluster, asked, Promote(NodeId("n9")))
    cluster.settle()
    assert "n9 is no member" in failure(asked, ChangeRefused, Outcome.NOT_APPLIED)


def test_without_enough_healthy_voters_it_is_refused_unless_forced() -> None:
    cluster = elected()
    leader, (other, dead) = cluster.leader, cluster.followers
    cluster.kill(dead)
    cluster.advance(700)
    wish(cluster, leader, Remove(other.name))
    cluster.settle()
    assert "only 1 are heard from" in failure(leader, ChangeRefused, Outcome.NOT_APPLIED)
    leader.answers.clear()
    wish(cluster, leader, Remove(dead.name))
    cluster.advance(100)
    assert isinstance(leader.answer("wish"), int)


def test_who_has_just_died_is_not_counted_on() -> None:
    """Heard within an election timeout, but its link is lost: a majority with it would be none."""
    cluster = elected()
    leader, (dead, other) = cluster.leader, cluster.followers
    cluster.kill(dead)
    wish(cluster, leader, Remove(other.name))
    cluster.advance(50)
    assert "not heard from" in failure(leader, ChangeRefused, Outcome.NOT_APPLIED)
    assert len(voters(leader)) == 3


def test_the_second_waits_for_the_first() -> None:
    cluster = elected()
    leader, (other, gone) = cluster.leader, cluster.followers
    wish(cluster, leader, Remove(gone.name))
    leader.replica.change_members(Move(other.name, "x:1"), False, "second", cluster.now_ms + 5000)
    cluster.advance(1000)
    assert isinstance(leader.answer("wish"), int)
    assert isinstance(leader.answer("second"), int)
    assert leader.replica.node.membership.address(other.name) == "x:1"


def test_one_that_never_gets_its_turn_is_not_applied() -> None:
    """Behind a change that can't be decided."""
    cluster = elected()
    leader, followers = cluster.leader, cluster.followers
    cluster.drop = {AppendEntries}
    leader.replica.change_members(Move(N1, "x:1"), False, "first", cluster.now_ms + 1000)
    leader.replica.change_members(Move(N2, "x:1"), False, "wish", cluster.now_ms + 1000)
    cluster.advance(1100)
    assert "another change of members is under way" in failure(leader, ChangeRefused, Outcome.NOT_APPLIED)
    error = leader.answer("first")
    assert isinstance(error, TimedOut)
    assert error.outcome is Outcome.UNKNOWN
    assert followers


@pytest.mark.parametrize("lost", [ChangeMembers, ChangeMembersReply])
def test_a_lost_message_is_made_up_for(lost: type[ChangeMembers | ChangeMembersReply]) -> None:
    cluster = elected()
    leader, (asked, gone) = cluster.leader, cluster.followers
    cluster.drop = {lost}
    wish(cluster, asked, Remove(gone.name))
    cluster.advance(200)
    assert not asked.answers
    cluster.drop = set()
    cluster.advance(400)
    assert isinstance(asked.answer("wish"), int)
    assert voters(asked) == voters(leader) == tuple(sorted((leader.name, asked.name)))


def test_what_an_old_leader_took_and_lost_is_asked_of_the_next() -> None:
    cluster = elected()
    old, asked = cluster.leader, cluster.followers[0]
    cluster.drop = {AppendEntries}
    wish(cluster, asked, Move(N1, "x:1"))
    cluster.advance(20)
    cluster.kill(old)
    cluster.drop = set()
    cluster.advance(1500)
    assert isinstance(asked.answer("wish"), int)
    assert asked.replica.node.membership.address(N1) == "x:1"


def test_what_was_taken_may_happen_yet_though_its_leader_is_lost() -> None:
    """The leader appends it, and is cut off with it: whoever finds it in a log may still commit it."""
    cluster = elected()
    leader, (_, gone) = cluster.leader, cluster.followers
    wish(cluster, leader, Remove(gone.name), timeout_ms=3000)
    leader.turn()
    assert leader.replica.node.membership.is_joint
    cluster.cut = {leader.name}
    cluster.advance(2500)
    assert leader.replica.node.leader is None
    cluster.advance(1000)
    failure(leader, NoQuorum, Outcome.UNKNOWN)


def test_nobody_hears_it() -> None:
    cluster = elected()
    asked = cluster.followers[0]
    cluster.cut = {server.name for server in cluster.living}
    cluster.advance(1000)
    wish(cluster, asked, Remove(N1), timeout_ms=500)
    cluster.advance(600)
    failure(asked, NoQuorum, Outcome.NOT_APPLIED)


def test_an_answer_that_never_comes_is_unknown() -> None:
    cluster = elected()
    asked = cluster.followers[0]
    cluster.drop = {ChangeMembersReply}
    wish(cluster, asked, Move(N1, "x:1"), timeout_ms=500)
    cluster.advance(600)
    failure(asked, TimedOut, Outcome.UNKNOWN)


def test_a_node_that_stops_answers() -> None:
    cluster = elected()
    asked = cluster.followers[0]
    wish(cluster, asked, Move(N1, "x:1"))
    answers = dict(asked.replica.fail_all(ShuttingDown, "stopping"))
    assert isinstance(answers["wish"], ShuttingDown)
    assert answers["wish"].outcome is Outcome.NOT_APPLIED
    wish(cluster, asked, Move(N1, "x:1"))
    asked.turn()
    answers = dict(asked.replica.fail_all(ShuttingDown, "stopping"))
    assert answers["wish"].outcome is Outcome.UNKNOWN


def test_only_so_many_wait() -> None:
    cluster = elected()
    for _ in range(MAX_WISHES):
        wish(cluster, cluster.leader, Move(N1, "x:1"))
    with pytest.raises(TooManyRequests):
        wish(cluster, cluster.leader, Move(N1, "x:1"))
    assert cluster.leader.replica.waiting["changes"] == MAX_WISHES


def test_a_joining_node_gets_a_snapshot_and_the_membership_in_it() -> None:
    cluster = elected()
    leader = cluster.leader
    leader.put(b"k")
    cluster.settle()
    wish(cluster, leader, Move(N1, "x:1"))
    cluster.settle()
    leader.take_snapshot()
    server = cluster.join("n4")
    wish(cluster, leader, AddLearner(N4, "n4:1"))
    cluster.advance(200)
    assert (leader.name, N4) in cluster.snapshots_due
    server.receive_snapshot(leader)
    cluster.advance(500)
    assert N4 in voters(leader)
    assert server.replica.node.membership == leader.replica.node.membership
    server.take_snapshot()
    cluster.kill(server)
    server.start()
    assert server.replica.node.membership == leader.replica.node.membership
    assert server.replica.node.membership.address(N1) == "x:1"
