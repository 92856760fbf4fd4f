"""The rules of the leader's lease, broken one at a time; see ``ablation.py``."""

from __future__ import annotations

from typing import Any

from raftkv.consensus import lease as lease_module
from raftkv.consensus.core import Core
from raftkv.consensus.election import RaftElection
from raftkv.consensus.messages import TimeoutNow
from raftkv.consensus.reads import Reads
from raftkv.consensus.roles import Leader, ReadRequest
from raftkv.consensus.transfer import Transfers
from raftkv.consensus.types import Index, Timing

Patch = tuple[Any, str, Any]


def counted_from_the_answer() -> Patch:
    """A word counts from when it came, not from when its round began."""
    return lease_module, "counted_from", lambda began_ms, came_ms: came_ms


def drift_ignored() -> Patch:
    """As if all clocks ran at one rate."""

    def certain_ms(lease_ms: float, timing: Timing) -> float:
        return lease_ms

    return lease_module, "certain_ms", certain_ms


def freed_by_a_broken_link() -> Patch:
    """Who loses its link to the leader hunts at once."""
    original = RaftElection.leader_lost

    def leader_lost(self: RaftElection) -> None:
        self._core.bound_until_ms = float("-inf")
        original(self)

    return RaftElection, "leader_lost", leader_lost


def freed_by_a_restart() -> Patch:
    """A node that has forgotten its word votes at once."""
    original = Core.__post_init__

    def post_init(self: Core) -> None:
        original(self)
        self.bound_until_ms = float("-inf")

    return Core, "__post_init__", post_init


def freed_by_another_term() -> Patch:
    """The word is kept to the leader's term only."""
    original = RaftElection.follow

    def follow(self: RaftElection, term: Any, leader: Any) -> None:
        if term > self._core.current_term:
            self._core.bound_until_ms = float("-inf")
        original(self, term, leader)

    return RaftElection, "follow", follow


def kept_while_handing_over() -> Patch:
    """A leader reads by its lease though it has told another to stand."""
    original = Transfers.pump

    def pump(self: Transfers, leader: Leader) -> None:
        original(self, leader)
        leader.wished_another = False

    return Transfers, "pump", pump


def taken_up_again() -> Patch:
    """... or once the transfer has failed, as it seems."""
    original = Transfers.pump

    def pump(self: Transfers, leader: Leader) -> None:
        original(self, leader)
        told = any(isinstance(each.message, TimeoutNow) for each in self._core.messages)
        leader.wished_another = told or leader.transfer is not None

    return Transfers, "pump", pump


def held_before_an_own_commit() -> Patch:
    """A new leader reads before it knows what its predecessors had committed."""
    original = Reads.lease_until_ms

    def lease_until_ms(self: Reads, leader: Leader) -> float:
        kept, leader.term_start = leader.term_start, Index(0)
        until_ms = original(self, leader)
        leader.term_start = kept
        return until_ms

    return Reads, "lease_until_ms", lease_until_ms


def read_without_a_lease() -> Patch:
    """Who will do with a lease gets its answer at once, lease or not."""
    original = Reads.register

    def register(self: Reads, leader: Leader, request: ReadRequest) -> bool:
        if request.by_lease:
            self._grant(leader, request, self._core.commit_index)
            return True
        return original(self, leader, request)

    return Reads, "register", register


ALL: dict[str, Patch] = {
    "lease reads granted without a lease": read_without_a_lease(),
    "lease counted from the answer": counted_from_the_answer(),
    "lease without regard to drift": drift_ignored(),
    "a broken link frees a voter": freed_by_a_broken_link(),
    "a restart frees a voter": freed_by_a_restart(),
    "another term frees a voter": freed_by_another_term(),
    "lease kept while handing over": kept_while_handing_over(),
    "lease taken up after handing over": taken_up_again(),
    "lease before a commit of the own term": held_before_an_own_commit(),
}
