"""Where the log begins: what a snapshot covers may go, and who needs that gets the snapshot (section 7).

The snapshots themselves, taking, keeping and sending them, are the caller's business. It tells when one is
durable here (``compact``), when one has come whole from the leader (``on_install``), and how one's way to a
follower ended (``ended``).
"""

from __future__ import annotations

from raftkv.consensus.core import Core
from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.messages import AppendEntriesReply, InstallSnapshot
from raftkv.consensus.progress import Mode, Progress
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Index, NodeId


class Snapshots:
    def __init__(self, core: Core) -> None:
        self._core = core

    def compact(self, index: Index, applied: Index) -> None:
        """Forget the log up to ``index``, as far as nothing here needs it any more."""
        core = self._core
        if index > applied:
            raise InvariantBroken(f"a snapshot covers entry {index}, but only {applied} was given out")
        if isinstance(core.role, Leader):
            index = min(index, core.role.settled_index)
        if index > core.log.boundary.index:
            core.log.compact(index)
            core.configurations.forget(index)

    # -- the leader ----------------------------------------------------------------------------------------

    def needed(self, peer: NodeId, progress: Progress) -> bool:
        """Whether ``peer`` lacks what our log no longer has; then a snapshot is asked for (L10)."""
        core = self._core
        if progress.next_index > core.log.boundary.index:
            return False
        progress.become_snapshot()
        core.snapshots_for.append(peer)
        return True

    def ended(self, peer: NodeId) -> None:
        role = self._core.role
        if isinstance(role, Leader) and peer in role.progress:
            role.progress[peer].streaming = False

    def retry(self, progress: Progress) -> None:
        """At a heartbeat: one whose snapshot's way is over, and who doesn't say that it has it."""
        if progress.mode is Mode.SNAPSHOT and not progress.streaming:
            progress.become_probe(Index(progress.match_index + 1))

    # -- the follower --------------------------------------------------------------------------------------

    def on_install(self, sender: NodeId, message: InstallSnapshot) -> None:
        """InstallSnapshot receiver (Figure 13, rules 6-8)."""
        core, meta = self._core, message.meta
        if core.log.matches(meta.index, meta.term):
            # NB: what follows that entry may be acknowledged, so it stays (L12); no snapshot is needed then.
            core.commit_index = max(core.commit_index, meta.index)
        elif meta.index > core.commit_index:
            core.install(meta, message.membership)
        core.promise(sender, AppendEntriesReply(meta.index))
