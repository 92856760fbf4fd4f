"""What makes a batch, and when the next one leaves."""

from __future__ import annotations

import pytest

from raftkv.consensus.messages import AppendEntries
from raftkv.kv.results import PutResult
from raftkv.waiting import ReplicaLimits
from tests.replica.harness import Cluster


def test_what_is_asked_in_one_turn_is_one_entry() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    before = leader.replica.node.log.last_index
    for i in range(50):
        leader.put(b"key%d" % i)
    cluster.settle()
    assert leader.replica.node.log.last_index == before + 1
    assert [leader.answer(b"key%d" % i) for i in range(50)] == [PutResult(i + 1, 1) for i in range(50)]


def test_while_batches_are_under_way_commands_gather_into_the_next() -> None:
    cluster = Cluster(limits=ReplicaLimits(max_inflight_batches=2))
    leader = cluster.elect()
    before = leader.replica.node.log.last_index
    cluster.drop = {AppendEntries}
    for i in range(10):
        leader.put(b"key%d" % i)
        leader.turn()
    assert leader.replica.node.log.last_index == before + 2
    assert leader.replica.waiting["commands"] == 8
    cluster.drop = set()
    cluster.advance(200)
    assert leader.replica.node.log.last_index == before + 3
    assert len(leader.answers) == 10


@pytest.mark.parametrize("limits", [{"max_batch_commands": 5}, {"max_batch_bytes": 1000}], ids=str)
def test_only_a_full_batch_joins_many_that_are_under_way(limits: dict[str, int]) -> None:
    cluster = Cluster(limits=ReplicaLimits(max_inflight_batches=4, max_inflight_unfilled=2, **limits))
    leader = cluster.elect()
    before = leader.replica.node.log.last_index
    cluster.drop = {AppendEntries}
    for i in range(2 + 4):
        leader.put(b"key%d" % i, b"x" * 200)
        leader.turn()
    assert leader.replica.node.log.last_index == before + 2, "the third has room for more"
    assert leader.replica.waiting["commands"] == 4
    for i in range(12):
        leader.put(b"more%d" % i, b"x" * 200)
        leader.turn()
    assert leader.replica.node.log.last_index == before + 4, "two full ones, and no more than four in all"
    cluster.drop = set()
    cluster.advance(500)
    assert len(leader.answers) == 18


def test_a_batch_is_bounded_in_commands_and_in_bytes() -> None:
    cluster = Cluster(
        limits=ReplicaLimits(max_batch_commands=3, max_batch_bytes=1000, max_inflight_batches=99)
    )
    leader = cluster.elect()
    before = leader.replica.node.log.last_index
    for i in range(6):
        leader.put(b"key%d" % i)
    cluster.settle()
    assert leader.replica.node.log.last_index == before + 2, "two batches of three commands"
    for i in range(2):
        leader.put(b"large%d" % i, b"x" * 5000)
    cluster.settle()
    assert leader.replica.node.log.last_index == before + 4, "a command over the bound goes alone"
