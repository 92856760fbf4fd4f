"""What every phase of the protocol shares: the "State" box of the paper's Figure 2, and the turn's outbox.

Data and bookkeeping only; no decision is taken here. ``Node`` owns one and hands it to its phases (election,
replication, reads), which read and change it; nobody else sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from raftkv.consensus.log import Log
from raftkv.consensus.membership import Configurations
from raftkv.consensus.messages import Envelope, Message
from raftkv.consensus.ready import ChangeReply, ReadGrant
from raftkv.consensus.roles import Follower, Role
from raftkv.consensus.types import (
    NOBODY,
    Entry,
    GroupId,
    HardState,
    Index,
    Limits,
    Mark,
    Membership,
    NodeId,
    SnapshotMeta,
    Term,
    Timing,
    Write,
)


@dataclass(slots=True)
class Core:
    node_id: NodeId
    group: GroupId
    configurations: Configurations
    timing: Timing
    limits: Limits
    uniform: Callable[[float, float], float]  # a random number between two; the only source of chance
    log: Log
    current_term: Term
    voted_for: NodeId | None
    now_ms: float  # the caller's monotonic clock at this turn
    role: Role = field(default_factory=lambda: Follower(None, float("inf")))
    commit_index: Index = Index(0)
    fresh_ms: float = float("-inf")  # when we last knew all that a leader had committed
    bound_until_ms: float = float("-inf")  # until then we vote for nobody, nor stand (lease.py)
    messages: list[Envelope] = field(default_factory=list)
    promises: list[Envelope] = field(default_factory=list)
    grants: list[ReadGrant] = field(default_factory=list)
    snapshots_for: list[NodeId] = field(default_factory=list)
    change_replies: list[ChangeReply] = field(default_factory=list)
    installed: SnapshotMeta | None = None  # in this turn
    vote_pending: bool = False  # this term, or the vote in it, is on its way to the disk
    _first_unwritten: Index | None = None
    _written: HardState = HardState(Term(0), None)
    _announced: Membership = NOBODY

    def __post_init__(self) -> None:
        self._written = HardState(self.current_term, self.voted_for)
        self._announced = self.membership
        if self.timing.lease_ms:
            # NB: an earlier run of this node may have given its word, and this one has forgotten it.
            self.bound_until_ms = self.now_ms + self.timing.lease_ms

    @property
    def membership(self) -> Membership:
        """The one in force: that of the last CONFIG entry in the log, committed or not."""
        return self.configurations.current

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The others who vote, sorted."""
        return tuple(voter for voter in self.membership.electorate if voter != self.node_id)

    @property
    def may_stand(self) -> bool:
        """Whether this node may stand for election: it votes, or did in a membership that may still be in
        force elsewhere, so that it may be needed (thesis 4.2.2). Where it doesn't vote it isn't counted.
        """
        return any(
            self.node_id in each.electorate for each in self.configurations.from_index(self.commit_index)
        )

    @property
    def is_bound(self) -> bool:
        """Whether this node has given its word to a leader, and must not help to replace it."""
        return self.now_ms < self.bound_until_ms

    def send(self, receiver: NodeId, message: Message) -> None:
        """A message that may leave at once."""
        self.messages.append(Envelope(self.group, self.node_id, receiver, self.current_term, message))

    def promise(self, receiver: NodeId, message: Message) -> None:
        """A message that leaves only when all that this node has decided so far is durable."""
        self.promises.append(Envelope(self.group, self.node_id, receiver, self.current_term, message))

    def changed_from(self, index: Index) -> None:
        """Entries from ``index`` on are new, or replace others: this turn's write carries them."""
        if self._first_unwritten is None or index < self._first_unwritten:
            self._first_unwritten = index

    def append(self, entry: Entry) -> None:
        """An entry of our own comes at the log's end."""
        self.log.append(entry)
        self.configurations.add((entry,))
        self.changed_from(entry.index)

    def splice(self, entries: Sequence[Entry]) -> None:
        """A leader's entries, whose predecessor matches, are in the log; what conflicts with them is cut."""
        new = self.log.splice(entries, self.commit_index)
        if new:
            self.configurations.cut(new[0].index)
            self.configurations.add(new)
            self.changed_from(new[0].index)

    def install(self, boundary: SnapshotMeta, membership: Membership) -> None:
        """The log is what a leader's snapshot holds, and nothing after it."""
        self.log.reset(boundary)
        self.configurations = Configurations(membership, boundary.index)
        self.commit_index = boundary.index
        self.installed, self._first_unwritten = boundary, None

    def take_membership(self) -> Membership | None:
        """The membership in force, if it isn't the one that it was at the last turn's end."""
        membership = self.membership
        if membership is self._announced or membership == self._announced:  # nearly always the former
            return None
        self._announced = membership
        return membership

    def take_write(self) -> tuple[Write | None, Mark]:
        """What changed since the last turn and must become durable, and the mark of having it so."""
        mark = Mark(self.current_term, self.log.last_index)
        if not self.has_write:
            return None, mark
        hard_state = HardState(self.current_term, self.voted_for)
        entries = (
            () if self._first_unwritten is None else self.log.slice(self._first_unwritten, max_bytes=1 << 62)
        )
        changed = hard_state if hard_state != self._written else None
        write = Write(self.group, changed, entries, self.installed)
        self.vote_pending = self.vote_pending or hard_state != self._written
        self._written, self._first_unwritten = hard_state, None
        return write, mark

    @property
    def has_write(self) -> bool:
        """Whether this turn has changed what must be durable."""
        return (
            self._first_unwritten is not None
            or self.installed is not None
            or self.current_term != self._written.current_term
            or self.voted_for != self._written.voted_for
        )
