"""A replica: a consensus node, a state machine, and those who wait for an answer. Pure, as both of them are.

What clients ask in one turn becomes one batch, one entry of the log (cost of an operation: near that of
parsing it). A batch is handed to whoever leads: ourselves, or the leader we know. It stays with us until we
apply it, and is handed on to the next leader if that one is lost; the machine drops what it has seen
(``kv/session.py``). The answer is given by this replica when it applies the batch, so that a client reads its
own writes on the node it wrote to.

Who waits is a *ticket*: any object, handed back with its answer. An answer is the machine's result, None for
a barrier, or a ``RaftkvError`` whose outcome says what became of the request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.messages import Envelope, InstallSnapshot
from raftkv.consensus.node import Node
from raftkv.consensus.ready import Ready
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Change, EntryKind, Index, Mark, Membership, NodeId, SnapshotMeta, Term
from raftkv.errors import Outcome, RaftkvError
from raftkv.handover import Handovers
from raftkv.kv.machine import Exporting, Restoring, StateMachine
from raftkv.kv.session import BatchId
from raftkv.members import MemberWishes
from raftkv.reading import Reading
from raftkv.waiting import (
    Answer,
    Batch,
    ErrorMaker,
    ReplicaLimits,
    Waiter,
    gather,
    lost_results,
    too_late,
    too_many,
)


def _nobody(commands: int, waited_ms: float) -> None:
    pass


class Replica:
    def __init__(
        self,
        node: Node,
        machine: StateMachine,
        *,
        incarnation: int,
        applied: Index = Index(0),
        limits: ReplicaLimits = ReplicaLimits(),
        on_batch: Callable[[int, float], None] = _nobody,
    ) -> None:
        """``incarnation`` must be larger than any that this node id has had before (durably counted).
        ``machine`` holds all up to ``applied``, as ``node`` was told. ``on_batch`` is told of each batch of
        ours that is applied: how many commands, and how long ago, in ms, it was made.
        """
        self._node = node
        self._machine = machine
        self._incarnation = incarnation
        self._limits = limits
        self._on_batch = on_batch
        self.last_applied = applied
        self.fresh_ms = float("-inf")  # when the *machine* last held all that was committed; -inf: never yet
        self._led_ms = float("-inf")
        self._now_ms = float("-inf")
        self._pending: deque[tuple[bytes, Waiter]] = deque()
        self._pending_bytes = 0
        self._inflight: dict[int, Batch] = {}
        self._next_seq = 1
        self._reading, self._leased = (
            Reading(node, (incarnation << 32) + by_lease, by_lease=by_lease, resend_ms=limits.resend_ms)
            for by_lease in (False, True)
        )
        self._restoring: dict[SnapshotMeta, Restoring] = {}  # came whole in this turn
        self._routed: tuple[NodeId | None, int] = (None, 0)  # the leader and term our batches were handed to
        self._handovers = Handovers(node)
        self._members = MemberWishes(node, incarnation << 32, resend_ms=limits.resend_ms)
        self._answers: list[Answer] = []
        self._expiry_due_ms = float("inf")
        self._resend_due_ms = float("inf")

    # -- what clients ask ----------------------------------------------------------------------------------

    def propose(self, command: bytes, ticket: Any, deadline_ms: float) -> None:
        """Replicate ``command``; ``ticket`` is answered once it is applied here, or at the deadline.

        Raises TooManyRequests (not applied) when too much waits already.
        """
        limits = self._limits
        if (
            len(self._pending) >= limits.max_waiting_requests
            or self._pending_bytes + len(command) > limits.max_waiting_bytes
        ):
            raise too_many()
        self._pending.append((command, Waiter(ticket, deadline_ms)))
        self._pending_bytes += len(command)
        self._expiry_due_ms = min(self._expiry_due_ms, deadline_ms)

    def barrier(self, ticket: Any, deadline_ms: float, *, by_lease: bool = False) -> None:
        """Answer ``ticket`` (with None) once all that was acknowledged anywhere before now is applied here.
        ``by_lease``: the leader may say so under its lease, if it has one.

        Raises TooManyRequests when too many wait already.
        """
        reading = self._leased if by_lease else self._reading
        if len(reading.waiting) >= self._limits.max_waiting_requests:
            raise too_many()
        reading.waiting.append(Waiter(ticket, deadline_ms))
        self._expiry_due_ms = min(self._expiry_due_ms, deadline_ms)

    def transfer(self, target: NodeId | None, ticket: Any, deadline_ms: float) -> None:
        """Let ``target`` lead, None: anyone but who leads now. Answers ``ticket`` with (leader, term).

        Raises BadRequest where ``target`` is no member.
        """
        self._handovers.add(target, ticket, deadline_ms)

    def change_members(self, change: Change, force: bool, ticket: Any, deadline_ms: float) -> None:
        """See ``MemberWishes.add``."""
        self._members.add(change, force, ticket, deadline_ms)

    # -- what happens --------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        return self._node

    @property
    def due_ms(self) -> float:
        """When ``tick`` must be called at the latest."""
        wishes_due_ms = min(self._handovers.due_ms, self._members.due_ms)
        return min(self._node.due_ms, self._expiry_due_ms, self._resend_due_ms, wishes_due_ms)

    @property
    def vouched_ms(self) -> float:
        """All that was acknowledged anywhere before then is applied here, for sure; -inf: nothing is. By what
        this node has asked of a leader itself, and when, or by the rounds that it had answered as the leader.
        """
        return max(self._reading.vouched_ms, self._led_ms)

    @property
    def has_more(self) -> bool:
        """Whether another turn has work to do even if nothing comes in."""
        return self._node.has_more

    @property
    def waiting(self) -> dict[str, int]:
        """How much waits here, by kind."""
        return {
            "commands": len(self._pending),
            "batches": len(self._inflight),
            "barriers": sum(len(waiters) for waiters in self._read_groups()),
            "handovers": len(self._handovers),
            "changes": len(self._members),
        }

    def clock(self, now_ms: float) -> None:
        """See ``Node.clock``."""
        self._now_ms = now_ms
        self._node.clock(now_ms)

    def tick(self, now_ms: float) -> None:
        self._now_ms = now_ms
        self._node.tick(now_ms)
        if now_ms >= self._expiry_due_ms:
            self._expire()
        if now_ms >= self._resend_due_ms:
            self._resend()

    def step(self, envelope: Envelope) -> None:
        # NB: a snapshot's end means nothing without the snapshot, which no frame brings: see ``install``.
        if not isinstance(envelope.message, InstallSnapshot):
            self._node.step(envelope)

    def peer_lost(self, peer: NodeId) -> None:
        self._node.peer_lost(peer)

    # -- snapshots -----------------------------------------------------------------------------------------

    def capture(self) -> tuple[SnapshotMeta, Exporting]:
        """The machine as it is now, and the entry it has applied last. Raises RuntimeError while too many
        are being read.
        """
        return self._node.log.meta_at(self.last_applied), self._machine.export()

    def install(
        self, sender: NodeId, term: Term, meta: SnapshotMeta, membership: Membership, restoring: Restoring
    ) -> None:
        """The snapshot that ``sender`` sent in its ``term`` is durable here, and was fed to ``restoring``, to
        its end. If the log needs it, the machine becomes it with this turn; else it is forgotten.
        """
        self._restoring.setdefault(meta, restoring)
        node = self._node
        node.step(Envelope(node.group, sender, node.node_id, term, InstallSnapshot(meta, membership)))

    def restorer(self) -> Restoring:
        """What takes a snapshot's chunks for ``install``."""
        return self._machine.restorer()

    def compact(self, index: Index) -> None:
        """See ``Node.compact``."""
        self._node.compact(index)

    def snapshot_ended(self, peer: NodeId) -> None:
        """See ``Node.snapshot_ended``."""
        self._node.snapshot_ended(peer)

    def persisted(self, mark: Mark) -> bool:
        """See ``Node.persisted``."""
        return self._node.persisted(mark)

    def take_ready(self) -> Ready:
        """End the turn: hand on what clients asked for, and take what the node has to say."""
        routed = (self._node.leader, self._node.current_term)
        if routed != self._routed:
            self._routed = routed
            self._hand_over()
        if self._pending:
            self._hand_on()
        for reading in (self._reading, self._leased):
            self._resend_due_ms = min(self._resend_due_ms, reading.ask(self._now_ms))
        self._answers += self._handovers.pump(self._now_ms) + self._members.pump(self._now_ms)
        return self._node.take_ready()

    def apply(self, ready: Ready) -> list[Answer]:
        """Apply what is committed, in log order; return the answers that are due now."""
        came, self._restoring = self._restoring, {}
        if ready.installed is not None:
            if ready.installed not in came:
                raise InvariantBroken(f"the snapshot of {ready.installed} was installed, but never came")
            came[ready.installed].finish()
            self.last_applied = ready.installed.index
        self._members.replied(ready.change_replies)
        for entry in ready.committed:
            if entry.kind is EntryKind.BATCH:
                self._apply_batch(entry.time_ms, entry.data)
            self._members.applied(entry)
            self.last_applied = entry.index
        self._answers += self._members.caught_up(self.last_applied)
        for reading in (self._reading, self._leased):
            for grant in ready.reads:
                reading.take(grant)
            self._answers += [(each.ticket, None) for each in reading.released(self.last_applied)]
        # NB: the node may know for seconds what is committed before all of it is applied (after a restart).
        if not self._node.has_more:
            self.fresh_ms = self._node.fresh_ms
            self._led_ms = max(self._led_ms, self._node.led_ms)
        answers, self._answers = self._answers, []
        return answers

    def fail_all(self, error: type[RaftkvError], detail: str) -> list[Answer]:
        """This replica stops: answer everyone who still waits, each with the outcome that is true for it."""

        def stopped(outcome: Outcome) -> RaftkvError:
            return error(detail, outcome=outcome)

        self._fail_pending(lambda _: True, stopped, stopped)
        wishes = self._handovers.fail_all(stopped(Outcome.UNKNOWN)) + self._members.fail_all(error, detail)
        answers, self._answers = self._answers + wishes, []
        return answers

    # -- writes --------------------------------------------------------------------------------------------

    def _hand_on(self) -> None:
        """Make batches of what is pending, as long as there is a leader to take them and room under way.

        While we hand over the lead, it waits for who leads next.
        """
        limits = self._limits
        while (
            self._pending
            and self._node.leader is not None
            and self._node.hands_over_to is None
            and len(self._inflight) < limits.max_inflight(len(self._pending), self._pending_bytes)
        ):
            seq = self._next_seq
            low = min(self._inflight, default=seq)
            if seq - low >= limits.max_batch_span:
                return
            self._next_seq += 1
            commands, waiters = gather(self._pending, limits)
            self._pending_bytes -= sum(map(len, commands))
            name = BatchId(self._node.node_id, self._incarnation, seq, low)
            data = self._machine.seal(name, commands)
            batch = self._inflight[seq] = Batch(
                seq, data, waiters, patience_ms=limits.resend_ms, made_ms=self._now_ms
            )
            self._propose(batch)

    def _propose(self, batch: Batch) -> None:
        # NB: not all nodes at the same moments: where there is room for one, the same would always be late.
        batch.due_ms = self._now_ms + batch.patience_ms * self._node.uniform(1.0, 1.5)
        if self._node.propose((batch.data,)):
            batch.handed, batch.taken_by = True, self._routed
        self._resend_due_ms = min(self._resend_due_ms, batch.due_ms)

    def _hand_over(self) -> None:
        """The leader or the term changed: what was under way may be lost with the old one, so the new one
        gets it too.
        """
        if self._node.leader is None:
            return
        for batch in self._inflight.values():
            batch.patience_ms = self._limits.resend_ms
            self._propose(batch)
        self._reading.hand_over()
        self._leased.hand_over()

    def _resend(self) -> None:
        """Hand on again what the same leader should have dealt with by now: a message may have been lost.

        Each time waits twice as long as the last: copies would only add to what links can't keep up with. NB:
        what a leader appended to its own log can't get lost while it leads.
        """
        leads = isinstance(self._node.role, Leader)
        for batch in self._inflight.values():
            if batch.due_ms > self._now_ms:
                continue
            if leads and batch.taken_by == self._routed:
                batch.due_ms = self._now_ms + self._limits.resend_ms
            else:
                batch.patience_ms = min(2 * batch.patience_ms, self._limits.max_resend_ms)
                self._propose(batch)
        reads_due_ms = min(self._reading.resend(self._now_ms), self._leased.resend(self._now_ms))
        self._resend_due_ms = min([reads_due_ms, *(batch.due_ms for batch in self._inflight.values())])

    def _apply_batch(self, time_ms: int, data: bytes) -> None:
        applied = self._machine.apply(time_ms, data)
        if applied is None:
            return  # not a batch
        name = applied.batch
        if name.incarnation != self._incarnation or name.node != self._node.node_id:
            return
        batch = self._inflight.get(name.seq)
        if batch is None or batch.data != data:  # given up ("unknown"), or only named as ours: a peer lies
            return
        del self._inflight[name.seq]
        self._on_batch(len(batch.waiters), self._now_ms - batch.made_ms)
        if applied.results is None:
            self._refuse([waiter for waiter in batch.waiters if waiter.ticket is not None], lost_results())
            return
        answered = zip(batch.waiters, applied.results, strict=True)
        self._answers += [(waiter.ticket, result) for waiter, result in answered if waiter.ticket is not None]

    # -- deadlines -----------------------------------------------------------------------------------------

    def _expire(self) -> None:
        now_ms, leader = self._now_ms, self._node.leader
        self._fail_pending(
            lambda waiter: waiter.deadline_ms <= now_ms,
            write_error=lambda outcome: too_late(leader, outcome, is_read=False),
            read_error=lambda outcome: too_late(leader, outcome, is_read=True),
        )
        left = [waiter for _, waiter in self._pending]
        for group in (*(batch.waiters for batch in self._inflight.values()), *self._read_groups()):
            left += (waiter for waiter in group if waiter.ticket is not None)
        self._expiry_due_ms = min((waiter.deadline_ms for waiter in left), default=float("inf"))

    def _read_groups(self) -> list[list[Waiter]]:
        return [*self._reading.groups, *self._leased.groups]

    def _fail_pending(
        self, is_due: Callable[[Waiter], bool], write_error: ErrorMaker, read_error: ErrorMaker
    ) -> None:
        """Answer those who are due with the outcome that is true for where their request stands."""
        kept = deque((command, waiter) for command, waiter in self._pending if not is_due(waiter))
        due = [waiter for _, waiter in self._pending if is_due(waiter)]
        self._refuse(due, write_error(Outcome.NOT_APPLIED))
        self._pending = kept
        self._pending_bytes = sum(len(command) for command, _ in kept)
        for seq, batch in list(self._inflight.items()):
            left = [waiter for waiter in batch.waiters if waiter.ticket is not None]
            due = [waiter for waiter in left if is_due(waiter)]
            given_up = len(due) == len(left)
            # NB: while others wait for it, the whole batch may yet be handed to a leader.
            outcome = Outcome.NOT_APPLIED if given_up and not batch.handed else Outcome.UNKNOWN
            self._refuse(due, write_error(outcome))
            for waiter in due:
                waiter.ticket = None  # its place stays: results come in the order of the commands
            if given_up:
                del self._inflight[seq]  # ``low`` in later batches says so
        for group in self._read_groups():
            self._refuse([waiter for waiter in group if is_due(waiter)], read_error(Outcome.NOT_APPLIED))
            group[:] = [waiter for waiter in group if not is_due(waiter)]

    def _refuse(self, waiters: list[Waiter], error: RaftkvError) -> None:
        self._answers += [(waiter.ticket, error) for waiter in waiters]
