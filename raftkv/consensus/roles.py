"""The roles as data. What only a role has lives in its value, so that nobody can hold a stale copy of it:
a follower has no progress to be wrong about, and a leader that steps down forgets its reads with its role."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from raftkv.consensus.progress import Progress
from raftkv.consensus.types import Index, NodeId


@dataclass(slots=True)
class Follower:
    leader: NodeId | None  # None until heard, or after the link to it broke
    election_due_ms: float
    lease_until_ms: float = float("-inf")  # until then it refuses to help depose the leader (thesis 4.2.3)
    elects: NodeId | None = None  # whom it voted for and has not yet heard to lead
    answered_round: int = 0  # the highest heartbeat round answered in this term


@dataclass(slots=True)
class PreCandidate:
    election_due_ms: float  # when to ask again
    votes: dict[NodeId, bool]


@dataclass(slots=True)
class Candidate:
    election_due_ms: float
    votes: dict[NodeId, bool]  # its own is added when it is durable, not before
    since_ms: float  # when it stood


@dataclass(slots=True)
class ReadRequest:
    """Reads that wait for a confirmation of leadership: our own (``asker`` None) or a follower's."""

    asker: NodeId | None
    read_id: int
    by_lease: bool = False  # whether the lease will do


@dataclass(slots=True)
class ReadRound:
    """One round of heartbeats that confirms all of ``requests`` at once; ``index`` is what they must see."""

    round: int
    index: Index
    requests: list[ReadRequest]


@dataclass(slots=True)
class Transfer:
    """The lead is being handed over to ``target``."""

    target: NodeId
    deadline_ms: float  # from then on we lead as before
    ask_due_ms: float = float("-inf")  # when TimeoutNow is sent (again), once the target has all of our log


@dataclass(slots=True)
class CatchUp:
    """A learner's rounds (thesis 4.2.1): each ends when it holds what the log held at its beginning."""

    target: Index
    since_ms: float
    was_quick: bool = False  # whether the last whole round took no longer than an election timeout


@dataclass(slots=True)
class Farewell:
    """Somebody is no member any more, and is to hear that this is committed; not for ever."""

    until_ms: float
    told_round: int | None = None  # who answers this round, or a later one, has heard


@dataclass(slots=True)
class Leader:
    progress: dict[NodeId, Progress]  # the other members, and those in ``farewells``-to-be; sorted
    term_start: Index  # the index of this term's no-op: nothing is decided here before it commits
    heartbeat_due_ms: float
    since_ms: float
    time_base_ms: int  # cluster time at ``since_ms``
    durable_index: Index = Index(0)  # own log on own disk; the leader's count of itself
    settled_index: Index = Index(
        0
    )  # committed, and on our own disk; from the no-op on, what isn't is counted:
    unsettled_bytes: int = 0
    notice_due_ms: float = float("inf")  # when idle followers are told a new commit index
    round: int = 0  # heartbeat rounds so far in this term
    rounds: deque[tuple[int, float]] = field(default_factory=deque)  # (round, when), not yet confirmed
    confirmed_ms: float = float("-inf")  # when the latest confirmed round began
    reads_waiting: list[ReadRequest] = field(default_factory=list)
    reads_open: ReadRound | None = None
    forwarded: deque[tuple[Index, NodeId]] = field(
        default_factory=deque
    )  # entries whose asker waits for the commit
    transfer: Transfer | None = None  # while one is under way nothing is appended
    wished_another: bool = False  # somebody was told to stand: from then on we have no lease
    learning: dict[NodeId, CatchUp] = field(default_factory=dict)  # every learner's
    farewells: dict[NodeId, Farewell] = field(default_factory=dict)  # begun when the removal is committed
    leaves_at_ms: float | None = None  # we are no member any more, and lead no longer than that

    def cluster_time_ms(self, now_ms: float) -> int:
        return self.time_base_ms + int(now_ms - self.since_ms)


Role = Follower | PreCandidate | Candidate | Leader
