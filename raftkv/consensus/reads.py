"""ReadIndex (thesis 6.4): linearizable reads without writing to the log.

The leader remembers its commit index, makes sure that it still leads by a round of heartbeats begun *after*
the reads arrived, and only then says up to where the asker must apply before it answers. One round serves all
reads that wait; those that arrive during it wait for the next. Until an entry of its own term is committed a
new leader's commit index may be behind, so reads wait for that first (R1, R2).

Reads that ask for no more than the lease are granted at once while the leader has it (``lease.py``), and wait
for a round like the others where it doesn't.
"""

from __future__ import annotations

from raftkv.consensus.core import Core
from raftkv.consensus.messages import ReadIndexReply
from raftkv.consensus.ready import ReadGrant
from raftkv.consensus.replication import Replication
from raftkv.consensus.roles import Leader, ReadRequest, ReadRound
from raftkv.consensus.types import Index


class Reads:
    def __init__(self, core: Core, replication: Replication) -> None:
        self._core = core
        self._replication = replication

    def register(self, leader: Leader, request: ReadRequest) -> bool:
        """Let ``request`` wait for the next round, unless the lease does; False if too many wait already."""
        if request.by_lease and self._core.now_ms < self.lease_until_ms(leader):
            self._grant(leader, request, self._core.commit_index)
            return True
        if len(leader.reads_waiting) >= self._core.limits.max_waiting_reads:
            return False
        leader.reads_waiting.append(request)
        return True

    def pump(self, leader: Leader) -> None:
        """At a turn's end, open a round for those that wait, unless one is under way."""
        core = self._core
        if not leader.reads_waiting or leader.reads_open or core.commit_index < leader.term_start:
            return
        self._replication.new_round(leader)
        leader.reads_open = ReadRound(leader.round, core.commit_index, leader.reads_waiting)
        leader.reads_waiting = []
        self.confirm(leader)

    def confirm(self, leader: Leader) -> None:
        """Grant the open round's reads if a majority has answered it, or a later one."""
        open_round = leader.reads_open
        if open_round is None:
            return
        if self._replication.confirmed_round(leader) < open_round.round:
            return
        leader.reads_open = None
        for request in open_round.requests:
            self._grant(leader, request, open_round.index)

    def lease_until_ms(self, leader: Leader) -> float:
        """Until then, by our clock, nobody else can be elected, so that what is committed here is all there
        is; -inf: that can't be said.
        """
        if leader.wished_another or self._core.commit_index < leader.term_start:
            return float("-inf")
        return self._replication.agreed(leader, float("inf"), lambda progress: progress.bound_until_ms)

    def _grant(self, leader: Leader, request: ReadRequest, index: Index) -> None:
        if request.asker is None:
            self._core.grants.append(ReadGrant(request.read_id, index))
            return
        self._core.send(request.asker, ReadIndexReply(request.read_id, index))
        progress = leader.progress.get(request.asker)
        if progress is not None:  # else it is no member any more
            progress.commit_wanted = max(progress.commit_wanted, index)
