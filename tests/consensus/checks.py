"""What is watched after every step of a cluster under test: the paper's Figure 3, and what the core promises.

Sees the cluster from above, which no node can. Each check raises ``InvariantBroken``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from raftkv.consensus import Log, Node
from raftkv.consensus.invariants import (
    InvariantBroken,
    check_commit_monotonic,
    check_durability,
    check_election_safety,
    check_leader_completeness,
    check_log_matching,
    check_state_machine_safety,
)
from raftkv.consensus.membership import decode_membership
from raftkv.consensus.messages import AppendEntriesReply, Envelope, RequestVote, RequestVoteReply
from raftkv.consensus.ready import ReadGrant
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Entry, EntryKind, HardState, Index, Membership, NodeId, Term
from tests.consensus.members import check_one_at_a_time, check_step

Disks = Mapping[NodeId, Sequence[Entry]]
"""What each server has durably."""


class Checks:
    """The memory of a cluster's history that the checks need; one for each cluster."""

    def __init__(self, founding: Membership) -> None:
        self.membership = founding  # the latest one that is committed
        self.halves: tuple[tuple[NodeId, ...], ...] = founding.halves  # who had to have the last committed
        self.leaders: dict[Term, NodeId] = {}
        self.committed: list[Entry] = []  # what any node ever called committed, from index 1
        self.commit_terms: list[Term] = []  # and the term of that node then
        self.applied: dict[Index, Entry] = {}
        self.votes: dict[tuple[Term, NodeId], NodeId] = {}  # every vote that was ever heard of
        self.read_floors: dict[int, int] = {}  # what was committed anywhere when each read was asked
        self.granted: set[int] = set()
        self.leases = 0  # how often somebody was seen to have one
        self._in_force: dict[NodeId, Membership] = {}  # at the end of each node's last turn
        self._commits: dict[NodeId, Index] = {}  # in this life of each node
        self._tails: dict[NodeId, tuple[int, int]] = {}  # (last index, last term) at the last look

    def forget(self, node_id: NodeId) -> None:
        """The node restarts: its commit index is volatile and may begin again."""
        self._commits.pop(node_id, None)
        self._in_force.pop(node_id, None)
        self._tails.pop(node_id, None)

    def read_asked(self, read_id: int) -> None:
        self.read_floors[read_id] = len(self.committed)

    def read_granted(self, grant: ReadGrant) -> None:
        floor = self.read_floors[grant.read_id]
        if grant.index < floor:
            raise InvariantBroken(
                f"linearizable reads: {floor} was committed before read {grant.read_id} was asked, "
                f"which is granted at {grant.index}"
            )
        self.granted.add(grant.read_id)

    def entry_applied(self, entry: Entry) -> None:
        check_state_machine_safety(self.applied, entry)

    def turn_ended(self, node: Node, others: Collection[Node], disks: Disks) -> None:
        """Everything that one node's turn can have broken."""
        if isinstance(node.role, Leader):
            check_election_safety(self.leaders, node.node_id, node.current_term)
            if node.current_term not in self.leaders:
                self.leaders[node.current_term] = node.node_id
                # NB: an election may be won late, when later terms have committed more; that binds nobody.
                earlier = [
                    entry
                    for entry, term in zip(self.committed, self.commit_terms, strict=True)
                    if term < node.current_term
                ]
                check_leader_completeness(node.log, earlier)
        tail = (node.log.last_index, node.log.last_term)
        grew = self._tails.get(node.node_id) != tail
        if grew:
            self._tails[node.node_id] = tail
            for other in others:
                if other is not node:
                    check_log_matching(node.log, other.log)
        self._commit_moved(node, disks)
        self._in_force[node.node_id] = node.membership
        if grew:
            everything = node.log.slice(Index(node.log.boundary.index + 1), 1 << 62)
            check_one_at_a_time(node.node_id, everything, len(self.committed))

    def leases_hold(self, nodes: Collection[Node], left_ms: Mapping[NodeId, float]) -> None:
        """Nobody has a lease while a later term has a leader; ``left_ms``: of each node's own, by its clock
        as it is now.
        """
        last = max(node.current_term for node in nodes if isinstance(node.role, Leader))
        for node in nodes:
            if left_ms[node.node_id] > 0:
                self.leases += 1
                if node.current_term < last:
                    raise InvariantBroken(
                        f"lease: {node.node_id} has one of term {node.current_term} for another "
                        f"{left_ms[node.node_id]} ms, and term {last} has a leader"
                    )

    def _commit_moved(self, node: Node, disks: Disks) -> None:
        known, after = self._commits.get(node.node_id, Index(0)), node.commit_index
        check_commit_monotonic(node.node_id, known, after)
        if after == known:
            return
        self._commits[node.node_id] = after
        first = max(known, node.log.boundary.index) + 1  # a restart may begin after a snapshot
        entries = node.log.slice(Index(first), 1 << 62, after)
        for entry in entries:
            if entry.index > len(self.committed):
                self.committed.append(entry)
                self.commit_terms.append(node.current_term)
                # NB: what is committed may bring the next membership in this same turn.
                self.halves = self._in_force.get(node.node_id, node.membership).halves
                if entry.kind is EntryKind.CONFIG:
                    before, self.membership = self.membership, decode_membership(entry.data)
                    check_step(before, self.membership)
            elif self.committed[entry.index - 1] != entry:
                raise InvariantBroken(
                    f"{node.node_id} commits {entry}, {self.committed[entry.index - 1]} was"
                )
        self.disk_changed(disks)

    def disk_changed(self, disks: Disks) -> None:
        """What is committed must stay on a majority's disks, whatever is written over them: a majority of
        each half of the membership that whoever committed it had.
        """
        for half in self.halves if self.committed else ():
            check_durability(self.committed[-1], [disks[voter] for voter in half])

    def message_left(self, envelope: Envelope, hard_state: HardState, durable: list[Entry]) -> None:
        """What leaves at once must promise nothing that isn't durable already."""
        match envelope.message:
            case AppendEntriesReply() | RequestVote() | RequestVoteReply(granted=True):
                self.promise_left(envelope, hard_state, durable)
            case _:
                pass

    def promise_left(self, promise: Envelope, hard_state: HardState, durable: list[Entry]) -> None:
        """A promise must be backed by its sender's disk at the moment it leaves."""
        message, sender, term = promise.message, promise.sender, promise.term
        if hard_state.current_term < term:
            raise InvariantBroken(f"{sender} promises in term {term}, its disk is at {hard_state}")
        match message:
            case AppendEntriesReply():
                if message.match_index > len(durable):
                    raise InvariantBroken(f"{sender} acknowledges {message.match_index} of {len(durable)}")
            case RequestVote():
                self._voted(term, sender, sender, hard_state)
                tail = Log(durable)
                if (tail.last_index, tail.last_term) != (message.last_log_index, message.last_log_term):
                    raise InvariantBroken(f"{sender} stands with a log that its disk doesn't have")
            case RequestVoteReply():
                self._voted(term, sender, promise.receiver, hard_state)
            case _:
                raise InvariantBroken(f"{message} is not a promise")

    def _voted(self, term: Term, voter: NodeId, candidate: NodeId, hard_state: HardState) -> None:
        if hard_state != HardState(term, candidate):
            raise InvariantBroken(f"{voter} votes for {candidate} in {term}, its disk says {hard_state}")
        known = self.votes.setdefault((term, voter), candidate)
        if known != candidate:
            raise InvariantBroken(f"{voter} votes for {known} and {candidate} in term {term}")
