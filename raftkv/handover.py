"""Wishes that another node lead: who asked for what, and what they are answered. Pure, as the replica is.

A wish is put to the leader once, by whichever node it came to. It is fulfilled when this node sees the
wished-for one lead: that takes no message back. It isn't tried again, neither by the same leader nor by
another: a transfer holds up all writes, so whoever asked must want that once more, and two wishes would
fight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raftkv.consensus.node import Node
from raftkv.consensus.types import NodeId, Term
from raftkv.errors import BadRequest, NoQuorum, NoSuccessor, Outcome, RaftkvError, TimedOut
from raftkv.waiting import Answer

PATIENCE = 2  # of the longest election timeout: a leader that was asked has given up by then, or won't hear


@dataclass(slots=True)
class Wish:
    ticket: Any
    target: NodeId | None  # None: anyone but who leads
    deadline_ms: float
    instead_of: NodeId | None  # who led when it came; None: nobody, as far as this node knew
    asked: tuple[NodeId, Term] | None = None  # of which leader, in which term; None: not yet


class Handovers:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._wishes: list[Wish] = []
        self.due_ms = float("inf")  # when the first of them must be answered

    def __len__(self) -> int:
        return len(self._wishes)

    def add(self, target: NodeId | None, ticket: Any, deadline_ms: float) -> None:
        """``ticket`` is answered with (who leads, its term), or a ``RaftkvError``.

        Raises BadRequest where ``target`` is no member.
        """
        members = self._node.membership.voters
        if target is not None and target not in members:
            raise BadRequest(f"{target!r} is no member of this cluster, which has {', '.join(members)}")
        self._wishes.append(Wish(ticket, target, deadline_ms, self._node.leader))
        self.due_ms = min(self.due_ms, deadline_ms)

    def pump(self, now_ms: float) -> list[Answer]:
        """At a turn's end: ask who must be asked, and return the answers that are due."""
        if not self._wishes:
            return []
        judged = [(wish, self._judge(wish, now_ms)) for wish in self._wishes]
        self._wishes = [wish for wish, answer in judged if answer is None]
        self.due_ms = min((wish.deadline_ms for wish in self._wishes), default=float("inf"))
        return [(wish.ticket, answer) for wish, answer in judged if answer is not None]

    def fail_all(self, error: RaftkvError) -> list[Answer]:
        wishes, self._wishes = self._wishes, []
        return [(wish.ticket, error) for wish in wishes]

    def _judge(self, wish: Wish, now_ms: float) -> tuple[NodeId, Term] | RaftkvError | None:
        node = self._node
        leader, term = node.leader, node.current_term
        if leader is not None and _is_fulfilled(wish, leader):
            return leader, term
        if now_ms >= wish.deadline_ms:
            return self._too_late(wish)
        if leader is None:
            return None
        if wish.asked is not None:
            return self._too_late(wish) if self._has_failed(wish, wish.asked) else None
        if not node.transfer(wish.target):
            return NoSuccessor("no other member could take over: none that is up is heard from")
        wish.asked, wish.instead_of = (leader, term), wish.instead_of or leader
        patience_ms = PATIENCE * node.timing.election_timeout_max_ms
        wish.deadline_ms = min(wish.deadline_ms, now_ms + patience_ms)
        return None

    def _has_failed(self, wish: Wish, asked: tuple[NodeId, Term]) -> bool:
        """Whether somebody else was elected, or we lead and no longer try."""
        node = self._node
        if (node.leader, node.current_term) != asked:
            return True
        tries_another = wish.target is not None and node.hands_over_to != wish.target
        return node.leader == node.node_id and (node.hands_over_to is None or tries_another)

    def _too_late(self, wish: Wish) -> RaftkvError:
        leader = self._node.leader
        if leader is None and wish.asked is None:
            return NoQuorum("no leader is known that could hand over", retry_after_ms=1000)
        who = "nobody took" if wish.target is None else f"{wish.target} did not take"
        detail = (
            f"{who} over in time; the leader is {leader or 'not known'}. "
            "Look at /v1/cluster whether it is up and how far it lags, then ask again"
        )
        # NB: a target that hears late may yet take over.
        return TimedOut(detail, outcome=Outcome.UNKNOWN, leader=leader)


def _is_fulfilled(wish: Wish, leader: NodeId) -> bool:
    if wish.target is not None:
        return leader == wish.target
    return wish.instead_of is not None and leader != wish.instead_of
