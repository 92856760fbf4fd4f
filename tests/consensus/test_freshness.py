"""``Node.fresh_ms``: since when a stale read may be out of date. It may be too old, never too young."""

from __future__ import annotations

from tests.consensus.harness import Cluster


def test_a_leader_is_as_fresh_as_the_begin_of_its_last_confirmed_round() -> None:
    cluster = Cluster(["n1", "n2", "n3"])
    cluster.elect("n1")
    cluster.advance(cluster.timing.heartbeat_ms)
    began_ms = cluster.now_ms
    cluster.now_ms += 200  # the answers take their time
    cluster.settle()
    assert cluster.node("n1").fresh_ms == began_ms


def test_a_follower_that_lacks_committed_entries_is_not_fresh() -> None:
    cluster = Cluster(["n1", "n2", "n3"])
    cluster.elect("n1")
    fresh_ms = cluster.node("n3").fresh_ms
    cluster.cut("n1", "n3")
    cluster.propose("n1", b"a")
    cluster.settle()
    cluster.heal()
    cluster.servers["n3"].disk.slow = True  # it hears of the entry, and can't confirm that it has it
    cluster.links.clear()
    cluster.advance(cluster.timing.heartbeat_ms)
    cluster.deliver(("n1", "n3"))
    assert cluster.node("n3").fresh_ms == fresh_ms, "a heartbeat alone doesn't make it fresh"


def test_a_node_that_has_heard_of_no_leader_knows_nothing() -> None:
    assert Cluster(["n1", "n2", "n3"]).node("n1").fresh_ms == float("-inf")


def test_a_lone_node_is_always_fresh() -> None:
    cluster = Cluster(["n1"])
    cluster.elect("n1")
    cluster.advance(cluster.timing.heartbeat_ms)
    assert cluster.node("n1").fresh_ms == cluster.now_ms


def test_a_new_leader_is_fresh_with_its_no_op_though_its_first_round_was_answered_before() -> None:
    cluster = Cluster(["n1", "n2", "n3"])
    cluster.campaign("n1")
    cluster.settle()
    assert cluster.node("n1").commit_index == 1
    assert cluster.node("n1").fresh_ms == cluster.now_ms, "no second round is needed"
