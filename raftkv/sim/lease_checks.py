"""What must hold of leases, seen from above the cluster and by everybody's own clock.

That nobody leads a later term while anyone has a lease is the end of it, but needs an election at just that
time to show. What it rests on is seen without one: each word that a leader counts on is kept, by the clock of
who gave it; who has told somebody to stand has no lease; who has one has committed all that anyone has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import NodeId
from raftkv.sim.checks import Checks

if TYPE_CHECKING:
    from raftkv.sim.server import SimServer

ROUNDING_MS = 1e-6  # of clocks that are computed


def check_lease(holder: SimServer, servers: Mapping[NodeId, SimServer], checks: Checks) -> None:
    """Whenever ``holder`` may have been given a word, or grants a read. It leads."""
    assert holder.replica is not None
    node = holder.replica.node
    assert isinstance(node.role, Leader)
    for peer, progress in node.role.progress.items():
        if progress.bound_until_ms > holder.clock_ms:
            _check_word(holder, servers[peer], progress.bound_until_ms)
    left_ms = node.lease_until_ms - holder.clock_ms
    if left_ms <= 0:
        return
    has = f"lease: {holder.name} has one in {node.current_term} for another {left_ms} ms"
    if checks.has_told(node.current_term):
        raise InvariantBroken(f"{has}, and has told another to stand")
    if node.commit_index < len(checks.committed):
        raise InvariantBroken(f"{has}; it knows {node.commit_index} of {len(checks.committed)} committed")
    for other in servers.values():
        if other.leads and other.replica is not None and other.replica.node.current_term > node.current_term:
            raise InvariantBroken(f"{has}, and {other.name} leads {other.replica.node.current_term}")


def _check_word(holder: SimServer, voter: SimServer, until_ms: float) -> None:
    """Who has ended votes for nobody, and is bound when it starts again."""
    if voter.replica is None:
        return
    counted_ms, kept_ms = holder.world_ms(until_ms), voter.world_ms(voter.replica.node.bound_until_ms)
    if kept_ms < counted_ms - ROUNDING_MS:
        raise InvariantBroken(
            f"lease: {holder.name} counts on the word of {voter.name} for {counted_ms - kept_ms} ms longer "
            "than it binds"
        )


def check_leader(leader: SimServer, servers: Iterable[SimServer]) -> None:
    """While a node leads, nobody has a lease of an earlier term, by its own clock as it is now."""
    assert leader.replica is not None
    term = leader.replica.node.current_term
    for other in servers:
        if other.replica is not None and other.replica.node.current_term < term:
            left_ms = other.replica.node.lease_until_ms - other.clock_ms
            if left_ms > 0:
                raise InvariantBroken(
                    f"lease: {other.name} has one for another {left_ms} ms, and {leader.name} leads {term}"
                )
