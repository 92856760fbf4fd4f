"""Who waits for an answer, and for what: requests, batches under way, reads to be confirmed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raftkv.consensus.types import Index, NodeId
from raftkv.errors import NoQuorum, Outcome, RaftkvError, TimedOut, TooManyRequests

ErrorMaker = Callable[[Outcome], RaftkvError]
Answer = tuple[Any, Any]
"""(ticket, result or RaftkvError)"""


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """Bounds on what waits here; all positive."""

    max_batch_commands: int = 1_000
    max_batch_bytes: int = 256 << 10  # of commands; one larger command still goes alone
    # handed on and not yet applied; what comes meanwhile makes the next batch larger
    max_inflight_batches: int = 16
    # as long as so many are, only a batch that has no room for more is handed on
    max_inflight_unfilled: int = 2
    max_batch_span: int = (
        1_000  # batches begun since the oldest one under way: what the session table may hold
    )
    max_waiting_requests: int = 20_000  # commands not yet in a batch, and barriers; beyond it 429
    max_waiting_bytes: int = 64 << 20  # of commands not yet in a batch
    max_resend_ms: float = 5_000.0  # how long it waits for that at most; it doubles each time
    # what a leader hasn't answered by then, and up to half as long again, is handed to it again
    resend_ms: float = 300.0

    def max_inflight(self, commands: int, size_bytes: int) -> int:
        """How many batches may be under way for one of what waits to follow. One that has room for more waits
        for fewer, since what a batch costs (frames, an fsync, turns) it costs on every node.
        """
        if commands >= self.max_batch_commands or size_bytes >= self.max_batch_bytes:
            return self.max_inflight_batches
        return min(self.max_inflight_unfilled, self.max_inflight_batches)


@dataclass(slots=True)
class Waiter:
    ticket: Any  # None: answered already
    deadline_ms: float


@dataclass(slots=True)
class Batch:
    """A sealed batch on its way. ``waiters`` stand in the order of its commands."""

    seq: int
    data: bytes
    waiters: list[Waiter]
    patience_ms: float  # how long it waits for this leader before it is handed to it again
    made_ms: float = float("-inf")
    handed: bool = False  # to any leader, ever: from then on its outcome is open until applied
    taken_by: tuple[NodeId | None, int] = (None, 0)  # the leader and term that it was last handed to
    due_ms: float = float("inf")  # when it is handed on again


@dataclass(slots=True)
class ReadGroup:
    """Barriers that wait for one ReadIndex.

    It may be asked for again, under a new id. NB: a grant for any id from ``first_id`` on will do: all were
    asked for after these waiters came. Else an answer slower than ``resend_ms`` would never be taken.
    """

    first_id: int
    waiters: list[Waiter]
    asked: bool = False  # of this leader, and not too long ago
    sent_ms: float = float("-inf")
    first_sent_ms: float = float("inf")  # a grant holds all that was acknowledged before that


def gather(pending: deque[tuple[bytes, Waiter]], limits: ReplicaLimits) -> tuple[list[bytes], list[Waiter]]:
    """Take from the front of ``pending`` what fits in one batch."""
    size = 0
    commands: list[bytes] = []
    waiters: list[Waiter] = []
    while pending and len(commands) < limits.max_batch_commands:
        size += len(pending[0][0])
        if commands and size > limits.max_batch_bytes:
            break
        command, waiter = pending.popleft()
        commands.append(command)
        waiters.append(waiter)
    return commands, waiters


def take_released(granted: list[tuple[Index, list[Waiter]]], applied: Index) -> list[Waiter]:
    """Those of ``granted`` whose index is applied; they leave it."""
    released = [waiter for index, waiters in granted if index <= applied for waiter in waiters]
    # NB: where all are gone, a peer that lies may have granted what never comes.
    granted[:] = [(index, waiters) for index, waiters in granted if index > applied and waiters]
    return released


def too_many() -> RaftkvError:
    return TooManyRequests(
        "too many requests wait on this node; slow down or ask another", retry_after_ms=100
    )


def too_late(leader: NodeId | None, outcome: Outcome, *, is_read: bool) -> RaftkvError:
    """Why a request wasn't answered before its deadline; ``leader``: whom its node follows then."""
    if leader is not None and not is_read:
        detail = "the cluster has a leader, but the write was not decided in time"
        return TimedOut(detail, outcome=outcome, leader=leader)
    detail = "the leader, or the majority behind it, did not confirm the read in time"
    if leader is None:
        detail = "no majority of the nodes could be reached in time: too many are down or cut off"
    # NB: who retries by that header must not do twice what may have happened.
    retry_after_ms = 1000 if outcome is Outcome.NOT_APPLIED else None
    return NoQuorum(detail, outcome=outcome, retry_after_ms=retry_after_ms)


def lost_results() -> RaftkvError:
    """Why a batch that the machine has seen gives no answer here."""
    detail = "the write was applied, but came here within a snapshot: what it led to isn't known"
    return TimedOut(detail, outcome=Outcome.UNKNOWN)
