"""Who wishes that another node lead is answered when it does, or when it won't; requests wait meanwhile."""

from __future__ import annotations

import pytest

from raftkv.consensus.messages import AppendEntries, TimeoutNow, TransferLeadership
from raftkv.consensus.types import NodeId
from raftkv.errors import BadRequest, NoQuorum, NoSuccessor, Outcome, ShuttingDown, TimedOut
from raftkv.kv.results import PutResult
from tests.replica.harness import Cluster, Server


def wish(cluster: Cluster, server: Server, target: str | None, timeout_ms: float = 5000) -> None:
    """Its ticket is "wish"."""
    server.replica.transfer(None if target is None else NodeId(target), "wish", cluster.now_ms + timeout_ms)


def elected(size: int = 3) -> Cluster:
    cluster = Cluster(size)
    cluster.elect()
    return cluster


def failure(server: Server, kind: type[Exception], outcome: Outcome) -> str:
    """The detail of the one error that "wish" was answered with."""
    error = server.answer("wish")
    assert isinstance(error, kind)
    assert getattr(error, "outcome") is outcome  # noqa: B009 (kind is any error with one)
    return str(error)


def test_the_leader_is_asked() -> None:
    cluster = elected()
    old, new = cluster.leader, cluster.followers[1]
    wish(cluster, old, new.name)
    cluster.settle()
    assert old.answer("wish") == (new.name, 2)
    assert cluster.leader is new


@pytest.mark.parametrize("self_elected", [False, True])
def test_a_follower_is_asked(self_elected: bool) -> None:
    """It answers when it sees the other lead, or leads itself."""
    cluster = elected()
    asked, other = cluster.followers
    wish(cluster, asked, (asked if self_elected else other).name)
    cluster.settle()
    assert asked.answer("wish") == (cluster.leader.name, 2)
    assert cluster.leader is (asked if self_elected else other)


@pytest.mark.parametrize("through_the_leader", [False, True])
def test_anyone_will_do(through_the_leader: bool) -> None:
    cluster = elected()
    old = cluster.leader
    asked = old if through_the_leader else cluster.followers[0]
    wish(cluster, asked, None)
    cluster.settle()
    assert cluster.leader is not old
    assert asked.answer("wish") == (cluster.leader.name, 2)


def test_who_leads_already_is_done_at_once() -> None:
    cluster = elected()
    leader = cluster.leader
    for asked in (leader, cluster.followers[0]):
        wish(cluster, asked, leader.name)
        asked.turn()
        assert asked.answer("wish") == (leader.name, 1)
    assert not cluster.queue


def test_a_stranger_is_refused() -> None:
    cluster = elected()
    with pytest.raises(BadRequest, match="'n9' is no member of this cluster, which has n1, n2, n3"):
        wish(cluster, cluster.leader, "n9")


def test_alone_there_is_nobody() -> None:
    cluster = elected(1)
    wish(cluster, cluster.leader, None)
    cluster.settle()
    failure(cluster.leader, NoSuccessor, Outcome.NOT_APPLIED)


def test_writes_wait_and_the_next_leader_decides_them_once() -> None:
    cluster = elected()
    old, new = cluster.leader, cluster.followers[0]
    cluster.drop = {TimeoutNow}
    wish(cluster, old, new.name)
    cluster.settle()
    for server in cluster.living:
        server.put(server.name.encode())
    cluster.settle()
    assert old.replica.waiting["commands"] == 1
    assert not any(server.answers for server in cluster.living)
    cluster.drop = set()
    cluster.advance(51)
    assert cluster.leader is new
    for server in cluster.living:
        assert isinstance(server.answer(server.name.encode()), PutResult)
        assert server.machine.store.revision == 3


def test_reads_wait_for_the_next_leader_too() -> None:
    cluster = elected()
    old, new = cluster.leader, cluster.followers[0]
    wish(cluster, old, new.name)
    for server in cluster.living:
        server.barrier("read")
    cluster.settle()
    assert cluster.leader is new
    assert [server.answer("read") for server in cluster.living] == [None] * 3


def test_a_target_that_cannot_is_given_up_and_writes_go_on() -> None:
    cluster = elected()
    old, target = cluster.leader, cluster.followers[0]
    cluster.cut.add(target.name)
    old.put(b"before")
    cluster.settle()
    wish(cluster, old, target.name)
    cluster.settle()
    old.put(b"meanwhile")
    cluster.advance(298)
    assert "wish" not in old.answers
    assert b"meanwhile" not in old.answers
    cluster.advance(4)
    detail = failure(old, TimedOut, Outcome.UNKNOWN)
    assert detail.startswith(f"{target.name} did not take over in time; the leader is {old.name}.")
    assert old.answer(b"meanwhile") == PutResult(2, 1)


def test_another_wish_ends_the_first() -> None:
    cluster = elected()
    old, (one, other) = cluster.leader, cluster.followers
    cluster.cut.add(one.name)
    old.put(b"k")
    cluster.settle()
    wish(cluster, old, one.name)
    cluster.settle()
    old.replica.transfer(other.name, "second", cluster.now_ms + 5000)
    cluster.drop = {TimeoutNow}  # so that the old leader has time to say so
    cluster.settle()
    cluster.advance(4)
    detail = failure(old, TimedOut, Outcome.UNKNOWN)
    assert detail.startswith(f"{one.name} did not take over in time; the leader is {old.name}.")
    cluster.drop = set()
    cluster.advance(60)
    assert old.answer("second") == (other.name, 2)


def test_a_follower_does_not_wait_longer_than_a_leader_may_try() -> None:
    """The message may be lost; and it isn't sent twice, for a transfer holds up the writes."""
    cluster = elected()
    asked, other = cluster.followers
    cluster.drop = {TransferLeadership}
    wish(cluster, asked, other.name)
    cluster.advance(1198)
    assert "wish" not in asked.answers
    cluster.drop = set()
    cluster.advance(4)
    failure(asked, TimedOut, Outcome.UNKNOWN)
    assert cluster.leader not in (asked, other)


def test_without_a_leader_it_waits_for_one() -> None:
    cluster = elected()
    asked, other = cluster.followers
    cluster.drop = {AppendEntries}  # so that the next leader can't decide anything, and is one all the same
    cluster.kill(cluster.leader)
    wish(cluster, asked, asked.name, timeout_ms=3000)
    cluster.settle()
    assert "wish" not in asked.answers
    cluster.drop = set()
    cluster.advance(2000)
    assert cluster.leader is asked
    assert asked.answer("wish") == (asked.name, asked.replica.node.current_term)
    assert other.alive


def test_anyone_but_who_is_elected_first() -> None:
    """The wish came when nobody led: then it means whoever leads when it can be asked."""
    cluster = Cluster()
    wish(cluster, cluster["n1"], None)
    cluster.advance(1500)
    assert cluster["n1"].answer("wish") == (cluster.leader.name, cluster.leader.replica.node.current_term)
    assert cluster.leader.replica.node.current_term == 2


def test_no_leader_in_time() -> None:
    cluster = elected()
    asked, other = cluster.followers
    cluster.kill(cluster.leader)
    cluster.kill(other)
    wish(cluster, asked, other.name, timeout_ms=100)
    due_ms = cluster.now_ms + 100
    cluster.advance(98)
    assert asked.replica.due_ms <= due_ms, "it wakes in time to say so"
    assert "wish" not in asked.answers
    cluster.advance(4)
    failure(asked, NoQuorum, Outcome.NOT_APPLIED)


def test_a_node_that_stops_tells_who_waits() -> None:
    cluster = elected()
    asked, other = cluster.followers
    cluster.drop = {TransferLeadership}
    wish(cluster, asked, other.name)
    cluster.settle()
    assert asked.replica.waiting["handovers"] == 1
    (answer,) = asked.replica.fail_all(ShuttingDown, "stopping")
    assert answer[0] == "wish"
    assert isinstance(answer[1], ShuttingDown)
    assert answer[1].outcome is Outcome.UNKNOWN
    assert asked.replica.waiting["handovers"] == 0
