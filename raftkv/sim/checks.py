"""What must hold after every step, seen from above the cluster: the paper's Figure 3, and the disks.

Each check costs what changed, not what there is. Log matching is kept as an induction: an (index, term) names
one entry and one predecessor for ever. All raise ``InvariantBroken``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from raftkv.consensus.invariants import (
    InvariantBroken,
    check_commit_monotonic,
    check_durability,
    check_election_safety,
    check_leader_completeness,
)
from raftkv.consensus.messages import (
    AppendEntriesReply,
    Envelope,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.consensus.node import Node
from raftkv.consensus.ready import Ready
from raftkv.consensus.roles import Leader, Transfer
from raftkv.consensus.types import (
    NO_SNAPSHOT,
    Entry,
    EntryKind,
    HardState,
    Index,
    Membership,
    NodeId,
    SnapshotMeta,
    Term,
)
from raftkv.sim.disk import Durable
from raftkv.sim.member_checks import check_changes, check_elected
from raftkv.sim.world import World
from raftkv.storage.wal import GroupState


class Checks:
    def __init__(
        self, world: World, disks: Mapping[NodeId, Durable], committed: list[Entry], founding: Membership
    ) -> None:
        """``committed``: what any node ever called committed, from index 1; added to here."""
        self._halves = founding.halves  # of whom a majority each must have what was committed last
        self._in_force: dict[NodeId, Membership] = {}  # at the end of each node's last turn
        self._world = world
        self._disks = disks
        self.on_election: Callable[[NodeId], None] = lambda leader: None
        self.on_commit: Callable[[NodeId], None] = lambda node: None  # it was the first to commit something
        self.committed = committed
        self.batches: list[int] = [0]  # by index: how many of them are batches, up to there
        self._commit_terms: list[Term] = []  # the term of that node then
        self._leaders: dict[Term, NodeId] = {}
        self._entries: dict[tuple[int, int], tuple[Entry, int]] = {}  # (index, term) -> (entry, term before)
        self._votes: dict[tuple[Term, NodeId], NodeId] = {}
        self._commits: dict[NodeId, Index] = {}  # in this life of each node
        self._boundaries: dict[NodeId, SnapshotMeta] = {}  # where its log began at its last turn
        self._told: dict[Term, set[NodeId]] = {}  # who was told to stand, in whose term
        self._handing: dict[NodeId, tuple[Transfer, Index]] = {}  # who hands over, and where its log ends

    # -- a node's life -------------------------------------------------------------------------------------

    def restarted(
        self, name: NodeId, incarnation: int, state: GroupState, snapshot: SnapshotMeta | None
    ) -> None:
        """What was recovered must be what was durable, and at most the batch that was being written; what a
        log no longer has, ``snapshot`` covers.
        """
        durable, boundary = self._disks[name], state.boundary
        self._check_boundary(name, boundary)
        entries = [*self.committed[: boundary.index], *state.entries]
        found = state.hard_state, entries
        if incarnation <= durable.incarnation:
            raise InvariantBroken(f"{name} starts as incarnation {incarnation} after {durable.incarnation}")
        if found != durable.joined(snapshot):
            if found != durable.with_unconfirmed().joined(snapshot):
                raise InvariantBroken(
                    f"durability: {name} recovers {state.hard_state} and {len(entries)} entries; its disk "
                    f"had confirmed {durable.hard_state} and {len(durable.entries)} entries"
                )
            self._world.probes["unsynced batch survived"] += 1
        durable.hard_state, durable.entries = found
        durable.incarnation, durable.unconfirmed = incarnation, []
        durable.covered = snapshot.index if snapshot else Index(0)
        durable.floor = max(durable.floor, boundary.index)
        self._commits.pop(name, None)
        self._in_force.pop(name, None)
        self._boundaries[name] = boundary
        self.disk_changed(was_cut=True)

    def _check_boundary(self, name: NodeId, boundary: SnapshotMeta) -> None:
        """Where a log begins is committed."""
        at = self.committed[boundary.index - 1] if 0 < boundary.index <= len(self.committed) else None
        position = SnapshotMeta(at.index, at.term, at.time_ms) if at else NO_SNAPSHOT
        if boundary != position:
            raise InvariantBroken(f"{name} begins its log after {boundary}, which was never committed")

    def disk_changed(self, was_cut: bool) -> None:
        """What is committed must stay on a majority's disks, whatever replaces it on one."""
        if was_cut:
            self._world.probes["conflicting suffix cut"] += 1
            if self.committed:
                self._check_durability()

    def _check_durability(self) -> None:
        """By a log, or by a snapshot that covers it."""
        last = self.committed[-1]
        for half in self._halves:
            disks = [self._disks[voter] for voter in half]
            check_durability(
                last, [self.committed if disk.covered >= last.index else disk.entries for disk in disks]
            )

    # -- a turn --------------------------------------------------------------------------------------------

    def turn_ended(self, node: Node, ready: Ready) -> None:
        if isinstance(node.role, Leader):
            self._leads(node)
        if ready.installed is not None and self._disks[node.node_id].holds(ready.installed):
            raise InvariantBroken(f"{node.node_id} gives up its log for {ready.installed}, which it holds")
        if node.log.boundary is not self._boundaries.get(node.node_id):
            self._log_begins(node)
        if ready.write is not None and ready.write.entries:
            self._log_changed(node, ready.write.entries)
            check_changes(node, ready.write.entries, max(len(self.committed), node.commit_index))
        self._commit_moved(node)
        self._in_force[node.node_id] = node.membership
        self._hands_over(node, ready)
        for entry in ready.committed:
            if self.committed[entry.index - 1] is not entry and self.committed[entry.index - 1] != entry:
                raise InvariantBroken(f"state machine safety: {node.node_id} applies {entry}")

    def _log_begins(self, node: Node) -> None:
        """Later than before: a durable snapshot must cover what is gone."""
        name, boundary = node.node_id, node.log.boundary
        self._check_boundary(name, boundary)
        if boundary.index > self._disks[name].covered:
            raise InvariantBroken(f"{name} begins its log after {boundary}, and has no such snapshot")
        self._boundaries[name] = boundary

    def _leads(self, node: Node) -> None:
        term = node.current_term
        check_election_safety(self._leaders, node.node_id, term)
        if term in self._leaders:
            return
        if self._leaders:
            self._world.probes["leader replaced"] += 1
        self._leaders[term] = node.node_id
        self._world.note(f"{node.node_id}@{term} leads")
        name, votes = node.node_id, {voter: self._votes.get((term, voter)) for voter in self._disks}
        votes[name] = self._disks[name].hard_state.voted_for  # who is alone needn't tell anybody
        check_elected(name, self._in_force.get(name, node.membership), votes)
        # NB: an election may be won late, when later terms have committed more; that binds nobody.
        earlier = [e for e, at in zip(self.committed, self._commit_terms, strict=True) if at < term]
        check_leader_completeness(node.log, earlier)
        self.on_election(node.node_id)

    def _hands_over(self, node: Node, ready: Ready) -> None:
        """Thesis 3.10: nothing is appended meanwhile; who is told to stand has the whole log on its disk."""
        name, last_index = node.node_id, node.log.last_index
        transfer = node.role.transfer if isinstance(node.role, Leader) else None
        if transfer is None:
            self._handing.pop(name, None)
        else:
            # NB: one may end and the next begin in one turn, with entries in between.
            known, end = self._handing.get(name, (None, last_index))
            if known is transfer and end != last_index:
                raise InvariantBroken(f"handover: {name} appends {last_index} while it hands over")
            self._handing[name] = transfer, last_index
        for envelope in ready.messages:
            if isinstance(envelope.message, TimeoutNow):
                self._told.setdefault(envelope.term, set()).add(envelope.receiver)
                last = node.log.meta_at(last_index)
                if not self._disks[envelope.receiver].holds(last):
                    raise InvariantBroken(
                        f"handover: {envelope.receiver} is told to stand without {last_index}"
                    )

    def has_told(self, term: Term) -> bool:
        """Whether its leader has told anybody to stand."""
        return term in self._told

    def handover_answered(self, name: NodeId, result: object) -> None:
        """Who is said to lead a term did."""
        if not isinstance(result, tuple):
            self._world.probes["lead not handed over"] += 1
            return
        leader, term = result
        self._world.probes["lead handed over"] += 1
        self._world.note(f"{name} hears that {leader} leads term {term}")
        if self._leaders.get(term) != leader:
            raise InvariantBroken(
                f"handover: {leader} is said to lead {term}, {self._leaders.get(term)} does"
            )

    def _log_changed(self, node: Node, entries: Sequence[Entry]) -> None:
        before = node.log.term_at(Index(entries[0].index - 1)) or 0
        for entry in entries:
            known = self._entries.setdefault((entry.index, entry.term), (entry, before))
            if (known[0] is not entry and known[0] != entry) or known[1] != before:
                raise InvariantBroken(
                    f"log matching: {node.node_id} holds {entry} after term {before}, another has "
                    f"{known[0]} after term {known[1]}"
                )
            before = entry.term

    def _commit_moved(self, node: Node) -> None:
        name, after = node.node_id, node.commit_index
        before = self._commits.get(name, Index(0))
        if after == before:
            return
        check_commit_monotonic(name, before, after)
        self._commits[name] = after
        known = len(self.committed)
        start = max(before, node.log.boundary.index)
        for entry in node.log.slice(Index(start + 1), 1 << 62, after):
            if entry.index > len(self.committed):
                self.committed.append(entry)
                self.batches.append(self.batches[-1] + (entry.kind is EntryKind.BATCH))
                self._commit_terms.append(node.current_term)
                if entry.kind is EntryKind.CONFIG:
                    self._world.probes["members changed"] += 1
            elif self.committed[entry.index - 1] is not entry and self.committed[entry.index - 1] != entry:
                raise InvariantBroken(
                    f"commit: {name} commits {entry}, {self.committed[entry.index - 1]} was"
                )
        if len(self.committed) < after:
            raise InvariantBroken(f"commit: {name} commits {after}, its log ends before")
        if len(self.committed) > known:
            if isinstance(node.role, Leader) and self.committed[-1].term != node.current_term:
                raise InvariantBroken(
                    f"commit: {name} leads term {node.current_term} and commits {after} of term "
                    f"{self.committed[-1].term} by counting (section 5.4.2)"
                )
            self._world.note(f"{name}@{node.current_term} commits {after}")
            # NB: what is committed may bring the next membership in this same turn.
            self._halves = self._in_force.get(name, node.membership).halves
            self._check_durability()
            self.on_commit(name)

    # -- promises ------------------------------------------------------------------------------------------

    def messages_leave(self, sender: NodeId, messages: Sequence[Envelope]) -> None:
        """What leaves at once must promise nothing that isn't durable already."""
        for envelope in messages:
            match envelope.message:
                case AppendEntriesReply() | RequestVote() | RequestVoteReply(granted=True):
                    self.promises_leave(sender, [envelope])
                case _:
                    pass

    def promises_leave(self, sender: NodeId, promises: Sequence[Envelope]) -> None:
        """A promise must be backed by its sender's disk at the moment it leaves."""
        durable = self._disks[sender]
        for promise in promises:
            message, term, on_disk = promise.message, promise.term, durable.hard_state
            if on_disk.current_term < term:
                raise InvariantBroken(f"{sender} promises in term {term}, its disk has {on_disk}")
            # NB: writes of several turns are one batch: the disk may be ahead of the promise, by terms even.
            same_term = on_disk.current_term == term
            match message:
                case AppendEntriesReply():
                    if same_term and message.match_index > len(durable.entries):
                        raise InvariantBroken(
                            f"{sender} acknowledges {message.match_index} of {len(durable.entries)}"
                        )
                case RequestVote():
                    last = durable.entries[-1] if durable.entries else None
                    tail = (last.term, last.index) if last else (0, 0)
                    if same_term and tail < (message.last_log_term, message.last_log_index):
                        raise InvariantBroken(f"{sender} stands with a log that its disk doesn't have")
                    self._voted(term, sender, sender, on_disk)
                    if message.transfer and sender not in self._told.get(Term(term - 1), ()):
                        raise InvariantBroken(f"handover: nobody wished that {sender} lead {term}")
                case RequestVoteReply():
                    self._voted(term, sender, promise.receiver, on_disk)
                case _:
                    raise InvariantBroken(f"{message} is not a promise")

    def _voted(self, term: Term, voter: NodeId, candidate: NodeId, on_disk: HardState) -> None:
        known = self._votes.setdefault((term, voter), candidate)
        if known != candidate:
            raise InvariantBroken(f"{voter} votes for {known} and {candidate} in term {term}")
        if on_disk.current_term == term and on_disk.voted_for != candidate:
            raise InvariantBroken(f"{voter} votes for {candidate} in {term}, its disk has {on_disk}")
