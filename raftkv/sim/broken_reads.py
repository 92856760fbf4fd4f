"""Broken twins of what reads rest on, and of who may be voted for, for ``ablation.py``."""

from __future__ import annotations

from typing import Any

from raftkv.consensus.election import RaftElection
from raftkv.consensus.messages import HeartbeatReply
from raftkv.consensus.node import Node
from raftkv.consensus.reads import Reads
from raftkv.consensus.ready import Ready
from raftkv.consensus.replication import Replication
from raftkv.consensus.roles import Leader, ReadRequest
from raftkv.consensus.types import NodeId, Term
from raftkv.reading import Reading
from raftkv.replica import Replica

Patch = tuple[Any, str, Any]


# -- rounds ------------------------------------------------------------------------------------------------


def round_under_way_joined() -> Patch:
    """A read is confirmed by a round that had begun before it came."""
    original = Reads.register

    def register(self: Reads, leader: Leader, request: ReadRequest) -> bool:
        if leader.reads_open is None:
            return original(self, leader, request)
        leader.reads_open.requests.append(request)
        return True

    return Reads, "register", register


def any_answer_confirms() -> Patch:
    """Whichever round an answer is to, it confirms the latest."""
    original = Replication.on_heartbeat_reply

    def on_heartbeat_reply(self: Replication, leader: Leader, sender: NodeId, reply: HeartbeatReply) -> None:
        original(self, leader, sender, HeartbeatReply(leader.round))

    return Replication, "on_heartbeat_reply", on_heartbeat_reply


# -- how fresh a machine is --------------------------------------------------------------------------------


def fresh_from_the_answer() -> Patch:
    """A leader is as fresh as when the answers to a round came, not as when it began."""
    original = Replication._note_confirmed

    def note_confirmed(self: Replication, leader: Leader) -> None:
        before = leader.confirmed_ms
        original(self, leader)
        if leader.confirmed_ms > before:
            leader.confirmed_ms = self._core.now_ms

    return Replication, "_note_confirmed", note_confirmed


def vouched_from_the_last_question() -> Patch:
    """A grant vouches for the time of the last question, though it may answer the first."""
    original = Reading.ask

    def ask(self: Reading, now_ms: float) -> float:
        due_ms = original(self, now_ms)
        if self.group is not None:
            self.group.first_sent_ms = self.group.sent_ms
        return due_ms

    return Reading, "ask", ask


def fresh_before_applied() -> Patch:
    """A machine is as fresh as its node, which may know more than is applied."""
    original = Replica.apply

    def apply(self: Replica, ready: Ready) -> Any:
        answers = original(self, ready)
        self.fresh_ms = self._node.fresh_ms
        return answers

    return Replica, "apply", apply


# -- votes -------------------------------------------------------------------------------------------------


def loyalty_left_out() -> Patch:
    """Who hears its leader, or is bound to it, votes for others all the same."""

    def is_loyal(self: Node) -> bool:
        return False

    return Node, "_is_loyal", is_loyal


def vote_forgotten() -> Patch:
    """Who steps down within a term forgets its vote."""
    original = RaftElection.follow

    def follow(self: RaftElection, term: Term, leader: NodeId | None) -> None:
        self._core.voted_for = None
        original(self, term, leader)

    return RaftElection, "follow", follow


ALL: dict[str, Patch] = {
    "a read joins the round under way": round_under_way_joined(),
    "any answer confirms the latest round": any_answer_confirms(),
    "freshness counted from the answer": fresh_from_the_answer(),
    "staleness counted from the last question": vouched_from_the_last_question(),
    "fresh before it is applied": fresh_before_applied(),
    "who hears its leader votes for others": loyalty_left_out(),
    "vote forgotten by stepping down": vote_forgotten(),
}
