"""Broken twins of handing over the lead, for ``ablation.py``."""

from __future__ import annotations

from typing import Any

from raftkv.consensus.election import RaftElection
from raftkv.consensus.messages import Envelope, RequestVote, TimeoutNow
from raftkv.consensus.node import Node
from raftkv.consensus.replication import Replication
from raftkv.consensus.roles import Leader
from raftkv.consensus.transfer import Transfers
from raftkv.consensus.types import NodeId

Patch = tuple[Any, str, Any]


def old_terms_obeyed() -> Patch:
    """TimeoutNow of an older term makes a node stand, too."""
    original = Node.step

    def step(self: Node, envelope: Envelope) -> None:
        if isinstance(envelope.message, TimeoutNow) and envelope.term < self.current_term:
            self._election.stand_now()
        original(self, envelope)

    return Node, "step", step


def proposals_taken() -> Patch:
    def takes(self: Replication, leader: Leader) -> bool:
        return leader.unsettled_bytes <= self._core.limits.max_unsettled_bytes

    return Replication, "takes", takes


def vote_not_awaited() -> Patch:
    """Who is told to stand asks for votes before its own term and vote are on its disk."""
    original = RaftElection.stand_now

    def stand_now(self: RaftElection) -> None:
        core = self._core
        before = len(core.promises)
        original(self)
        core.messages += core.promises[before:]
        del core.promises[before:]

    return RaftElection, "stand_now", stand_now


def spent_votes_given() -> Patch:
    """A voter that has voted in this term votes again when the leader wished for the candidate."""
    original = RaftElection.on_request_vote

    def on_request_vote(self: RaftElection, sender: NodeId, request: RequestVote) -> None:
        if request.transfer and not isinstance(self._core.role, Leader):
            self._core.voted_for = None
        original(self, sender, request)

    return RaftElection, "on_request_vote", on_request_vote


def told_too_early() -> Patch:
    """The target is told to stand whatever its log lacks."""
    original = Transfers.pump

    def pump(self: Transfers, leader: Leader) -> None:
        transfer = leader.transfer
        if transfer is None:
            return
        progress = leader.progress[transfer.target]
        kept, progress.match_index = progress.match_index, self._core.log.last_index
        original(self, leader)
        progress.match_index = kept

    return Transfers, "pump", pump


def everybody_wished_for() -> Patch:
    """Any candidate says that the leader wishes it."""
    original = RaftElection._stand

    def stand(self: RaftElection, *, transfer: bool = False) -> None:
        original(self, transfer=True)

    return RaftElection, "_stand", stand
