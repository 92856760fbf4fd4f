"""The contract of ``Ready``: what leaves when, what waits for which write, and what is never acknowledged."""

from __future__ import annotations

import asyncio

from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesReply,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from raftkv.consensus.types import Index, NodeId, Term
from raftkv.errors import NoQuorum, Outcome
from raftkv.kv.results import PutResult
from tests.server.rig import Heartbeat, Rig, append, outcome
from tests.server.virtual_time import advance, in_virtual_time, settle


@in_virtual_time
async def test_a_promise_leaves_when_its_write_is_durable() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.hear("n2", append(1, 3))
    assert rig.events == ["write"]
    await advance(100)
    assert rig.sent(AppendEntriesReply) == []
    await rig.complete()
    assert rig.sent(AppendEntriesReply) == [AppendEntriesReply(Index(3))]


@in_virtual_time
async def test_a_message_does_not_wait_for_the_disk() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.hear("n2", append(1, 3))
    await rig.hear("n2", Heartbeat(Index(0), Index(0), 7))
    assert rig.events == ["write", HeartbeatReply(7)]


@in_virtual_time
async def test_promises_leave_in_the_order_of_their_writes() -> None:
    rig = Rig("n1", "n2", "n3")
    for index in (1, 2, 3):
        await rig.hear("n2", append(index, index))
    assert rig.events == ["write"] * 3
    for index in (1, 2, 3):
        await rig.complete()
        assert rig.sent(AppendEntriesReply) == [AppendEntriesReply(Index(i)) for i in range(1, index + 1)]


@in_virtual_time
async def test_a_promise_without_a_write_waits_for_the_writes_before_it() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.hear("n2", append(1, 1))
    await rig.hear("n2", append(2, 2))
    await rig.hear("n2", append(1, 2))  # again: nothing to write, but what it promises isn't durable yet
    assert rig.events == ["write", "write"]
    await rig.complete()
    assert rig.sent(AppendEntriesReply) == [AppendEntriesReply(Index(1))]
    await rig.complete()
    assert rig.sent(AppendEntriesReply) == [AppendEntriesReply(Index(index)) for index in (1, 2, 2)]
    await rig.hear("n2", append(1, 2))
    assert len(rig.sent(AppendEntriesReply)) == 4, "with no write under way it leaves at once"


@in_virtual_time
async def test_a_vote_is_given_when_it_is_durable() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.hear("n2", RequestVote(Index(0), Term(0)), term=5)
    assert rig.events == ["write"]
    hard_state = rig.under_way[0][0].hard_state
    assert hard_state is not None
    assert (hard_state.current_term, hard_state.voted_for) == (5, "n2")
    await rig.complete()
    assert rig.sent(RequestVoteReply) == [RequestVoteReply(granted=True)]


@in_virtual_time
async def test_a_candidate_asks_when_its_own_vote_is_durable() -> None:
    rig = Rig("n1", "n2", "n3")
    await advance(301)
    assert [type(event) for event in rig.events] == [PreVote, PreVote]
    await rig.hear("n2", PreVoteReply(Term(1), granted=True), term=0)
    assert rig.sent(RequestVote) == []
    await rig.complete()
    assert len(rig.sent(RequestVote)) == 2


@in_virtual_time
async def test_a_leader_sends_while_its_own_disk_writes() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.lead()
    ticket = rig.put()
    await settle()
    assert [type(event) for event in rig.events] == [AppendEntries, AppendEntries, str]
    assert len(rig.under_way) == 1
    await rig.hear("n2", AppendEntriesReply(Index(2)))
    assert outcome(ticket) is None, "one disk of three has it"
    await rig.hear("n3", AppendEntriesReply(Index(2)))
    assert outcome(ticket) == PutResult(1, 1), "two others have it: our own disk may take its time"
    assert len(rig.under_way) == 1


@in_virtual_time
async def test_a_leader_counts_itself_when_its_own_disk_has_it() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.lead()
    tickets = [rig.put(b"a")]
    await settle()
    tickets.append(rig.put(b"b"))
    await settle()
    await rig.hear("n2", AppendEntriesReply(Index(3)))
    assert [outcome(ticket) for ticket in tickets] == [None, None]
    await rig.complete()
    assert [outcome(ticket) for ticket in tickets] == [PutResult(1, 1), None]
    await rig.complete()
    assert [outcome(ticket) for ticket in tickets] == [PutResult(1, 1), PutResult(2, 1)]


@in_virtual_time
async def test_a_cluster_of_one_answers_from_its_disk() -> None:
    rig = Rig("n1")
    await settle()
    await rig.complete()  # its vote
    await rig.complete()  # its no-op
    ticket = rig.put()
    await advance(200)
    assert outcome(ticket) is None
    await rig.complete()
    assert outcome(ticket) == PutResult(1, 1)


@in_virtual_time
async def test_what_comes_in_one_pass_is_one_turn() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.lead()
    before = rig.replica.turns
    tickets = [rig.put(b"%d" % i) for i in range(100)]
    await settle()
    assert rig.replica.turns == before + 1
    ((write, _),) = rig.under_way
    assert len(write.entries) == 1
    await rig.complete()
    await rig.hear("n2", AppendEntriesReply(Index(2)))
    assert [outcome(ticket) for ticket in tickets] == [PutResult(i, 1) for i in range(1, 101)]


@in_virtual_time
async def test_a_durable_write_that_decides_nothing_costs_no_turn() -> None:
    follower, leader = Rig("n1", "n2", "n3"), Rig("n1", "n2", "n3")
    await follower.hear("n2", append(1, 3))
    before = follower.replica.turns
    await follower.complete()
    assert follower.sent(AppendEntriesReply) == [AppendEntriesReply(Index(3))]
    assert follower.replica.turns == before
    await leader.lead()
    leader.put()
    await settle()
    before = leader.replica.turns
    await leader.complete()
    assert leader.replica.turns == before, "a majority is still to come"
    await leader.hear("n2", AppendEntriesReply(Index(2)))
    assert leader.replica.turns == before + 1


@in_virtual_time
async def test_a_candidate_that_has_counted_itself_knows_when_to_ask_again() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.hear("n2", append(1, 1))
    await rig.complete()
    rig.driver.on_peer_lost(NodeId("n2"))
    await advance(10)
    await rig.hear("n3", PreVoteReply(Term(2), granted=True))
    await advance(20)  # no timer is left but that of the election
    await rig.complete()
    assert rig.sent(RequestVote) != []
    rig.events.clear()
    await advance(100)
    assert rig.sent(PreVote) != [], "long before an election timeout: its leader's link broke"


@in_virtual_time
async def test_a_barrier_waits_for_a_majority() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.lead()
    ticket = rig.driver.barrier(5000)
    await settle()
    assert not ticket.done()
    (heartbeat, _) = rig.sent(Heartbeat)
    assert isinstance(heartbeat, Heartbeat)
    await rig.hear("n3", HeartbeatReply(heartbeat.round))
    assert ticket.done()
    assert ticket.result() is None


@in_virtual_time
async def test_requests_end_at_their_deadline() -> None:
    rig = Rig("n1", "n2", "n3")
    loop = asyncio.get_running_loop()
    start = loop.time()
    tickets = [rig.put(timeout_ms=50), rig.driver.barrier(120)]
    for ticket, deadline_ms in zip(tickets, (50, 120), strict=True):
        error = (await asyncio.gather(ticket, return_exceptions=True))[0]
        assert isinstance(error, NoQuorum)
        assert error.outcome is Outcome.NOT_APPLIED
        waited_ms = round((loop.time() - start) * 1000, 3)
        assert deadline_ms <= waited_ms < deadline_ms + 2


@in_virtual_time
async def test_a_client_that_is_gone_does_no_harm() -> None:
    rig = Rig("n1", "n2", "n3")
    await rig.lead()
    tickets = [rig.put(b"%d" % i) for i in range(4)]
    barriers = [rig.driver.barrier(5000) for _ in range(2)]
    tickets[0].cancel()
    barriers[0].cancel()
    await settle()
    tickets[2].cancel()
    (heartbeat, *_) = rig.sent(Heartbeat)
    assert isinstance(heartbeat, Heartbeat)
    await rig.complete()
    await rig.hear("n2", AppendEntriesReply(Index(2)), HeartbeatReply(heartbeat.round))
    assert [outcome(tickets[i]) for i in (1, 3)] == [PutResult(2, 1), PutResult(4, 1)]
    assert barriers[1].done()
    late = rig.put(b"late", timeout_ms=30)
    late.cancel()
    await advance(100)  # its deadline finds nobody
    assert rig.fatal == []


@in_virtual_time
async def test_staleness() -> None:
    rig = Rig("n1", "n2", "n3")
    await settle()
    assert rig.driver.staleness_ms() is None
    await rig.hear("n2", Heartbeat(Index(0), Index(0), 1))
    assert round(rig.driver.staleness_ms() or 0) == 0
    await advance(40)
    assert round(rig.driver.staleness_ms() or 0) == 40
