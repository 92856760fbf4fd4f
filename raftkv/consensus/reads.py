"""ReadIndex (thesis 6.4): linearizable reads without writing to the log.

The leader remembers its commit index, makes sure that it still leads by a round of heartbeats begun *after*
the reads arrived, and only then says up to where the asker must apply before it answers. One round serves all
reads that wait; those that arrive during it wait for the next. Until an entry of its own term is committed a
new leader's commit index may be behind, so reads wait for that first (R1, R2). The leader lease joins here
later.
"""

from __future__ import annotations

from raftkv.consensus.core import Core
from raftkv.consensus.messages import ReadIndexReply
from raftkv.consensus.ready import ReadGrant
from raftkv.consensus.replication import Replication
from raftkv.consensus.roles import Leader, ReadRequest, ReadRound


class Reads:
    def __init__(self, core: Core, replication: Replication) -> None:
        self._core = core
        self._replication = replication

    def register(self, leader: Leader, request: ReadRequest) -> bool:
        """Let ``request`` wait for the next round; False if too many wait already."""
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
            if request.asker is None:
                self._core.grants.append(ReadGrant(request.read_id, open_round.index))
            else:
                self._core.send(request.asker, ReadIndexReply(request.read_id, open_round.index))
                progress = leader.progress.get(request.asker)
                if progress is not None:  # else it is no member any more
                    progress.commit_wanted = max(progress.commit_wanted, open_round.index)
