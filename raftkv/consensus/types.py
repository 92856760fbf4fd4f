"""The nouns of the protocol: identifiers, log entries, durable state, membership, limits.

Pure values. Nothing here knows time, disks, sockets or what a command means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NewType

NodeId = NewType("NodeId", str)
"""A consensus participant's name, unique in its cluster: 1-64 of ``A-Z a-z 0-9 . _ -``."""

GroupId = NewType("GroupId", int)
"""One replicated log. A cluster has one group (0) until sharding comes; 0 <= group < 2**32."""

Term = NewType("Term", int)
"""The paper's logical clock (section 5.1); 0 before the first election, never decreases."""

Index = NewType("Index", int)
"""A position in the log; the first entry has index 1, 0 means "before the log"."""


class EntryKind(IntEnum):
    """What an entry carries. Values are on disk and on the wire: never renumber."""

    NOOP = 0  # opens a leader's term (section 8); no data
    BATCH = 1  # a batch of one node's commands, opaque to consensus
    CONFIG = 2  # who belongs to the group from here on: a whole ``Membership`` (membership.py has the bytes)


@dataclass(frozen=True, slots=True)
class Entry:
    """One slot of the replicated log; immutable once made.

    ``time_ms`` is *cluster time*: milliseconds that passed while there was a leader, stamped by the leader
    that made the entry, never decreasing along the log. ``data`` is opaque here.
    """

    index: Index
    term: Term
    kind: EntryKind
    time_ms: int
    data: bytes


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be durable before it is promised to anyone (Figure 2, "persistent state")."""

    current_term: Term
    voted_for: NodeId | None


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """A position in the log: the last entry that a snapshot covers, or that a log begins after.

    (0, 0, 0) is the start of time: no snapshot, a log from its first entry on.
    """

    index: Index
    term: Term
    time_ms: int  # cluster time of that entry


NO_SNAPSHOT = SnapshotMeta(Index(0), Term(0), 0)


@dataclass(frozen=True, slots=True)
class Learner:
    """A node that is sent everything and counted nowhere.

    With ``promote`` the leader makes it a voter by itself when it has caught up, in the place of ``replaces``
    if that is given and votes then.
    """

    node: NodeId
    promote: bool = False
    replaces: NodeId | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """Who belongs to a group. All ids are sorted, so that iteration has the same order on every node.

    While ``outgoing`` isn't empty it is *joint* (section 6): whatever is decided needs a majority of
    ``voters``, who will be, and one of ``outgoing``, who were. A node that is only joining knows nobody:
    nothing is decided by it. ``addresses`` are carried for those who make links, for some members or all.
    """

    voters: tuple[NodeId, ...]
    outgoing: tuple[NodeId, ...] = ()
    learners: tuple[Learner, ...] = ()
    addresses: tuple[tuple[NodeId, str], ...] = ()
    # What follows from them; asked for with every message.
    electorate: tuple[NodeId, ...] = field(init=False, repr=False, compare=False)  # who votes in either half
    members: tuple[NodeId, ...] = field(init=False, repr=False, compare=False)  # and the learners
    halves: tuple[tuple[NodeId, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        learners = tuple(each.node for each in self.learners)
        electorate = tuple(sorted({*self.voters, *self.outgoing}))
        members = tuple(sorted({*electorate, *learners}))
        addressed = tuple(node for node, _ in self.addresses)
        for ids in (self.voters, self.outgoing, learners, addressed):
            if list(ids) != sorted(set(ids)):
                raise ValueError("ids must be sorted and without duplicates")
        if self.outgoing and not self.voters:
            raise ValueError("a joint membership must have voters to come")
        if len(members) != len(electorate) + len(learners):
            raise ValueError("nobody both votes and learns")
        if any(each.replaces == each.node for each in self.learners):
            raise ValueError("nobody replaces itself")
        if not set(addressed) <= set(members):
            raise ValueError("addresses belong to members")
        object.__setattr__(self, "electorate", electorate)
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "halves", (self.voters, self.outgoing) if self.outgoing else (self.voters,))

    @staticmethod
    def of(*voters: str, addresses: Mapping[str, str] | None = None) -> Membership:
        """These voters, and nobody else."""
        known = tuple((NodeId(node), address) for node, address in sorted((addresses or {}).items()))
        return Membership(tuple(NodeId(v) for v in sorted(set(voters))), addresses=known)

    @property
    def is_joint(self) -> bool:
        return bool(self.outgoing)

    def learner(self, node: NodeId) -> Learner | None:
        return next((each for each in self.learners if each.node == node), None)

    def address(self, node: NodeId) -> str | None:
        return dict(self.addresses).get(node)


NOBODY = Membership(())
"""What a node knows that is only joining."""


@dataclass(frozen=True, slots=True)
class AddLearner:
    """Let ``node`` learn at ``address`` (host:port); with ``promote``, vote once it has caught up, in the
    place of ``replaces`` if given.
    """

    node: NodeId
    address: str
    promote: bool = True
    replaces: NodeId | None = None


@dataclass(frozen=True, slots=True)
class Promote:
    """Let a learner vote."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Remove:
    """Let a voter or a learner be no member any more."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Move:
    """A member is found at ``address`` from now on."""

    node: NodeId
    address: str


Change = AddLearner | Promote | Remove | Move


class Verdict(IntEnum):
    """What became of a wish to change the members. Values are on the wire: never renumber."""

    ACCEPTED = 0  # an entry was appended; its commit decides, or that of a joint change's last one
    DONE = 1  # it is as wished already
    BUSY = 2  # nothing was done: not now; ask again
    REFUSED = 3  # nothing was done, nor will be


@dataclass(frozen=True, slots=True)
class Write:
    """What one turn must make durable, in this order: ``hard_state`` (if it changed), ``boundary`` (if a
    snapshot was installed), then ``entries``.

    With ``boundary`` the log begins anew after that entry, unless it holds that entry with that term: then it
    stays as it is, and nothing up to there is replaced any more. NB: the snapshot must be durable before.

    ``entries`` are consecutive; where the first one's index is not beyond the last durable entry, everything
    from that index on is replaced (a conflicting suffix was cut, section 5.3).
    """

    group: GroupId
    hard_state: HardState | None
    entries: tuple[Entry, ...]
    boundary: SnapshotMeta | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """What a completed write covers: the term in which it was issued and the last index it made durable.

    NB: the term matters. A late completion from an older term says nothing about what the log holds now
    (the ABA race: the same indexes may have been overwritten since), and is ignored.
    """

    term: Term
    index: Index


@dataclass(frozen=True, slots=True)
class Timing:
    """The protocol's clocks, in milliseconds of the caller's monotonic time.

    Invariant: ``0 < heartbeat_ms < election_timeout_min_ms < election_timeout_max_ms``.
    """

    heartbeat_ms: float = 50.0
    election_timeout_min_ms: float = 300.0
    election_timeout_max_ms: float = 600.0
    hunt_step_ms: float = 4.0  # spacing of the first PreVotes after a lost link, and of their repeats
    commit_notice_ms: float = 2.0  # how long an idle leader waits before telling followers the commit index
    lease_ms: float = 0.0  # how long a follower is bound to the leader that it heard (lease.py); 0: never
    max_clock_drift: float = 0.1  # clocks run at rates from 1 - this to 1 + this; leases rest on it

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ms < self.election_timeout_min_ms < self.election_timeout_max_ms:
            raise ValueError(
                "timings must satisfy 0 < heartbeat < election timeout min < election timeout max, got "
                f"{self.heartbeat_ms}, {self.election_timeout_min_ms}, {self.election_timeout_max_ms} ms"
            )
        if not (self.hunt_step_ms > 0 and self.commit_notice_ms > 0):
            raise ValueError("hunt_step_ms and commit_notice_ms must be positive")
        if not 0 <= self.lease_ms <= self.election_timeout_min_ms:
            raise ValueError(
                "lease_ms must be from 0 (no leases) to the election timeout min "
                f"({self.election_timeout_min_ms}), got {self.lease_ms}"
            )
        if not 0 <= self.max_clock_drift < 1:
            raise ValueError(f"max_clock_drift must be from 0 to below 1, got {self.max_clock_drift}")


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds on what the protocol keeps in flight; all positive."""

    max_append_bytes: int = 256 << 10  # entry data in one AppendEntries (one larger entry still goes alone)
    max_append_entries: int = 8_192  # entries in one AppendEntries
    max_inflight_messages: int = 128  # unacknowledged AppendEntries a follower
    max_inflight_bytes: int = 4 << 20  # unacknowledged entry data a follower
    max_unsettled_bytes: int = (
        64 << 20
    )  # entry data not yet committed, or not on its own disk, that a leader takes
    max_waiting_reads: int = 100_000  # read requests waiting for a confirmation round
    max_apply_bytes: int = 512 << 10  # entry data handed out to be applied in one turn

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
