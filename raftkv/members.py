"""Wishes to change the members: who asked for what, and what they are answered. Pure, as the replica is.

A wish is put to the leader by whichever node it came to, and again where no answer comes, where it isn't the
moment for it, or when another leads: that is harmless, since what is there already is there. It is fulfilled
when this node has applied what decides it: the entry that the leader appended for it, and, where that made
the membership joint, the one that left it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from raftkv.consensus.membership import decode_membership
from raftkv.consensus.messages import ChangeMembersReply
from raftkv.consensus.node import Node
from raftkv.consensus.ready import ChangeReply
from raftkv.consensus.types import Change, Entry, EntryKind, Index, NodeId, Term, Verdict
from raftkv.errors import ChangeRefused, NoQuorum, Outcome, RaftkvError, TimedOut, TooManyRequests
from raftkv.waiting import Answer

MAX_WISHES = 100


@dataclass(slots=True)
class Wish:
    ticket: Any
    change: Change
    force: bool
    deadline_ms: float
    asked: tuple[NodeId | None, Term] | None = None  # of which leader, in which term; None: not yet
    ask_due_ms: float = float("-inf")  # when it is asked again
    unanswered: set[int] = field(default_factory=set)  # the contexts of questions whose answers may be lost
    reason: str | None = None  # why the leader wouldn't, when it answered last
    accepted: tuple[Index, Term] | None = None  # the entry that a leader appended for it
    was_accepted: bool = False  # or found done, by any leader, ever: from then on its outcome is open
    is_joint: bool = False  # that entry is applied, and the one that leaves the joint membership isn't
    done_at: Index | None = None  # it is fulfilled once all up to here is applied

    @property
    def outcome(self) -> Outcome:
        """What is true of it while it isn't fulfilled."""
        is_open = self.unanswered or self.was_accepted
        return Outcome.UNKNOWN if is_open else Outcome.NOT_APPLIED


class MemberWishes:
    """``first_context``: larger than any that this node ever asked under."""

    def __init__(self, node: Node, first_context: int, *, resend_ms: float) -> None:
        self._node = node
        self._next_context = first_context
        self._resend_ms = resend_ms
        self._wishes: list[Wish] = []
        self._answers: list[Answer] = []
        self._now_ms = float("-inf")

    def __len__(self) -> int:
        return len(self._wishes)

    @property
    def due_ms(self) -> float:
        """When ``pump`` must be called at the latest."""
        if not self._wishes:  # nearly always
            return float("inf")
        return min(min(each.deadline_ms, each.ask_due_ms) for each in self._wishes)

    def add(self, change: Change, force: bool, ticket: Any, deadline_ms: float) -> None:
        """``ticket`` is answered with the index at which it is as wished, or a ``RaftkvError``.

        Raises TooManyRequests.
        """
        if len(self._wishes) >= MAX_WISHES:
            raise TooManyRequests("too many changes of members wait on this node", retry_after_ms=1000)
        self._wishes.append(Wish(ticket, change, force, deadline_ms))

    def pump(self, now_ms: float) -> list[Answer]:
        """At a turn's end: ask who must be asked, and return the answers that are due."""
        self._now_ms = now_ms
        if not (self._wishes or self._answers):
            return []
        routed = (self._node.leader, self._node.current_term)
        for wish in list(self._wishes):
            if now_ms >= wish.deadline_ms:
                self._end(wish, self._too_late(wish))
                continue
            if wish.asked not in (None, routed):
                # NB: what the old leader accepted may be lost, or go on under the new one: that one knows.
                wish.accepted, wish.is_joint, wish.done_at = None, False, None
                wish.asked, wish.ask_due_ms = None, float("-inf")
            if now_ms >= wish.ask_due_ms:
                self._ask(wish, routed)
        answers, self._answers = self._answers, []
        return answers

    def fail_all(self, error: type[RaftkvError], detail: str) -> list[Answer]:
        """This node stops."""
        wishes, self._wishes = self._wishes, []
        return [(wish.ticket, error(detail, outcome=wish.outcome)) for wish in wishes]

    def replied(self, answers: Iterable[ChangeReply]) -> None:
        """A leader has answered."""
        for answer in answers:
            for wish in list(self._wishes):
                if answer.reply.context in wish.unanswered:
                    wish.unanswered.discard(answer.reply.context)
                    if wish.accepted is None and wish.done_at is None:
                        self._judge(wish, answer.reply, answer.term)

    def applied(self, entry: Entry) -> None:
        """``entry`` is applied here: does it decide anything?"""
        if entry.kind is not EntryKind.CONFIG or not self._wishes:
            return
        is_joint = decode_membership(entry.data).is_joint
        for wish in list(self._wishes):
            if is_joint and (entry.index, entry.term) == wish.accepted:
                wish.is_joint = True
            elif not is_joint and (wish.is_joint or (entry.index, entry.term) == wish.accepted):
                self._end(wish, entry.index)

    def caught_up(self, last_applied: Index) -> list[Answer]:
        """All up to ``last_applied`` is applied here. Returns the answers that are due by now."""
        if not (self._wishes or self._answers):
            return []
        for wish in list(self._wishes):
            if wish.done_at is not None and wish.done_at <= last_applied:
                self._end(wish, wish.done_at)
            elif wish.accepted is not None and not wish.is_joint and wish.accepted[0] <= last_applied:
                # It came to nothing, or within a snapshot, or before the answer did: the leader knows.
                wish.accepted, wish.ask_due_ms = None, float("-inf")
        answers, self._answers = self._answers, []
        return answers

    def _ask(self, wish: Wish, routed: tuple[NodeId | None, Term]) -> None:
        wish.ask_due_ms = float("inf")
        if wish.accepted is not None or wish.done_at is not None:
            return
        context = self._next_context
        if self._node.change_members(context, wish.change, force=wish.force):
            self._next_context += 1
            wish.unanswered.add(context)
            wish.asked = routed
        wish.ask_due_ms = self._now_ms + self._resend_ms

    def _judge(self, wish: Wish, reply: ChangeMembersReply, term: Term) -> None:
        match reply.verdict:
            case Verdict.ACCEPTED:
                wish.accepted, wish.was_accepted = (reply.index, term), True
            case Verdict.DONE:
                wish.done_at, wish.was_accepted = reply.index, True
            case Verdict.BUSY:
                wish.reason = reply.reason
            case Verdict.REFUSED:
                self._end(wish, ChangeRefused(reply.reason, leader=self._node.leader))

    def _too_late(self, wish: Wish) -> RaftkvError:
        leader, outcome = self._node.leader, wish.outcome
        if leader is None:
            detail = "no majority of the nodes could be reached in time: too many are down or cut off"
            return NoQuorum(detail, outcome=outcome)
        if outcome is Outcome.NOT_APPLIED and wish.reason is not None:
            return ChangeRefused(f"{wish.reason}; ask again later", leader=leader, retry_after_ms=1000)
        detail = "the change of members was not decided in time; look at /v1/cluster, and ask again"
        return TimedOut(detail, outcome=outcome, leader=leader)

    def _end(self, wish: Wish, answer: Index | RaftkvError) -> None:
        self._wishes.remove(wish)
        self._answers.append((wish.ticket, answer))
