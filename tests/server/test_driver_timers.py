"""An idle driver sleeps: few turns, whatever its role, and none that comes to nothing at once again."""

from __future__ import annotations

import asyncio

from raftkv.consensus.messages import AppendEntriesReply, Heartbeat, HeartbeatReply, PreVote
from raftkv.consensus.types import Index
from tests.server.rig import Rig
from tests.server.virtual_time import advance, in_virtual_time, settle

TEN_S = 10_000
HEARTBEAT_MS = 50


async def keep_leading(rig: Rig) -> None:
    """Answer as two followers would, for ten seconds."""
    for round_number in range(1, TEN_S // HEARTBEAT_MS + 1):
        await advance(HEARTBEAT_MS)
        for follower in ("n2", "n3"):
            await rig.hear(follower, HeartbeatReply(round_number))


@in_virtual_time
async def test_an_idle_leader() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.lead()
    before = rig.replica.turns
    await keep_leading(rig)
    assert rig.driver_leads
    heartbeats = len(rig.sent(Heartbeat)) // 2
    assert 180 <= heartbeats <= 210
    answers = heartbeats * 2
    assert rig.replica.turns - before <= 2 * heartbeats + answers + 10


@in_virtual_time
async def test_an_idle_leader_of_one() -> None:
    rig = Rig("n1")
    await settle()
    await rig.complete()
    await rig.complete()
    before = rig.replica.turns
    await advance(TEN_S)
    assert rig.driver_leads
    assert rig.replica.turns - before <= 2 * TEN_S / HEARTBEAT_MS + 10


@in_virtual_time
async def test_an_idle_follower() -> None:
    rig = Rig("n1", "n2", "n3")
    before = rig.replica.turns
    for round_number in range(TEN_S // HEARTBEAT_MS):
        await rig.hear("n2", Heartbeat(Index(0), Index(0), round_number))
        await advance(HEARTBEAT_MS)
    assert rig.sent(PreVote) == []
    assert rig.replica.turns - before <= TEN_S / HEARTBEAT_MS + 2, "no turn for a timer that was put off"


@in_virtual_time
async def test_a_node_that_is_cut_off() -> None:
    rig = Rig("n1", "n2", "n3")
    before = rig.replica.turns
    await advance(TEN_S)
    assert 10 <= len(rig.sent(PreVote)) // 2 <= 40, "it goes on asking"
    assert rig.replica.turns - before <= 3 * TEN_S / 300 + 10


@in_virtual_time
async def test_a_waiting_request_costs_no_turns() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.lead()
    tickets: list[asyncio.Future[object]] = [rig.put(b"%d" % i, timeout_ms=2 * TEN_S) for i in range(100)]
    before = rig.replica.turns
    await keep_leading(rig)
    assert not any(ticket.done() for ticket in tickets)
    heartbeats = TEN_S / HEARTBEAT_MS
    resends = TEN_S / rig.replica._limits.resend_ms
    assert rig.replica.turns - before <= 4 * heartbeats + 2 * resends + 10
    await rig.complete()
    await rig.hear("n2", AppendEntriesReply(Index(2)))
    assert all(ticket.done() for ticket in tickets)
