"""Barriers: those who wait until their replica holds all that was acknowledged before they asked.

The leader is asked for a whole group of them at once; who comes meanwhile joins the next group. A replica has
two of these: for reads that want a round of the leader's (ReadIndex), and for those that its lease will do
for.
"""

from __future__ import annotations

from collections import deque

from raftkv.consensus.node import Node
from raftkv.consensus.ready import ReadGrant
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Index
from raftkv.waiting import ReadGroup, Waiter, take_released

KINDS = 2  # of readings in a replica: each numbers its questions in steps of that, so that none meet


class Reading:
    def __init__(self, node: Node, first_id: int, *, by_lease: bool, resend_ms: float) -> None:
        """``first_id``: larger than any that this node has used in an earlier life, and another one (modulo
        ``KINDS``) than that of the other reading.
        """
        self._node = node
        self._by_lease = by_lease
        self._resend_ms = resend_ms
        self._next_id = first_id
        self.waiting: list[Waiter] = []  # not yet in a group
        self.group: ReadGroup | None = None  # asked, not yet granted; one at a time, the rest joins the next
        self.granted: list[tuple[Index, list[Waiter]]] = []  # granted, not yet applied so far
        self._vouching: deque[tuple[Index, float]] = deque(maxlen=16)  # (what was granted, when asked)
        self.vouched_ms = float("-inf")  # all that was acknowledged anywhere by then is applied here

    @property
    def groups(self) -> list[list[Waiter]]:
        """Everybody who waits."""
        groups = [self.waiting, *(waiters for _, waiters in self.granted)]
        return [*groups, self.group.waiters] if self.group is not None else groups

    def hand_over(self) -> None:
        """The leader or the term changed: what was asked of the old one is asked of the new one."""
        if self.group is not None:
            self.waiting[:0] = self.group.waiters
            self.group = None

    def ask(self, now_ms: float) -> float:
        """Ask the leader, if there is one and somebody waits. When to look again whether it has answered."""
        if self.group is None and not self.waiting:
            return float("inf")
        if self._node.leader is None:
            return float("inf")
        if self.group is None:
            self.group = ReadGroup(self._next_id, self.waiting)
            self.waiting = []
        group = self.group
        if group is None or group.asked:
            return float("inf")
        # NB: a leader that doesn't answer may not know leases (of an older release); a round it does.
        by_lease = self._by_lease and group.sent_ms == float("-inf")
        if not self._node.read(self._next_id, by_lease=by_lease):
            return float("inf")
        group.asked, group.sent_ms = True, now_ms
        group.first_sent_ms = min(group.first_sent_ms, now_ms)
        self._next_id += KINDS
        return now_ms + self._resend_ms

    def resend(self, now_ms: float) -> float:
        """Have asked again what wasn't answered for long: a message may have been lost. When to look again.

        NB: a leader's own question isn't lost while it leads.
        """
        group, leads = self.group, isinstance(self._node.role, Leader)
        if group is not None and group.sent_ms <= now_ms - self._resend_ms and not leads:
            group.asked = False
            if not group.waiters:
                self.group = None  # given up: those that came since need not wait for its answer
        return float("inf") if self.group is None else now_ms + self._resend_ms

    def take(self, grant: ReadGrant) -> None:
        group = self.group
        if group is None or grant.read_id < group.first_id or (grant.read_id - group.first_id) % KINDS:
            return
        self.granted.append((grant.index, group.waiters))
        self._vouching.append((grant.index, group.first_sent_ms))
        self.group = None

    def released(self, applied: Index) -> list[Waiter]:
        """Those whose answer may be given now that ``applied`` is; they wait no more."""
        if not self.granted and not self._vouching:
            return []
        while self._vouching and self._vouching[0][0] <= applied:
            self.vouched_ms = max(self.vouched_ms, self._vouching.popleft()[1])
        return take_released(self.granted, applied)
