"""How a driver ends: a failed disk, a broken invariant, a stop. Nothing acknowledged, nobody left waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.messages import AppendEntriesReply, HeartbeatReply, ReadIndex, ReadIndexReply
from raftkv.consensus.types import Index, NodeId
from raftkv.errors import Outcome, ShuttingDown
from tests.server.rig import Heartbeat, Rig, append, outcome
from tests.server.virtual_time import advance, in_virtual_time, settle


async def with_waiters() -> tuple[Rig, dict[str, asyncio.Future[Any]]]:
    """A leader with a write under way, one that is in no batch yet, and a read."""
    rig = Rig("n1", "n2", "n3")
    await rig.lead()
    waiters: dict[str, asyncio.Future[Any]] = {"under way": rig.put(b"a"), "read": rig.driver.barrier(5000)}
    await settle()
    waiters["pending"] = rig.put(b"b")  # and no turn since
    return rig, waiters


def check_told(waiters: dict[str, asyncio.Future[Any]]) -> None:
    told = {name: outcome(ticket) for name, ticket in waiters.items()}
    assert all(isinstance(error, ShuttingDown) for error in told.values()), told
    assert {name: error.outcome for name, error in told.items()} == {
        "under way": Outcome.UNKNOWN,
        "read": Outcome.NOT_APPLIED,
        "pending": Outcome.NOT_APPLIED,
    }


async def check_silent(rig: Rig) -> None:
    """Whatever comes now, nothing leaves, nothing is written, and requests are refused."""
    rig.events.clear()
    await rig.complete(len(rig.under_way))
    await rig.hear("n2", AppendEntriesReply(Index(2)), HeartbeatReply(99))
    await rig.hear("n3", append(1, 1), term=9)
    rig.driver.on_peer_lost(NodeId("n2"))
    turns = rig.replica.turns
    await advance(5000)
    assert rig.events == []
    assert rig.replica.turns == turns
    assert rig.machine.store.revision == 0
    for ask in (rig.put, lambda: rig.driver.barrier(100)):
        with pytest.raises(ShuttingDown) as refused:
            ask()
        assert refused.value.outcome is Outcome.NOT_APPLIED


@in_virtual_time
async def test_after_a_failed_disk_nothing_is_acknowledged() -> None:
    rig, waiters = await with_waiters()
    error = OSError(5, "Input/output error")
    rig.driver.disk_failed(error)
    assert rig.fatal == [error]
    check_told(waiters)
    await check_silent(rig)
    assert rig.fatal == [error]


@in_virtual_time
async def test_a_promise_whose_write_failed_never_leaves() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.hear("n2", append(1, 1))
    await rig.hear("n2", append(2, 2))
    await rig.complete()
    rig.driver.disk_failed(OSError())
    await rig.complete()
    assert rig.sent(AppendEntriesReply) == [AppendEntriesReply(Index(1))]


@in_virtual_time
async def test_a_broken_invariant_stops_the_node_once() -> None:
    rig, waiters = await with_waiters()
    await rig.hear("n2", Heartbeat(Index(0), Index(0), 1))  # another leader of our own term
    assert [type(error) for error in rig.fatal] == [InvariantBroken]
    check_told(waiters)
    await check_silent(rig)
    assert len(rig.fatal) == 1


def broken(*_: Any) -> Any:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("method", ["tick", "step", "peer_lost", "persisted", "take_ready", "apply"])
@in_virtual_time
async def test_a_bug_anywhere_in_the_replica_stops_the_node_once(method: str) -> None:
    rig, waiters = await with_waiters()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rig.replica, method, broken)
        rig.driver.on_peer_lost(NodeId("n2"))
        await rig.hear("n2", HeartbeatReply(1))
        await rig.complete(len(rig.under_way))
    assert [str(error) for error in rig.fatal] == ["a bug"]
    assert all(isinstance(outcome(ticket), ShuttingDown) for ticket in waiters.values())
    await check_silent(rig)


@pytest.mark.parametrize("method", ["write", "send"])
@in_virtual_time
async def test_a_bug_in_disk_or_links_stops_the_node_once(method: str) -> None:
    rig, waiters = await with_waiters()
    setattr(rig, method, broken)
    await settle()
    assert [str(error) for error in rig.fatal] == ["a bug"]
    assert all(isinstance(outcome(ticket), ShuttingDown) for ticket in waiters.values())


@in_virtual_time
async def test_stop_answers_everyone() -> None:
    rig, waiters = await with_waiters()
    waiters["gone"] = rig.put(b"c")
    waiters.pop("gone").cancel()
    rig.driver.stop("this node is stopping")
    check_told(waiters)
    rig.driver.stop("again")
    await check_silent(rig)
    assert rig.fatal == [], "a stop is no failure"


@in_virtual_time
async def test_stop_with_nobody_waiting() -> None:
    rig = Rig("n1", "n2", "n3")
    rig.driver.stop("before the first turn")
    await check_silent(rig)


@in_virtual_time
async def test_a_read_that_is_granted_but_not_applied_still_waits() -> None:
    """... as its status says."""
    rig = Rig("n1", "n2", "n3")
    await rig.hear("n2", append(1, 1), Heartbeat(Index(0), Index(0), 1))
    await rig.complete()
    read = rig.driver.barrier(5000)
    await settle()
    (asked,) = rig.sent(ReadIndex)
    assert isinstance(asked, ReadIndex)
    await rig.hear("n2", ReadIndexReply(asked.context, Index(1)))
    assert rig.replica.waiting["barriers"] == 1
    await rig.hear("n2", Heartbeat(Index(1), Index(1), 2))
    assert read.done()
    assert rig.replica.waiting["barriers"] == 0
