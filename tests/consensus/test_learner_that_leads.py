"""Whom a later membership made a learner may stand, and lead, until that membership is committed (4.2.2)."""

from __future__ import annotations

from raftkv.consensus import Envelope, Log, Node
from raftkv.consensus.membership import encode_membership
from raftkv.consensus.messages import Message, PreVoteReply, RequestVoteReply
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import (
    Entry,
    EntryKind,
    GroupId,
    HardState,
    Index,
    Learner,
    Membership,
    NodeId,
    Term,
)

ME = NodeId("n3")
LEARNING = Membership((NodeId("n1"), NodeId("n2")), learners=(Learner(ME, True, None),))


def test_it_does_not_count_its_own_rounds_as_a_learner() -> None:
    entry = Entry(Index(1), Term(1), EntryKind.CONFIG, 0, encode_membership(LEARNING))
    node = Node(
        ME,
        Membership.of("n1", "n2", "n3"),
        uniform=lambda low, high: low,
        now_ms=0.0,
        hard_state=HardState(Term(1), None),
        log=Log([entry]),
    )

    def hear(term: int, message: Message) -> None:
        for peer in LEARNING.voters:
            node.step(Envelope(GroupId(0), peer, ME, Term(term), message))
        ready = node.take_ready()
        if ready.write is not None:
            node.persisted(ready.mark)

    node.tick(1_000.0)
    node.take_ready()
    hear(1, PreVoteReply(Term(2), granted=True))
    hear(2, RequestVoteReply(granted=True))
    assert isinstance(node.role, Leader)
    assert node.membership == LEARNING
    node.take_ready()
