"""What a node tells the people who run it: role changes, elections, leaders, a late event loop. Looks, never
touches.
"""

from __future__ import annotations

import structlog

from raftkv.consensus.roles import Candidate, Follower, Leader, PreCandidate, Role
from raftkv.replica import Replica
from raftkv.tallies import Tallies

logger = structlog.get_logger(__name__)

_NAMES: dict[type, str] = {
    Follower: "follower",
    PreCandidate: "pre_candidate",
    Candidate: "candidate",
    Leader: "leader",
}


def role_name(role: Role) -> str:
    return _NAMES[type(role)]


class Observer:
    """Compares what a turn left with what was before. Cheap: a tuple compare a turn."""

    def __init__(self, replica: Replica, tallies: Tallies) -> None:
        self._tallies = tallies
        self._node = replica.node
        self._seen = ("follower", self._node.current_term, self._node.leader)
        self._lag_warned_ms = 0.0
        self._unsafe_lag_ms = self._node.timing.election_timeout_min_ms / 3

    def turn(self) -> None:
        node = self._node
        now = (role_name(node.role), node.current_term, node.leader)
        if now == self._seen:
            return
        (old_role, old_term, old_leader), self._seen = self._seen, now
        role, term, leader = now
        if term != old_term and role in ("candidate", "leader"):
            self._tallies.elections += 1
        if leader is not None and leader != old_leader:
            self._tallies.leader_changes += 1
        if role != old_role:
            logger.info("role changed", role=role, was=old_role, term=term, last_index=node.log.last_index)
        if leader != old_leader or (leader is not None and term != old_term):
            logger.info("leader is" if leader else "leader lost", leader=leader or old_leader, term=term)

    def woke(self, late_ms: float) -> None:
        """The loop's timer came ``late_ms`` after it was due: the loop was busy, or the machine is."""
        self._tallies.loop_late.observe(late_ms / 1000)
        if late_ms > max(self._unsafe_lag_ms, self._lag_warned_ms):
            self._lag_warned_ms = late_ms * 2
            logger.warning(
                "the event loop is late: elections may begin for no reason; is the machine overloaded?",
                late_ms=round(late_ms),
                election_timeout_ms=self._node.timing.election_timeout_min_ms,
            )
        else:
            self._lag_warned_ms *= 0.99
