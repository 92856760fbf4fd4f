"""The RPCs of the protocol: one frozen dataclass each, and the envelope that carries them.

The paper's names. A request and its answer are two one-way messages; no answer is awaited, every message may
be lost, repeated or late. The sender's term travels in the envelope, so that the term rule (section 5.1) is
applied once, in ``Node.step``, whatever the message.

Two kinds leave a node at different times (``Ready``): *messages* at once, *promises* only after the disk has
what they promise. Promises are ``RequestVote``, a granted ``RequestVoteReply`` and ``AppendEntriesReply``.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftkv.consensus.types import (
    Change,
    Entry,
    GroupId,
    Index,
    Membership,
    NodeId,
    SnapshotMeta,
    Term,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class PreVote:
    """Would you vote for me in ``next_term``? Changes nobody's term (thesis 9.6)."""

    next_term: Term
    last_log_index: Index
    last_log_term: Term


@dataclass(frozen=True, slots=True)
class PreVoteReply:
    next_term: Term  # the one asked about: an answer to an older question is not counted
    granted: bool


@dataclass(frozen=True, slots=True)
class RequestVote:
    """Section 5.2. A promise: it names a log that must be durable, and implies the candidate's own vote.

    ``transfer``: the leader asked for it, so voters that hear it need not be loyal to it (thesis 4.2.3).
    """

    last_log_index: Index
    last_log_term: Term
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class RequestVoteReply:
    granted: bool


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """Section 5.3. ``entries`` follow ``prev_log_index`` without a gap; empty ones probe."""

    prev_log_index: Index
    prev_log_term: Term
    entries: tuple[Entry, ...]
    leader_commit: Index


@dataclass(frozen=True, slots=True)
class AppendEntriesReply:
    """A promise: my log is durable and equal to the leader's up to ``match_index``, which is what the request
    covered (prev + entries), never "my last index now"."""

    match_index: Index


@dataclass(frozen=True, slots=True)
class AppendEntriesRefusal:
    """My log doesn't have (``prev_log_index``, its term). It may agree up to ``hint_index``, where my term is
    ``hint_term``: the highest index whose term isn't above the one asked for. Lets a leader skip whole
    terms."""

    prev_log_index: Index
    hint_index: Index
    hint_term: Term


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """Section 7: you lack what my log no longer has; this is where my snapshot ends. A node hears it when it
    has the whole snapshot, durable: its bytes travel beside the messages. The answer: ``AppendEntriesReply``.
    """

    meta: SnapshotMeta
    membership: Membership  # the one in force at its last entry


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """I lead. Kept apart from AppendEntries so that its answer never waits for a disk.

    The follower commits up to ``min(leader_commit, match_index)``: beyond ``match_index``, what it is known
    to share with us, its log may be another leader's. ``leader_commit`` itself tells it how far behind it is.
    ``round`` numbers the confirmations that linearizable reads wait for (thesis 6.4); it only grows within a
    term.
    """

    leader_commit: Index
    match_index: Index
    round: int


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """I still follow this term as of ``round``. Promises nothing durable, hence leaves at once."""

    round: int


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """From the moment in which I heard your heartbeat of ``round`` I vote for nobody, nor stand, but at your
    own wish, for ``lease_ms`` milliseconds of my clock. Nothing durable: see ``lease.py``.
    """

    round: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class ReadIndex:
    """A follower asks up to where it must apply before it may answer reads that arrived before this."""

    context: int  # unique over the asker's whole life, restarts included


@dataclass(frozen=True, slots=True)
class LeaseRead:
    """As ``ReadIndex``, but the leader may answer under its lease, without a round."""

    context: int


@dataclass(frozen=True, slots=True)
class ReadIndexReply:
    context: int
    index: Index


@dataclass(frozen=True, slots=True)
class Propose:
    """Batches that a follower's clients asked for, forwarded to the leader as the bytes they are."""

    batches: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TransferLeadership:
    """A follower's client asks the leader to hand over to ``target``; None: to whom it finds fit."""

    target: NodeId | None


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader to the one that shall be next (thesis 3.10): you have all of my log, stand at once."""


@dataclass(frozen=True, slots=True)
class ChangeMembers:
    """A follower's client asks the leader for a change of members. Asking again for the same is harmless."""

    context: int  # names the question in the answer; unique over the asker's whole life, restarts included
    change: Change
    force: bool  # though too few of the new voters are heard from, or the learner hasn't caught up


@dataclass(frozen=True, slots=True)
class ChangeMembersReply:
    """``index``: of the entry appended for it (ACCEPTED, in the envelope's term), or at which it is as wished
    (DONE). ``reason``: why not (BUSY, REFUSED), in words.
    """

    context: int
    verdict: Verdict
    index: Index
    reason: str


Message = (
    PreVote
    | PreVoteReply
    | RequestVote
    | RequestVoteReply
    | AppendEntries
    | AppendEntriesReply
    | AppendEntriesRefusal
    | InstallSnapshot
    | Heartbeat
    | HeartbeatReply
    | LeaseGrant
    | ReadIndex
    | LeaseRead
    | ReadIndexReply
    | Propose
    | TransferLeadership
    | TimeoutNow
    | ChangeMembers
    | ChangeMembersReply
)

FollowersMessage = (
    AppendEntriesReply
    | AppendEntriesRefusal
    | HeartbeatReply
    | LeaseGrant
    | ReadIndex
    | LeaseRead
    | Propose
    | TransferLeadership
    | ChangeMembers
)
"""What only a leader hears."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message on its way. ``term`` is the sender's current term when it was made."""

    group: GroupId
    sender: NodeId
    receiver: NodeId
    term: Term
    message: Message
