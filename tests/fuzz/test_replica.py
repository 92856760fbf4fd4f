"""Peers that say anything well-formed: the replica takes it, passes over it, or stops for a reason it names.

A peer that lies isn't in the fault model: it may bring down the leader, or make entries committed that no
majority has. But it must not make the replica fail in a way that nobody thought of, nor keep what it says for
ever. Where one node can see by itself that a promise was broken, it stops (``consensus/invariants.py``):
``FATAL`` is all there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.consensus import messages as m
from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.membership import encode_membership
from raftkv.consensus.types import (
    AddLearner,
    Change,
    Entry,
    EntryKind,
    GroupId,
    Index,
    Move,
    NodeId,
    Promote,
    Remove,
    SnapshotMeta,
    Term,
    Verdict,
)
from raftkv.errors import Outcome, RaftkvError, TooManyRequests
from raftkv.wire.frames import MAX_NUMBER
from tests.fuzz.budget import budget
from tests.fuzz.player import ME, Player, batch, entry
from tests.wire.strategies import memberships

# -- what a node stops for -------------------------------------------------------------------------------

FATAL: dict[str, tuple[Callable[[Player], None], m.Message, str]] = {
    "another leader of our term, by a heartbeat": (
        Player.lead,
        m.Heartbeat(Index(0), Index(0), 1),
        r"both n2 and n1 lead term 4",
    ),
    "another leader of our term, by entries": (
        Player.lead,
        m.AppendEntries(Index(0), Term(0), (), Index(0)),
        r"both n2 and n1 lead term 4",
    ),
    "an acknowledgement of what was never sent": (
        Player.lead,
        m.AppendEntriesReply(Index(6)),
        r"n2 acknowledged entry 6, which was never sent",
    ),
    "an acknowledgement of ours that we never gave": (
        Player.follow,
        m.Heartbeat(Index(0), Index(5), 2),
        r"n2 says that this node acknowledged entry 5, but its log ends at 4: its data directory was lost",
    ),
    "another entry where one is committed": (
        Player.follow,
        m.AppendEntries(Index(1), Term(1), (entry(2, 2),), Index(0)),
        r"a leader of term 2 sent another entry for committed index 2",
    ),
}
FATAL_WORDS = re.compile(
    r"both n[239] and n1 lead term \d+"
    r"|n[239] acknowledged entry \d+, which was never sent"
    r"|n[239] says that this node acknowledged entry \d+, but its log ends at \d+: its data directory was .*"
    r"|a leader of term \d+ sent another entry for committed index \d+"
)


@pytest.mark.parametrize("name", FATAL)
def test_what_a_node_stops_for(name: str) -> None:
    prepare, message, words = FATAL[name]
    player = Player()
    prepare(player)
    before = [entry.data for entry in player.node.log.slice(Index(1), 1 << 30)]
    with pytest.raises(InvariantBroken, match=words) as broken:
        player.hear(message)
    assert FATAL_WORDS.fullmatch(str(broken.value))
    assert [entry.data for entry in player.node.log.slice(Index(1), 1 << 30)] == before, "and nothing was cut"


# -- anything --------------------------------------------------------------------------------------------

near = st.integers(0, 8)
numbers = near | st.sampled_from([2**31, 2**32, 2**62, MAX_NUMBER]) | st.integers(0, MAX_NUMBER)
terms = st.integers(0, 6) | st.sampled_from([2**32, MAX_NUMBER - 2000])
blobs = (
    st.binary(max_size=20)
    | st.just(b"")
    | st.builds(batch, st.sampled_from(["n1", "n2"]), st.integers(4, 6), st.integers(1, 4), st.integers(0, 3))
)


NAMES = st.sampled_from(["n1", "n2", "n3", "n9"])
CHANGES: list[Change] = [
    AddLearner(NodeId("n9"), "h:1"),
    AddLearner(NodeId("n9"), "h:1", True, NodeId("n1")),
    Promote(NodeId("n9")),
    Remove(NodeId("n1")),
    Remove(NodeId("n2")),
    Move(NodeId("n3"), "h:2"),
]
configs = memberships(NAMES).map(encode_membership)


@st.composite
def appends(draw: st.DrawFn, term: int) -> m.AppendEntries:
    """As the codec lets them in: without gaps, terms ascending up to the message's."""
    prev = draw(near | st.just(MAX_NUMBER - 9))
    prev_term, *rest = sorted(
        draw(st.lists(st.integers(0, min(term, 6)) | st.just(term), min_size=1, max_size=5))
    )
    times = st.sampled_from([0, 5, MAX_NUMBER])
    entries = []
    for n, at in enumerate(rest, 1):
        kind = draw(st.sampled_from(EntryKind))
        data = draw(configs if kind is EntryKind.CONFIG else blobs)
        entries.append(Entry(Index(prev + n), Term(at), kind, draw(times), data))
    return m.AppendEntries(Index(prev), Term(prev_term), tuple(entries), Index(draw(numbers)))


READ_IDS = numbers | st.integers(5 << 32, (5 << 32) + 20)  # ours begin at the incarnation
MESSAGES: dict[type, st.SearchStrategy[Any]] = {
    m.PreVote: st.builds(m.PreVote, numbers, numbers, numbers),
    m.PreVoteReply: st.builds(m.PreVoteReply, terms | numbers, st.booleans()),
    m.RequestVote: st.builds(m.RequestVote, numbers, numbers, st.booleans()),
    m.RequestVoteReply: st.builds(m.RequestVoteReply, st.booleans()),
    m.AppendEntries: st.nothing(),  # depends on the term: ``messages``
    m.AppendEntriesReply: st.builds(m.AppendEntriesReply, near | near | numbers),
    m.AppendEntriesRefusal: st.builds(m.AppendEntriesRefusal, numbers, numbers, numbers),
    m.Heartbeat: st.builds(m.Heartbeat, numbers, near | near | numbers, numbers),
    m.HeartbeatReply: st.builds(m.HeartbeatReply, numbers),
    m.LeaseGrant: st.builds(m.LeaseGrant, numbers, numbers),
    m.LeaseRead: st.builds(m.LeaseRead, numbers),
    m.ReadIndex: st.builds(m.ReadIndex, numbers),
    m.ReadIndexReply: st.builds(m.ReadIndexReply, READ_IDS, numbers),
    m.Propose: st.builds(m.Propose, st.lists(blobs, max_size=4).map(tuple)),
    m.TransferLeadership: st.builds(
        m.TransferLeadership, st.sampled_from([None, NodeId("n1"), NodeId("n2"), NodeId("n9")])
    ),
    m.TimeoutNow: st.builds(m.TimeoutNow),
    m.InstallSnapshot: st.builds(
        m.InstallSnapshot, st.builds(SnapshotMeta, numbers, terms, numbers), memberships(NAMES)
    ),
    m.ChangeMembers: st.builds(m.ChangeMembers, numbers, st.sampled_from(CHANGES), st.booleans()),
    m.ChangeMembersReply: st.builds(
        m.ChangeMembersReply, READ_IDS, st.sampled_from(Verdict), near | numbers, st.sampled_from(["", "no"])
    ),
}


@cache
def messages(term: int) -> st.SearchStrategy[Any]:
    """What may stand in an envelope of ``term``. Cached: making one costs more than drawing."""
    return st.one_of(appends(term), appends(term), *MESSAGES.values())


def test_every_message_is_tried() -> None:
    assert set(MESSAGES) == set(get_args(m.Message))


STEPS = st.integers(0, 12)
WAITS = st.sampled_from([0.0, 1.0, 60.0, 400.0, 10_000.0])
TIMEOUTS = st.sampled_from([0.0, 100.0, 5000.0])
LOST = st.sampled_from(["n2", "n3", "n9"])
SENDERS = st.sampled_from(["n2", "n2", "n3", "n1", "n9"])
RECEIVERS = st.sampled_from([ME] * 9 + [NodeId("n2")])
GROUPS = st.sampled_from([0] * 9 + [1])
OTHER_TERMS = st.sampled_from(["ours", "ours", "ours", "next", "any"])


def an_envelope(player: Player, data: st.DataObject) -> m.Envelope:
    term: int = player.node.current_term
    match data.draw(OTHER_TERMS):
        case "next":
            term = min(term + 1, MAX_NUMBER - 2000)
        case "any":
            term = data.draw(terms)
    message = data.draw(messages(term))
    group, sender, receiver = data.draw(GROUPS), data.draw(SENDERS), data.draw(RECEIVERS)
    return m.Envelope(GroupId(group), NodeId(sender), receiver, Term(term), message)


def one_step(player: Player, data: st.DataObject) -> None:
    match data.draw(STEPS):
        case 0:
            player.wait(data.draw(WAITS))
        case 1:
            with suppress(TooManyRequests):
                player.put(data.draw(TIMEOUTS))
        case 2:
            with suppress(TooManyRequests):
                player.barrier(data.draw(TIMEOUTS))
        case 3:
            change, force = data.draw(st.sampled_from(CHANGES)), data.draw(st.booleans())
            player.change(change, force, data.draw(TIMEOUTS))
        case 4:
            player.replica.peer_lost(NodeId(data.draw(LOST)))
            player.turn()
        case _:
            player.replica.clock(player.now_ms)
            player.replica.step(an_envelope(player, data))
            player.turn()


@given(st.sampled_from([None, Player.follow, Player.lead]), st.data())
@budget(150)
def test_anything_a_peer_may_say(prepare: Callable[[Player], None] | None, data: st.DataObject) -> None:
    player = Player()
    if prepare is not None:
        prepare(player)
    try:
        for _ in range(data.draw(st.integers(1, 15), "steps")):
            one_step(player, data)
    except InvariantBroken as broken:
        if FATAL_WORDS.fullmatch(str(broken)) is None:
            raise
        return
    # Whatever was said, nobody waits beyond a deadline, and nothing of theirs is left then.
    player.wait(20_000)
    assert set(player.answers) == set(range(1, player.tickets + 1))
    assert player.replica.waiting == {
        "commands": 0,
        "batches": 0,
        "barriers": 0,
        "handovers": 0,
        "changes": 0,
    }
    assert player.replica._reading.granted == []


# -- what was found --------------------------------------------------------------------------------------


def test_a_batch_under_our_name_that_we_never_made() -> None:
    """Its results are nobody's answers: who waits for our own is told that its outcome is unknown."""
    for commands in (1, 3):
        player = Player()
        player.follow()
        ticket = player.put()
        forged = entry(5, 3, batch("n1", 5, 1, commands))
        player.hear(m.AppendEntries(Index(4), Term(3), (forged,), Index(5)))
        assert player.replica.last_applied == 5
        assert player.answers == {}
        for _ in range(50):
            player.wait(40)
            player.hear(m.Heartbeat(Index(5), Index(5), 1))
        player.wait(4000)
        (answer,) = player.answers[ticket]
        assert isinstance(answer, RaftkvError)
        assert answer.outcome is Outcome.UNKNOWN


def test_grants_of_what_never_comes_are_forgotten_with_those_who_waited() -> None:
    player = Player()
    player.follow()
    for _ in range(30):
        player.barrier(timeout_ms=50)
        player.hear(m.ReadIndexReply((5 << 32) + 1000, Index(MAX_NUMBER)))
        player.wait(51)
    assert len(player.answers) == 30
    assert player.replica._reading.granted == []
