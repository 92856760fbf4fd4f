"""Handing over the lead (thesis 3.10), as the leader does it.

While a transfer is under way the leader appends nothing, so that its target can catch up; who asked waits,
and asks the next leader. Once the target's disk has the whole log it is told to stand at once
(``TimeoutNow``). Voters that hear us grant it their votes all the same: its request says that we wish it. It
wins or loses as any other candidate does, so safety needs nothing of all this. If we still lead after an
election timeout, or the link to the target breaks, we go on as before; a late success then deposes us as any
election would.
"""

from __future__ import annotations

from raftkv.consensus.core import Core
from raftkv.consensus.messages import TimeoutNow
from raftkv.consensus.progress import Mode, Progress
from raftkv.consensus.roles import Leader, Transfer
from raftkv.consensus.types import NodeId


class Transfers:
    def __init__(self, core: Core) -> None:
        self._core = core

    def begin(self, leader: Leader, target: NodeId | None) -> bool:
        """Hand over to ``target``; None: to the fittest follower, or go on with the transfer under way.

        Another target replaces the one under way, the same one gains no time by it; to hand over to ourselves
        ends it. Returns False, and does nothing, where there is no such voter, or no fit one.
        """
        core = self._core
        if target == core.node_id:
            leader.transfer = None
            return True
        under_way = leader.transfer
        if target is None:
            target = self._fittest(leader) if under_way is None else under_way.target
        if target not in core.membership.voters:
            return False
        if under_way is None or under_way.target != target:
            leader.transfer = Transfer(target, core.now_ms + core.timing.election_timeout_min_ms)
        return True

    def _fittest(self, leader: Leader) -> NodeId | None:
        """Of those heard within an election timeout: one whose link works, with the most of our log."""
        core = self._core

        def fitness(item: tuple[NodeId, Progress]) -> tuple[bool, int, float]:
            progress = item[1]
            return progress.mode is Mode.REPLICATE, progress.match_index, progress.heard_ms

        since_ms = core.now_ms - core.timing.election_timeout_min_ms
        heard = [
            (peer, progress)
            for peer, progress in leader.progress.items()
            if peer in core.membership.voters and progress.heard_ms >= since_ms
        ]
        return max(heard, key=fitness)[0] if heard else None

    def tick(self, leader: Leader) -> None:
        """After an election timeout the transfer has failed."""
        if leader.transfer is not None and self._core.now_ms >= leader.transfer.deadline_ms:
            leader.transfer = None

    def peer_lost(self, leader: Leader, peer: NodeId) -> None:
        if leader.transfer is not None and leader.transfer.target == peer:
            leader.transfer = None

    def pump(self, leader: Leader) -> None:
        """At a turn's end, tell a target that has the whole log to stand; again with each heartbeat, for the
        message may be lost.
        """
        core, transfer = self._core, leader.transfer
        if transfer is None or core.now_ms < transfer.ask_due_ms:
            return
        if leader.leaves_at_ms is not None and core.commit_index < core.log.last_index:
            return  # whoever leads next won't tell us what has become of it
        if leader.progress[transfer.target].match_index == core.log.last_index:
            transfer.ask_due_ms = core.now_ms + core.timing.heartbeat_ms
            leader.wished_another = True
            core.send(transfer.target, TimeoutNow())
