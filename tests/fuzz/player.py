"""One real replica among peers that say anything. Its disk is instant; what it sends goes nowhere."""

from __future__ import annotations

from random import Random
from typing import Any

from raftkv.consensus import Log, Node
from raftkv.consensus import messages as m
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import (
    Change,
    Entry,
    EntryKind,
    GroupId,
    HardState,
    Index,
    Membership,
    NodeId,
    Term,
)
from raftkv.kv.commands import encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId, encode_batch
from raftkv.replica import Replica, ReplicaLimits
from raftkv.wire.codec import decode_envelopes, encode_envelopes
from raftkv.wire.frames import MAX_NUMBER

ME, PEERS = NodeId("n1"), (NodeId("n2"), NodeId("n3"))
LIMITS = ReplicaLimits(max_waiting_requests=20)


def batch(node: str, incarnation: int, seq: int, commands: int = 1) -> bytes:
    """A sealed batch of puts under any name."""
    return encode_batch(BatchId(node, incarnation, seq, 1), [encode_put(b"k", b"v")] * commands)


def entry(index: int, term: int, data: bytes | None = None) -> Entry:
    data = batch("n2", 1, index) if data is None else data
    return Entry(Index(index), Term(term), EntryKind.BATCH, 0, data)


class Player:
    """``n1`` of three, in term 3 behind a log of 4 entries of terms 1, 1, 2 and 3."""

    def __init__(self) -> None:
        self.now_ms = 1000.0
        self.answers: dict[Any, list[Any]] = {}
        self.tickets = 0
        self.commit_index = 0
        self.machine = KvMachine()
        log = Log([entry(1, 1), entry(2, 1), entry(3, 2), entry(4, 3)])
        node = Node(
            ME,
            Membership.of(ME, *PEERS),
            uniform=Random(7).uniform,
            now_ms=self.now_ms,
            hard_state=HardState(Term(3), None),
            log=log,
        )
        self.replica = Replica(node, self.machine, incarnation=5, limits=LIMITS)

    @property
    def node(self) -> Node:
        return self.replica.node

    def hear(self, message: m.Message, term: int | None = None, sender: str = "n2") -> None:
        """``message`` from a peer, of ``term`` or else our own, and the turn that follows."""
        at = self.node.current_term if term is None else Term(term)
        self.replica.clock(self.now_ms)
        self.replica.step(m.Envelope(GroupId(0), NodeId(sender), ME, at, message))
        self.turn()

    def turn(self) -> None:
        """One turn, and all that follows from it without the others. What must hold after each is checked."""
        while True:
            self.replica.tick(self.now_ms)
            ready = self.replica.take_ready()
            for ticket, answer in self.replica.apply(ready):
                self.answers.setdefault(ticket, []).append(answer)
            if ready.write is not None:
                self.replica.persisted(ready.mark)
            self._check(*ready.messages, *ready.promises)
            if ready.write is None and not self.replica.has_more:
                return

    def _check(self, *sent: m.Envelope) -> None:
        node = self.node
        assert self.commit_index <= node.commit_index <= node.log.last_index
        assert self.replica.last_applied <= node.commit_index
        self.commit_index = node.commit_index
        assert self.replica.waiting["commands"] <= LIMITS.max_waiting_requests
        assert all(len(answers) == 1 for answers in self.answers.values())
        if node.current_term < MAX_NUMBER and node.log.last_time_ms <= MAX_NUMBER:
            assert decode_envelopes(encode_envelopes(sent)) == list(sent), "what peers would refuse"

    def wait(self, ms: float) -> None:
        self.now_ms += ms
        self.turn()

    def put(self, timeout_ms: float = 5000) -> int:
        self.tickets += 1
        self.replica.propose(encode_put(b"ours", b"v"), self.tickets, self.now_ms + timeout_ms)
        self.turn()
        return self.tickets

    def barrier(self, timeout_ms: float = 5000) -> int:
        self.tickets += 1
        self.replica.barrier(self.tickets, self.now_ms + timeout_ms)
        self.turn()
        return self.tickets

    def change(self, change: Change, force: bool, timeout_ms: float) -> None:
        self.tickets += 1
        self.replica.change_members(change, force, self.tickets, self.now_ms + timeout_ms)
        self.turn()

    def follow(self) -> None:
        """``n2`` leads, and has told us that the first two entries are committed."""
        self.hear(m.Heartbeat(Index(2), Index(4), 1))
        assert self.node.leader == "n2"

    def lead(self) -> None:
        """Win an election with ``n2``'s vote; nothing of the new term is committed yet."""
        self.wait(700)
        self.hear(m.PreVoteReply(Term(self.node.current_term + 1), True))
        self.hear(m.RequestVoteReply(True))
        assert isinstance(self.node.role, Leader)
