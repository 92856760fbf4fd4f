"""What can be seen of a node from outside."""

from __future__ import annotations

from collections.abc import Callable

from raftkv.consensus.core import Core
from raftkv.consensus.log import Log
from raftkv.consensus.roles import Follower, Leader, Role
from raftkv.consensus.types import GroupId, Index, Membership, NodeId, Term, Timing


class View:
    """The readable side of ``Node``."""

    _core: Core

    @property
    def node_id(self) -> NodeId:
        return self._core.node_id

    @property
    def group(self) -> GroupId:
        return self._core.group

    @property
    def membership(self) -> Membership:
        return self._core.membership

    @property
    def cluster_time_ms(self) -> int | None:
        """What an entry would be stamped with now, by the last ``tick``; None: it doesn't lead."""
        role = self._core.role
        return role.cluster_time_ms(self._core.now_ms) if isinstance(role, Leader) else None

    @property
    def membership_since(self) -> Index:
        """The index from which on the membership in force is: that of its entry, or where the log began."""
        return self._core.configurations.since

    def membership_at(self, index: Index) -> Membership:
        """The one in force at ``index``: for the taker of a snapshot that ends there. It must be applied, and
        not before our log's beginning or what was applied when the node started.
        """
        return self._core.configurations.at(index)

    @property
    def contacts(self) -> tuple[NodeId, ...]:
        """Those to whom this node may have something to say, sorted: the members, and where it leads, who is
        still to hear that it is no member any more.
        """
        role = self._core.role
        told = role.progress if isinstance(role, Leader) else ()
        return tuple(sorted({*self._core.membership.members, *told} - {self._core.node_id}))

    @property
    def uniform(self) -> Callable[[float, float], float]:
        """The node's source of chance."""
        return self._core.uniform

    @property
    def timing(self) -> Timing:
        return self._core.timing

    @property
    def role(self) -> Role:
        """The role's own data; to be looked at, not changed."""
        return self._core.role

    @property
    def current_term(self) -> Term:
        return self._core.current_term

    @property
    def voted_for(self) -> NodeId | None:
        return self._core.voted_for

    @property
    def commit_index(self) -> Index:
        return self._core.commit_index

    @property
    def log(self) -> Log:
        """The log in memory; to be looked at, not changed."""
        return self._core.log

    @property
    def leader(self) -> NodeId | None:
        """Who leads, as far as this node knows."""
        role = self._core.role
        if isinstance(role, Leader):
            return self._core.node_id
        return role.leader if isinstance(role, Follower) else None

    @property
    def hands_over_to(self) -> NodeId | None:
        """To whom this leader is handing over; None: to nobody, or it doesn't lead."""
        role = self._core.role
        return role.transfer.target if isinstance(role, Leader) and role.transfer else None

    @property
    def due_ms(self) -> float:
        """When ``tick`` must be called at the latest."""
        role = self._core.role
        if isinstance(role, Leader):
            due_ms = min(role.heartbeat_due_ms, role.notice_due_ms)
            return min(due_ms, role.transfer.deadline_ms) if role.transfer else due_ms
        return role.election_due_ms

    @property
    def bound_until_ms(self) -> float:
        """Until then, by its own clock, this node votes for nobody, nor stands, unless its leader wishes it
        (``lease.py``); -inf: nothing binds it.
        """
        return self._core.bound_until_ms

    @property
    def led_ms(self) -> float:
        """When this node last led for sure, with all that anybody had committed by then committed here too;
        -inf: it doesn't lead, or can't say yet.
        """
        role = self._core.role
        if not isinstance(role, Leader) or self._core.commit_index < role.term_start:
            return float("-inf")
        return role.confirmed_ms

    @property
    def fresh_ms(self) -> float:
        """When this node last held all that was committed, as far as its leader knew; -inf: never since it
        started.
        """
        return self._core.fresh_ms
