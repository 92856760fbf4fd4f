"""Safeguards that can be taken out, to see whether the simulator notices: one it doesn't notice is a hole.

For tests only. Each is a context in which one function of the real code is replaced by its broken twin; the
product has no switch for any of them. ``hunt`` counts how many seeds it takes until a run fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from raftkv import reading as reading_module
from raftkv.consensus import election as election_module
from raftkv.consensus.core import Core
from raftkv.consensus.election import RaftElection
from raftkv.consensus.log import Log
from raftkv.consensus.messages import (
    AppendEntriesRefusal,
    AppendEntriesReply,
    Envelope,
    Heartbeat,
    HeartbeatReply,
    LeaseGrant,
    RequestVoteReply,
)
from raftkv.consensus.node import Node
from raftkv.consensus.quorum import VoteResult
from raftkv.consensus.reads import Reads
from raftkv.consensus.ready import Ready
from raftkv.consensus.replication import Replication
from raftkv.consensus.roles import Follower, Leader
from raftkv.consensus.types import Entry, Index, Mark, NodeId, Write
from raftkv.errors import Outcome
from raftkv.kv.session import BatchId, Sessions
from raftkv.replica import Replica
from raftkv.sim import (
    broken_handover,
    broken_leases,
    broken_machine,
    broken_members,
    broken_reads,
    broken_snapshots,
)
from raftkv.sim.files import SimFile, SimFiles
from raftkv.sim.run import Report, play
from raftkv.sim.server import SimServer
from raftkv.storage.scan import SegmentScan
from raftkv.waiting import Waiter

Patch = tuple[Any, str, Any]
"""(owner, attribute, what it is instead)"""

ANSWERS = AppendEntriesReply | AppendEntriesRefusal | HeartbeatReply | LeaseGrant | RequestVoteReply
MISTAKES = ("TypeError", "AttributeError", "NameError", "ImportError")


@dataclass(frozen=True, slots=True)
class Ablation:
    name: str
    patches: tuple[Patch, ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        kept = [(owner, name, owner.__dict__[name]) for owner, name, _ in self.patches]
        for owner, name, twin in self.patches:
            setattr(owner, name, twin)
        try:
            yield
        finally:
            for owner, name, original in kept:
                setattr(owner, name, original)


@dataclass(frozen=True, slots=True)
class Catch:
    ablation: str
    seeds: int  # how many were run, the one that failed included
    report: Report | None  # of that one; None: none failed

    @property
    def is_notice(self) -> bool:
        """Whether the lack of the safeguard was noticed, and not a twin that can't run."""
        failure = self.report.failure if self.report is not None else None
        return failure is not None and not failure.startswith(MISTAKES)


def hunt(ablation: Ablation, max_seeds: int, first_seed: int = 0) -> Catch:
    with ablation.applied():
        for seed in range(first_seed, first_seed + max_seeds):
            report = play(seed)
            if report.failure is not None:
                return Catch(ablation.name, seed - first_seed + 1, report)
    return Catch(ablation.name, max_seeds, None)


# -- the disk and the promises -----------------------------------------------------------------------------


def _vote_not_persisted() -> Patch:
    original = Core.take_write

    def take_write(self: Core) -> tuple[Write | None, Mark]:
        write, mark = original(self)
        if write is not None and write.hard_state is not None:
            state = write.hard_state
            return replace(write, hard_state=replace(state, voted_for=None)), mark
        return write, mark

    return Core, "take_write", take_write


def _promises_before_fsync(self: SimServer, ready: Ready) -> None:
    self._around.network.send(ready.messages)
    self._around.network.send(ready.promises)
    if ready.write is not None:
        self._promised.append([])
        self._disk.write(ready.write, lambda: self._on_durable(ready))


def _promises_overtake(self: SimServer, ready: Ready) -> None:
    """A turn without a write of its own doesn't wait for the write under way."""
    self._around.network.send(ready.messages)
    if ready.write is not None:
        self._promised.append(list(ready.promises))
        self._disk.write(ready.write, lambda: self._on_durable(ready))
    elif ready.promises:
        self._send_promises(ready.promises)


def _retry_sync() -> Patch:
    original = SimFile.sync

    def sync(self: SimFile) -> None:
        try:
            original(self)
        except OSError:
            original(self)

    return SimFile, "sync", sync


def _leader_counts_itself_at_once() -> Patch:
    original = Replication.append

    def append(self: Replication, leader: Leader, kind: Any, data: bytes) -> Index:
        index = original(self, leader, kind, data)
        leader.durable_index = index
        self.maybe_commit(leader)
        return index

    return Replication, "append", append


def _nothing(*_: Any) -> None:
    pass


def _always(*_: Any) -> bool:
    return True


def _sync_only_directories(self: SimFile) -> None:
    self._use()


# -- elections ---------------------------------------------------------------------------------------------


def _tally_one_less(voters: Sequence[NodeId], votes: dict[NodeId, bool]) -> VoteResult:
    """As if somebody's vote were counted twice."""
    answers = [votes.get(voter) for voter in voters]
    needed = len(answers) // 2 + 1
    yes = sum(answer is True for answer in answers)
    if yes + (yes > 1) >= needed or yes >= needed:
        return VoteResult.WON
    return VoteResult.LOST if sum(answer is not False for answer in answers) < needed else VoteResult.PENDING


def _vote_twice(self: RaftElection, sender: NodeId, request: Any) -> None:
    core = self._core
    if not core.log.is_up_to_date(request.last_log_index, request.last_log_term):
        core.send(sender, RequestVoteReply(granted=False))
        return
    core.voted_for = sender
    core.role = Follower(None, self._timeout(), elects=sender)
    core.promise(sender, RequestVoteReply(granted=True))


def _stale_terms_heard() -> Patch:
    """Answers count whatever term they are of."""
    original = Node.step

    def step(self: Node, envelope: Envelope) -> None:
        if envelope.term < self._core.current_term and isinstance(envelope.message, ANSWERS):
            self._dispatch(envelope.sender, envelope.message)
        else:
            original(self, envelope)

    return Node, "step", step


# -- the log -----------------------------------------------------------------------------------------------


def _matches_anything_there(self: Log, index: Index, term: Any) -> bool:
    return index <= self.last_index


def _splice_always_cuts(self: Log, entries: Sequence[Entry], committed: Index) -> Sequence[Entry]:
    if entries:
        del self._entries[entries[0].index - self.boundary.index - 1 :]
        for entry in entries:
            self.append(entry)
    return entries


def _commit_older_terms() -> Patch:
    original = Replication.maybe_commit

    def maybe_commit(self: Replication, leader: Leader) -> bool:
        core = self._core
        if original(self, leader):
            return True
        matched = self.agreed(leader, leader.durable_index, lambda progress: progress.match_index)
        if matched <= core.commit_index:
            return False
        core.commit_index = matched
        leader.notice_due_ms = core.now_ms + core.timing.commit_notice_ms
        return True

    return Replication, "maybe_commit", maybe_commit


def _acknowledge_last_index() -> Patch:
    original = Core.promise

    def promise(self: Core, receiver: NodeId, message: Any) -> None:
        if isinstance(message, AppendEntriesReply):
            message = AppendEntriesReply(self.log.last_index)
        original(self, receiver, message)

    return Core, "promise", promise


def _commit_whatever_is_there() -> Patch:
    original = Replication.on_append

    def on_append(self: Replication, sender: NodeId, request: Any) -> None:
        original(self, sender, request)
        core = self._core
        core.commit_index = max(core.commit_index, min(request.leader_commit, core.log.last_index))

    return Replication, "on_append", on_append


def _heartbeat_commits_whatever_is_there() -> Patch:
    original = Replication.on_heartbeat

    def on_heartbeat(self: Replication, follower: Follower, sender: NodeId, heartbeat: Heartbeat) -> None:
        original(self, follower, sender, heartbeat)
        core = self._core
        core.commit_index = max(core.commit_index, min(heartbeat.leader_commit, core.log.last_index))

    return Replication, "on_heartbeat", on_heartbeat


def _no_noop(self: Node) -> None:
    role = self._core.role
    assert isinstance(role, Leader)
    self._replication.tick(role)


# -- reads, sessions, answers ------------------------------------------------------------------------------


def _read_without_a_round(self: Reads, leader: Leader) -> None:
    open_round = leader.reads_open
    if open_round is not None:
        open_round.round = -1
        _confirm(self, leader)


_confirm = Reads.confirm


def _read_before_own_term(self: Reads, leader: Leader) -> None:
    kept, leader.term_start = leader.term_start, Index(0)
    _pump(self, leader)
    leader.term_start = kept


_pump = Reads.pump


def _read_before_applied() -> Patch:
    def take_released(granted: list[tuple[Index, list[Waiter]]], applied: Index) -> list[Waiter]:
        released = [waiter for _, waiters in granted for waiter in waiters]
        granted.clear()
        return released

    return reading_module, "take_released", take_released


def _admit_all(self: Sessions, batch: BatchId) -> bool:
    return True


def _admit_settled(self: Sessions, batch: BatchId) -> bool:
    """What is below ``low`` is forgotten, and then taken for new."""
    row = self._rows.get(batch.node)
    if row is not None and row.incarnation == batch.incarnation and batch.low <= batch.seq < row.low:
        return True
    return _admit(self, batch)


_admit = Sessions.admit


def _one_incarnation() -> Patch:
    original = Replica.__init__

    def init(self: Replica, *positional: Any, **named: Any) -> None:
        original(self, *positional, **{**named, "incarnation": 1})

    return Replica, "__init__", init


def _deny_everything() -> Patch:
    """An unknown outcome is told as "not applied"."""
    original = Replica._refuse

    def refuse(self: Replica, waiters: Any, error: Any) -> None:
        error.outcome = Outcome.NOT_APPLIED
        original(self, waiters, error)

    return Replica, "_refuse", refuse


ABLATIONS: tuple[Ablation, ...] = (
    Ablation("vote not persisted", (_vote_not_persisted(),)),
    Ablation("promises leave before the fsync", ((SimServer, "_carry_out", _promises_before_fsync),)),
    Ablation("promises overtake earlier writes", ((SimServer, "_carry_out", _promises_overtake),)),
    Ablation("leader counts itself before its fsync", (_leader_counts_itself_at_once(),)),
    Ablation("fsync does nothing", ((SimFile, "sync", _sync_only_directories),)),
    Ablation("failed fsync tried again", (_retry_sync(),)),
    Ablation("directory never synced", ((SimFiles, "sync_directory", _nothing),)),
    Ablation("damage taken for a torn tail", ((SegmentScan, "_is_torn", _always),)),
    Ablation("one vote less than a majority", ((election_module, "tally", _tally_one_less),)),
    Ablation("two votes in a term", ((RaftElection, "on_request_vote", _vote_twice),)),
    Ablation("leader needs no quorum to stay", ((Replication, "has_quorum", _always),)),
    Ablation("vote without comparing logs", ((Log, "is_up_to_date", _always),)),
    Ablation("messages of older terms heard", (_stale_terms_heard(),)),
    Ablation("log check skipped", ((Log, "matches", _matches_anything_there),)),
    Ablation("truncation without a conflict", ((Log, "splice", _splice_always_cuts),)),
    Ablation("older terms committed by counting", (_commit_older_terms(),)),
    Ablation("acknowledgement beyond what was covered", (_acknowledge_last_index(),)),
    Ablation("follower commits its unchecked tail", (_commit_whatever_is_there(),)),
    Ablation("heartbeat commits an unchecked tail", (_heartbeat_commits_whatever_is_there(),)),
    Ablation("no no-op at the begin of a term", ((Node, "_begin_term", _no_noop),)),
    Ablation("ReadIndex without the round", ((Reads, "confirm", _read_without_a_round),)),
    Ablation("ReadIndex before a commit of the own term", ((Reads, "pump", _read_before_own_term),)),
    Ablation("read answered before it is applied", (_read_before_applied(),)),
    Ablation("duplicates applied again", ((Sessions, "admit", _admit_all),)),
    Ablation("settled batches applied again", ((Sessions, "admit", _admit_settled),)),
    Ablation("every life is the first", (_one_incarnation(),)),
    Ablation("unknown told as not applied", (_deny_everything(),)),
    Ablation("TimeoutNow of an old term obeyed", (broken_handover.old_terms_obeyed(),)),
    Ablation("proposals taken while handing over", (broken_handover.proposals_taken(),)),
    Ablation("told to stand, own vote not awaited", (broken_handover.vote_not_awaited(),)),
    Ablation("wished candidates get spent votes", (broken_handover.spent_votes_given(),)),
    Ablation("told to stand without the whole log", (broken_handover.told_too_early(),)),
    Ablation("every candidate says it is wished for", (broken_handover.everybody_wished_for(),)),
    Ablation("snapshot installed before it is durable", (broken_snapshots.installed_before_durable(),)),
    Ablation("log cut up to the newest snapshot", (broken_snapshots.older_one_cannot_be_used(),)),
    Ablation("only the newest snapshot kept", (broken_snapshots.only_the_newest_kept(),)),
    Ablation("sessions left out of snapshots", (broken_snapshots.sessions_left_out(),)),
    Ablation("snapshots hold later writes", (broken_snapshots.later_writes_exported(),)),
    Ablation("install cuts what follows", (broken_snapshots.suffix_truncated(),)),
    Ablation("machine not swapped at install", (broken_snapshots.machine_not_swapped(),)),
    Ablation("start applies what the snapshot has", (broken_snapshots.applied_ignored(),)),
    Ablation("log forgotten beyond the snapshot", (broken_snapshots.compacted_beyond(),)),
    Ablation("snapshot named after a later entry", (broken_snapshots.named_too_late(),)),
    Ablation("an earlier snapshot installed", (broken_snapshots.stale_one_used(),)),
    Ablation("snapshots not checked at a start", (broken_snapshots.damage_not_noticed(),)),
    Ablation("installed boundary not written", (broken_snapshots.boundary_not_written(),)),
    Ablation("pieces of two snapshots mixed", (broken_snapshots.pieces_of_two(),)),
    *(Ablation(name, (broken_members.ALL[name],)) for name in broken_members.NOTICED),
    *(Ablation(name, (patch,)) for name, patch in broken_leases.ALL.items()),
    *(Ablation(name, (patch,)) for name, patch in broken_reads.ALL.items()),
    *(Ablation(name, patches) for name, patches in broken_machine.ALL.items()),
)
