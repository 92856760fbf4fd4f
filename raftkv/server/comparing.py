"""Equal logs give equal machines: each node compares its machine's checksum with the others', at the same
revision. What each says of itself comes with its status report, four times a second.

Reports are of different moments, so what was said stays for a while: the revision of one report and, as busy
machines are hardly ever seen at the same revision, that of its last *mark*, which all of them set at the same
revisions (``kv/history.py``).

A node that a majority of the members contradicts, all with the same checksum, has another state than the
cluster: it stops. Where no majority can tell who is right, that is an alarm and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from raftkv.consensus.quorum import majority
from raftkv.consensus.types import NodeId
from raftkv.errors import StartError
from raftkv.kv.machine import KvMachine
from raftkv.ports import PeerView
from raftkv.replica import Replica

logger = structlog.get_logger(__name__)

EXIT_DIVERGED = 76  # sysexits EX_PROTOCOL: this node's state isn't the cluster's
_KEPT = 64  # points, of each node

Points = dict[int, int]
"""revision -> checksum there, in the order in which they were heard of"""


@dataclass(frozen=True, slots=True)
class Difference:
    """Members that have another checksum than this node at ``revision``."""

    revision: int
    members: tuple[NodeId, ...]
    against: int  # how many members have the same other checksum, at most
    agree: int  # how many have this node's, itself included


def difference(
    own: Points, others: Mapping[NodeId, Points], members: Collection[NodeId]
) -> Difference | None:
    """None: nothing that can be compared differs. Else where most members are against this node. ``others``
    who are no ``members`` don't count.
    """
    found: Difference | None = None
    for revision, checksum in own.items():
        heard = {node: points.get(revision) for node, points in others.items() if node in members}
        against = sorted(node for node, its in heard.items() if its not in {None, checksum})
        if against:
            most = max(Counter(heard[node] for node in against).values())
            agree = 1 + sum(its == checksum for its in heard.values())
            if found is None or found.against < most:
                found = Difference(revision, tuple(against), most, agree)
    return found


class Comparing:
    """``alarm`` is what people should know, or None; it stays while those whom it names are members."""

    def __init__(
        self, *, replica: Replica, machine: KvMachine, on_diverged: Callable[[StartError], None]
    ) -> None:
        self._node = replica.node
        self._machine = machine
        self._on_diverged = on_diverged
        self._points: dict[NodeId, Points] = {}
        self._named: tuple[NodeId, ...] = ()  # by the alarm
        self._is_proven = False  # that this node is wrong
        self.alarm: str | None = None

    def report(self) -> dict[str, Any]:
        """The part of the status report that is compared."""
        history = self._machine.store.history
        return {
            "revision": self._machine.store.revision,
            "checksum": self._machine.checksum,
            "mark": None if history is None or history.mark is None else list(history.mark),
        }

    def look(self, peers: Sequence[PeerView]) -> None:
        """Compare what this node and ``peers`` say now with what was said before."""
        me, members = self._node.node_id, frozenset(self._node.membership.members)
        self._note(me, self.report())
        for peer in peers:
            self._note(peer.node, peer.status or {})
        others = {node: points for node, points in self._points.items() if node in members and node != me}
        self._points = {me: self._points[me], **others}
        if not members.issuperset(self._named):
            self.alarm, self._named = None, ()
        found = difference(self._points[me], others, members)
        if found is not None:
            self._differ(found, majority(len(members)))

    def _differ(self, found: Difference, needed: int) -> None:
        me, who = self._node.node_id, ", ".join(found.members)
        what = f"{me} and {who} have different states at revision {found.revision}"
        if found.against >= needed:
            if self._is_proven:
                self._on_diverged(
                    StartError(
                        f"{what}, and a majority of the members agrees on another than {me}: it isn't what "
                        "was decided, and must not be served. Keep a copy of the data directory, report "
                        f"this, and start a new node in its place: raftkv member replace {me} NEW_ID "
                        "HOST:PORT",
                        EXIT_DIVERGED,
                    )
                )
            self._is_proven = True  # NB: the others are to hear of it first, by the next report
            verdict = f"a majority is against {me}"
        elif found.agree >= needed:
            verdict = f"a majority agrees with {me}"
        else:
            verdict = "no majority says who is right"
        if self.alarm is None:
            self.alarm, self._named = f"{what}; {verdict}", found.members
            logger.error("states differ", alarm=self.alarm)

    def _note(self, node: NodeId, report: Mapping[str, Any]) -> None:
        """NB: a peer's report is anything that JSON can say."""
        points = self._points.setdefault(node, {})
        mark = report.get("mark")
        said = [[report.get("revision"), report.get("checksum")], mark if isinstance(mark, list) else []]
        for point in said:
            match point:
                case [revision, checksum] if type(revision) is int and type(checksum) is int:
                    points[revision] = checksum
                case _:
                    pass
        while len(points) > _KEPT:
            del points[next(iter(points))]
