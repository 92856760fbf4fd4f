"""A consensus participant: inputs in, one ``Ready`` out. All control flow is here; the phases do the work.

The node does no I/O and reads no clock: the caller brings messages and time, and carries out what
``take_ready`` returns under the contract written there. It is not thread-safe; one turn at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from raftkv.consensus.asking import Asking
from raftkv.consensus.changes import Changes
from raftkv.consensus.core import Core
from raftkv.consensus.election import Election, RaftElection
from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.lease import granted
from raftkv.consensus.log import Log
from raftkv.consensus.membership import Configurations
from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesRefusal,
    AppendEntriesReply,
    ChangeMembers,
    ChangeMembersReply,
    Envelope,
    FollowersMessage,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    LeaseGrant,
    LeaseRead,
    Message,
    PreVote,
    PreVoteReply,
    Propose,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    TransferLeadership,
)
from raftkv.consensus.reads import Reads
from raftkv.consensus.ready import ChangeReply, ReadGrant, Ready
from raftkv.consensus.replication import Replication
from raftkv.consensus.roles import Candidate, Follower, Leader, ReadRequest
from raftkv.consensus.snapshots import Snapshots
from raftkv.consensus.transfer import Transfers
from raftkv.consensus.types import (
    Entry,
    EntryKind,
    GroupId,
    HardState,
    Index,
    Limits,
    Mark,
    Membership,
    NodeId,
    Term,
    Timing,
)

LEADS_OR_WOULD = AppendEntries | Heartbeat | InstallSnapshot | TimeoutNow | PreVote | RequestVote
"""What is heard of anybody: it may be our own membership that is old (thesis 4.1)."""


class Node(Asking):
    """One node of one group.

    ``hard_state`` and ``log`` are what was durable when the node last stopped; the machine holds everything
    up to ``applied``, an entry of ``log`` or its boundary (default: that): a snapshot's last.
    ``uniform(a, b)`` gives a random number between a and b. ``now_ms`` is any monotonic clock's reading;
    later ones come by ``tick``.
    ``membership`` is the one in force at ``applied``; later ones are found in the log.
    """

    def __init__(
        self,
        node_id: NodeId,
        membership: Membership,
        *,
        uniform: Callable[[float, float], float],
        now_ms: float,
        hard_state: HardState = HardState(Term(0), None),
        log: Log | None = None,
        applied: Index | None = None,
        group: GroupId = GroupId(0),
        timing: Timing = Timing(),
        limits: Limits = Limits(),
    ) -> None:
        log = log or Log()
        applied = log.boundary.index if applied is None else applied
        if not log.boundary.index <= applied <= log.last_index:
            raise InvariantBroken(f"the machine holds entry {applied}, but the log doesn't join it")
        self._core = Core(
            node_id=node_id,
            group=group,
            configurations=Configurations(membership, applied, log.slice(Index(applied + 1), 1 << 62)),
            timing=timing,
            limits=limits,
            uniform=uniform,
            log=log,
            current_term=hard_state.current_term,
            voted_for=hard_state.voted_for,
            now_ms=now_ms,
        )
        self._handed_index = self._core.commit_index = applied  # the last entry given out to be applied
        self._election: Election = RaftElection(self._core)
        self._snapshots = Snapshots(self._core)
        self._replication = Replication(self._core, self._snapshots)
        self._reads = Reads(self._core, self._replication)
        self._transfers = Transfers(self._core)
        self._changes = Changes(self._core, self._election, self._replication, self._transfers)

    @property
    def has_more(self) -> bool:
        """Whether committed entries wait that the last ``Ready`` had no room for."""
        return self._handed_index < self._core.commit_index

    # -- inputs --------------------------------------------------------------------------------------------

    def clock(self, now_ms: float) -> None:
        """It is ``now_ms``. Nothing happens by that alone: give it before ``step``, ``tick`` at the turn's
        end, so that after a pause what has arrived meanwhile is heard before a timer says that nothing did.
        """
        self._core.now_ms = max(self._core.now_ms, now_ms)

    def tick(self, now_ms: float) -> None:
        """Time has passed. Heartbeats, elections and CheckQuorum happen when they are due, however late this
        comes.
        """
        core = self._core
        self.clock(now_ms)
        if core.now_ms < self.due_ms:
            return
        if not isinstance(core.role, Leader):
            self._election.tick()
        elif self._replication.has_quorum(core.role):
            self._replication.tick(core.role)
            self._transfers.tick(core.role)
        else:
            self._election.follow(core.current_term, None)

    def peer_lost(self, peer: NodeId) -> None:
        """The link to or from ``peer`` broke. A hint: what was in flight may be lost, and it may be dead."""
        role = self._core.role
        if isinstance(role, Leader) and peer in role.progress:
            progress = role.progress[peer]
            progress.answered = False  # until we hear from it again, no change of members counts on it
            if not progress.streaming:  # else how the snapshot's way ends is told
                progress.become_probe(Index(progress.match_index + 1))
            self._transfers.peer_lost(role, peer)
        elif isinstance(role, Follower) and role.leader == peer:
            self._election.leader_lost()

    def persisted(self, mark: Mark) -> bool:
        """The write with ``mark`` is durable. One of an older term says nothing about now (the ABA race).

        Returns whether a turn is due: nothing else may follow from it before something comes in.
        """
        core = self._core
        if mark.term != core.current_term:
            return False
        core.vote_pending = False
        if isinstance(core.role, Leader):
            core.role.durable_index = max(core.role.durable_index, mark.index)
            if self._replication.maybe_commit(core.role):
                return True
            self._replication.settle(core.role)
            return False
        if not isinstance(core.role, Candidate):
            return False
        if self._election.own_vote_durable():
            self._begin_term()
        return True

    def compact(self, index: Index) -> None:
        """A durable snapshot covers the log up to ``index``: forget that much. Who is further behind will be
        sent a snapshot (section 7).
        """
        self._snapshots.compact(index, self._handed_index)

    def snapshot_ended(self, peer: NodeId) -> None:
        """The way of a snapshot to ``peer`` is over, well or not. If by the next heartbeat it hasn't told us
        that it holds it, another is sent.
        """
        self._snapshots.ended(peer)

    def step(self, envelope: Envelope) -> None:
        """Take in a message; not a stranger's. The term rule of section 5.1 is applied here, once."""
        core = self._core
        sender, term, message = envelope.sender, envelope.term, envelope.message
        if envelope.group != core.group or envelope.receiver != core.node_id:
            return
        if sender == core.node_id or not (isinstance(message, LEADS_OR_WOULD) or self._knows(sender)):
            return
        is_wished = isinstance(message, RequestVote) and message.transfer  # by the leader itself
        if isinstance(message, PreVote | RequestVote) and not is_wished and self._is_loyal():
            # Deposing a leader that we hear would only disturb; not even the term is taken (thesis 4.2.3).
            if isinstance(message, PreVote):
                self._election.refuse_pre_vote(sender, message)
            return
        if term > core.current_term:
            self._election.follow(term, None)
        if term < core.current_term:
            self._answer_stale(sender, message)
            return
        self._dispatch(sender, message)

    def take_ready(self) -> Ready:
        """End the turn: everything that it led to. See ``Ready`` for what the caller must do."""
        core = self._core
        if isinstance(core.role, Leader):
            self._changes.pump(core.role)
        if isinstance(core.role, Leader):  # still
            self._reads.pump(core.role)
            self._replication.pump(core.role)
            self._transfers.pump(core.role)
        write, mark = core.take_write()
        installed, core.installed = core.installed, None
        if installed is not None:
            self._handed_index = installed.index
        # NB: a promise of a term that ended within this turn is void; what it covered may be cut already.
        promises = tuple([each for each in core.promises if each.term == core.current_term])
        committed: tuple[Entry, ...] = ()
        if self._handed_index < core.commit_index:
            committed = core.log.slice(
                Index(self._handed_index + 1), core.limits.max_apply_bytes, core.commit_index
            )
            self._handed_index = committed[-1].index
        ready = Ready(
            tuple(core.messages),
            write,
            promises,
            mark,
            committed,
            tuple(core.grants),
            installed,
            tuple(core.snapshots_for),
            core.take_membership(),
            tuple(core.change_replies),
        )
        core.messages, core.promises, core.grants, core.snapshots_for = [], [], [], []
        core.change_replies = []
        return ready

    # -- the rest ------------------------------------------------------------------------------------------

    def _begin_term(self) -> None:
        """We have just won: open the term with a no-op, whose commit decides all that came before (section
        8).
        """
        role = self._core.role
        assert isinstance(role, Leader)
        self._replication.append(role, EntryKind.NOOP, b"")
        self._replication.tick(role)

    def _knows(self, sender: NodeId) -> bool:
        """Whether ``sender`` is a member, leads us, or is just being told that it is a member no more."""
        role = self._core.role
        known = sender in self._core.membership.members or sender == self.leader
        return known or (isinstance(role, Leader) and sender in role.progress)

    def _is_loyal(self) -> bool:
        """Whether this node leads with a majority, has heard its leader within the minimum election timeout,
        or is bound by its word to one.
        """
        role = self._core.role
        if self._core.is_bound:
            return True
        if isinstance(role, Leader):
            return self._replication.has_quorum(role)
        return isinstance(role, Follower) and self._core.now_ms < role.lease_until_ms

    def _answer_stale(self, sender: NodeId, message: Message) -> None:
        """A message from an older term: tell requesters that it is over, ignore answers (E5)."""
        core = self._core
        match message:
            case PreVote():
                self._election.refuse_pre_vote(sender, message)
            case RequestVote():
                core.send(sender, RequestVoteReply(granted=False))
            case AppendEntries() | Heartbeat() | InstallSnapshot():
                core.send(sender, HeartbeatReply(0))  # only its envelope's term matters
            case _:
                pass

    def _dispatch(self, sender: NodeId, message: Message) -> None:
        role = self._core.role
        match message:
            case AppendEntries() | Heartbeat() | InstallSnapshot():
                self._on_leader(sender, message)
            case AppendEntriesReply() | AppendEntriesRefusal() | HeartbeatReply() | LeaseGrant():
                if isinstance(role, Leader):
                    self._on_follower(role, sender, message)
            case ReadIndex() | LeaseRead():
                if isinstance(role, Leader):
                    self._on_follower(role, sender, message)
            case Propose() | TransferLeadership() | ChangeMembers():
                if isinstance(role, Leader):
                    self._on_follower(role, sender, message)
            case PreVote():
                self._election.on_pre_vote(sender, message)
            case PreVoteReply():
                self._election.on_pre_vote_reply(sender, message)
            case RequestVote():
                self._election.on_request_vote(sender, message)
            case RequestVoteReply():
                if self._election.on_request_vote_reply(sender, message):
                    self._begin_term()
            case ReadIndexReply():
                self._core.grants.append(ReadGrant(message.context, message.index))
            case ChangeMembersReply():
                self._core.change_replies.append(ChangeReply(self._core.current_term, message))
            case TimeoutNow():
                self._election.stand_now()
            case _:
                assert_never(message)

    def _on_leader(self, sender: NodeId, message: AppendEntries | Heartbeat | InstallSnapshot) -> None:
        """The leader of our term spoke."""
        core = self._core
        if isinstance(core.role, Leader):
            raise InvariantBroken(f"both {sender} and {core.node_id} lead term {core.current_term}")
        follower = self._election.hear_leader(sender)
        if isinstance(message, AppendEntries):
            self._replication.on_append(sender, message)
        elif isinstance(message, InstallSnapshot):
            self._snapshots.on_install(sender, message)
        else:
            self._replication.on_heartbeat(follower, sender, message)

    def _on_follower(self, leader: Leader, sender: NodeId, message: FollowersMessage) -> None:
        """A follower of our term answered, or asks."""
        progress = leader.progress.get(sender)
        if progress is None:  # a leader that hands this on may be no member of ours
            return
        progress.heard_ms, progress.answered = self._core.now_ms, True
        match message:
            case AppendEntriesReply():
                self._replication.on_reply(leader, sender, message)
            case AppendEntriesRefusal():
                self._replication.on_refusal(leader, sender, message)
            case HeartbeatReply():
                self._replication.on_heartbeat_reply(leader, sender, message)
                self._reads.confirm(leader)
            case LeaseGrant():
                granted(self._core, leader, progress, message)
            case ReadIndex() | LeaseRead():
                by_lease = isinstance(message, LeaseRead)
                self._reads.register(leader, ReadRequest(sender, message.context, by_lease))
            case Propose():
                self._replication.append_forwarded(leader, sender, message)
            case TransferLeadership():
                self._transfers.begin(leader, message.target)
            case ChangeMembers():
                self._changes.request(leader, sender, message)
            case _:
                assert_never(message)
