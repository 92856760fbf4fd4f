"""How the log gets from the leader to the rest, and when it is committed (sections 5.3, 5.4.2; thesis 10.2).

Rules that others broke, kept here: an answer names what its request covered; a stale answer moves nothing
back; only entries of the own term are committed by counting; the leader counts itself when its own disk has
the entry.
"""

from __future__ import annotations

from collections.abc import Callable

from raftkv.consensus.core import Core
from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.lease import bind
from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesRefusal,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    Propose,
)
from raftkv.consensus.progress import Mode, Progress
from raftkv.consensus.quorum import Ordered, joint_value
from raftkv.consensus.roles import Follower, Leader
from raftkv.consensus.snapshots import Snapshots
from raftkv.consensus.types import Entry, EntryKind, Index, NodeId


class Replication:
    def __init__(self, core: Core, snapshots: Snapshots) -> None:
        self._core = core
        self._snapshots = snapshots

    # -- the leader ----------------------------------------------------------------------------------------

    def append(self, leader: Leader, kind: EntryKind, data: bytes) -> Index:
        """Add an entry of this term to our log, stamped with cluster time; ``pump`` sends it."""
        core = self._core
        time_ms = leader.cluster_time_ms(core.now_ms)
        entry = Entry(Index(core.log.last_index + 1), core.current_term, kind, time_ms, data)
        core.append(entry)
        leader.unsettled_bytes += len(data)
        return entry.index

    def takes(self, leader: Leader) -> bool:
        """Whether more may be appended now: not while we hand over, nor with too much unsettled."""
        return leader.transfer is None and leader.unsettled_bytes <= self._core.limits.max_unsettled_bytes

    def append_forwarded(self, leader: Leader, sender: NodeId, message: Propose) -> None:
        """Append what ``sender``'s clients asked for; where we take nothing, its node asks again."""
        if self.takes(leader):
            for batch in message.batches:
                leader.forwarded.append((self.append(leader, EntryKind.BATCH, batch), sender))

    def pump(self, leader: Leader) -> None:
        """At a turn's end, send each follower what it has room for: one batch a turn."""
        for peer, progress in leader.progress.items():
            self._send_entries(peer, progress)
            if progress.commit_sent < progress.commit_wanted:
                self._tell_commit(leader, peer, progress)

    def _send_entries(self, peer: NodeId, progress: Progress) -> None:
        core, limits = self._core, self._core.limits
        while progress.has_room(limits.max_inflight_messages, limits.max_inflight_bytes):
            if self._snapshots.needed(peer, progress):
                return
            if progress.next_index > core.log.last_index and progress.mode is Mode.REPLICATE:
                return
            entries = core.log.slice(progress.next_index, limits.max_append_bytes)
            self._send_append(peer, progress, entries[: limits.max_append_entries])

    def _send_append(self, peer: NodeId, progress: Progress, entries: tuple[Entry, ...]) -> None:
        core = self._core
        prev = Index(progress.next_index - 1)
        prev_term = core.log.term_at(prev)
        if prev_term is None:
            raise InvariantBroken(f"next_index {progress.next_index} of {peer} is beyond the log")
        core.send(peer, AppendEntries(prev, prev_term, entries, core.commit_index))
        progress.sent(entries)
        if progress.mode is Mode.REPLICATE:
            progress.commit_sent = core.commit_index

    def _tell_commit(self, leader: Leader, peer: NodeId, progress: Progress) -> None:
        """Tell a follower how far it may apply, no further than it is known to hold our log."""
        commit = min(self._core.commit_index, progress.match_index)
        if commit > progress.commit_sent:
            self.send_heartbeat(leader, peer, progress)

    def send_heartbeat(self, leader: Leader, peer: NodeId, progress: Progress) -> None:
        commit = self._core.commit_index
        self._core.send(peer, Heartbeat(commit, progress.match_index, leader.round))
        progress.commit_sent = max(progress.commit_sent, min(commit, progress.match_index))

    def new_round(self, leader: Leader) -> None:
        """A heartbeat to everyone under a new number, whose answers confirm what was asked before."""
        leader.round += 1
        for peer, progress in leader.progress.items():
            self.send_heartbeat(leader, peer, progress)
        leader.rounds.append((leader.round, self._core.now_ms))
        self._note_confirmed(leader)

    def agreed(self, leader: Leader, own: Ordered, of: Callable[[Progress], Ordered]) -> Ordered:
        """What a majority has reached, in each half of the membership. ``own`` is ours: where we don't vote,
        and learners' values anywhere, don't count.
        """
        values = {peer: of(progress) for peer, progress in leader.progress.items()}
        values[self._core.node_id] = own
        return joint_value(self._core.membership.halves, values)

    def confirmed_round(self, leader: Leader) -> int:
        """The latest round that a majority has answered."""
        return self.agreed(leader, leader.round, lambda progress: progress.acked_round)

    def _note_confirmed(self, leader: Leader) -> None:
        """We led when a confirmed round began, so nobody else had committed anything by then. NB: not when
        its answers came: they may be old.
        """
        confirmed = self.confirmed_round(leader)
        while leader.rounds and leader.rounds[0][0] <= confirmed:
            _, leader.confirmed_ms = leader.rounds.popleft()
        self._freshen(leader)

    def _freshen(self, leader: Leader) -> None:
        """What anyone had committed when we led for sure is committed here as soon as our term's no-op is."""
        core = self._core
        if core.commit_index >= leader.term_start:
            core.fresh_ms = max(core.fresh_ms, leader.confirmed_ms)

    def tick(self, leader: Leader) -> None:
        core = self._core
        if core.now_ms >= leader.notice_due_ms:
            leader.notice_due_ms = float("inf")
            for peer, progress in leader.progress.items():
                self._tell_commit(leader, peer, progress)
        if core.now_ms >= leader.heartbeat_due_ms:
            leader.heartbeat_due_ms = core.now_ms + core.timing.heartbeat_ms
            self.new_round(leader)
            for peer, progress in leader.progress.items():
                # Something was lost, or the peer is slow: an empty AppendEntries finds out which. If entries
                # are missing there, its refusal leads back to a probe.
                if progress.stalled() and not self._snapshots.needed(peer, progress):
                    self._send_append(peer, progress, ())
                self._snapshots.retry(progress)

    def has_quorum(self, leader: Leader) -> bool:
        """CheckQuorum: whether a majority has been heard within an election timeout (thesis 6.2)."""
        core = self._core
        heard = self.agreed(leader, core.now_ms, lambda progress: progress.heard_ms)
        return core.now_ms - heard <= core.timing.election_timeout_min_ms

    def on_reply(self, leader: Leader, sender: NodeId, reply: AppendEntriesReply) -> None:
        progress = leader.progress[sender]
        if reply.match_index > self._core.log.last_index:
            raise InvariantBroken(f"{sender} acknowledged entry {reply.match_index}, which was never sent")
        if progress.acknowledged(reply.match_index):
            self.maybe_commit(leader)

    def on_refusal(self, leader: Leader, sender: NodeId, refusal: AppendEntriesRefusal) -> None:
        """The logs differ at what we took for granted: go back, whole terms at a time, and probe."""
        progress, log = leader.progress[sender], self._core.log
        probing = progress.mode is Mode.PROBE
        stale = (
            progress.mode is Mode.SNAPSHOT
            or refusal.prev_log_index <= progress.match_index
            or (probing and refusal.prev_log_index != progress.next_index - 1)
        )
        if stale:
            return
        if refusal.hint_index < log.boundary.index:
            progress.become_probe(Index(refusal.hint_index + 1))  # where our log no longer reaches
            return
        hint = log.last_at_or_below(refusal.hint_index, refusal.hint_term)
        progress.become_probe(Index(min(hint + 1, refusal.prev_log_index)))

    def on_heartbeat_reply(self, leader: Leader, sender: NodeId, reply: HeartbeatReply) -> None:
        progress = leader.progress[sender]
        progress.acked_round = max(progress.acked_round, min(reply.round, leader.round))
        self._note_confirmed(leader)

    def maybe_commit(self, leader: Leader) -> bool:
        """Commit what a majority has on disk, if it is of this term (5.4.2, Figure 8); all before it goes
        along.
        """
        core = self._core
        matched = self.agreed(leader, leader.durable_index, lambda progress: progress.match_index)
        if matched <= core.commit_index or core.log.term_at(matched) != core.current_term:
            return False
        core.commit_index = matched
        self.settle(leader)
        self._freshen(leader)
        leader.notice_due_ms = core.now_ms + core.timing.commit_notice_ms
        while leader.forwarded and leader.forwarded[0][0] <= matched:
            index, asker = leader.forwarded.popleft()
            if asker in leader.progress:
                leader.progress[asker].commit_wanted = index
        return True

    def settle(self, leader: Leader) -> None:
        """Forget the bytes that are both committed and on our own disk; what isn't bounds what we take."""
        settled = min(self._core.commit_index, leader.durable_index)
        if settled > leader.settled_index:
            for entry in self._core.log.slice(Index(leader.settled_index + 1), 1 << 62, settled):
                leader.unsettled_bytes -= len(entry.data)
            leader.settled_index = settled

    # -- the follower --------------------------------------------------------------------------------------

    def on_append(self, sender: NodeId, request: AppendEntries) -> None:
        """AppendEntries receiver, Figure 2 rules 2-5."""
        core = self._core
        log = core.log
        entries = request.entries
        if request.prev_log_index < log.boundary.index:
            # What lies before our log's beginning is committed, hence the same (L9): look at the rest only.
            entries = entries[log.boundary.index - request.prev_log_index :]
        elif not log.matches(request.prev_log_index, request.prev_log_term):
            hint = log.last_at_or_below(request.prev_log_index, request.prev_log_term)
            hint_term = log.term_at(hint)
            assert hint_term is not None
            core.send(sender, AppendEntriesRefusal(request.prev_log_index, hint, hint_term))
            return
        core.splice(entries)
        covered = Index(request.prev_log_index + len(request.entries))
        core.promise(sender, AppendEntriesReply(covered))
        # NB: no further than what this request vouches for; our tail beyond it may be another leader's (L3).
        core.commit_index = max(core.commit_index, min(request.leader_commit, covered))
        self._note_freshness(request.leader_commit)

    def on_heartbeat(self, follower: Follower, sender: NodeId, heartbeat: Heartbeat) -> None:
        core = self._core
        if heartbeat.match_index > core.log.last_index:
            raise InvariantBroken(
                f"{sender} says that this node acknowledged entry {heartbeat.match_index}, but its log "
                f"ends at {core.log.last_index}: its data directory was lost or replaced"
            )
        core.commit_index = max(core.commit_index, min(heartbeat.leader_commit, heartbeat.match_index))
        self._note_freshness(heartbeat.leader_commit)
        # A repeated round is a commit notice: answering it would tell the leader nothing.
        if heartbeat.round > follower.answered_round:
            follower.answered_round = heartbeat.round
            bind(core, sender, heartbeat.round)  # NB: before the answer that may confirm the round
            core.send(sender, HeartbeatReply(heartbeat.round))

    def _note_freshness(self, leader_commit: Index) -> None:
        """Remember when we last held all that our leader had committed: stale reads are no older."""
        if self._core.commit_index >= leader_commit:
            self._core.fresh_ms = self._core.now_ms
