"""What ``raftkv status`` has seen of a cluster, and what happened between two looks at it.

Pure: answers and the time come in, rows and events go out. Must not know HTTP, threads or how it is shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_EVENTS = 200


@dataclass(frozen=True, slots=True)
class NodeView:
    """One endpoint's last answer. ``report`` is its ``/v1/status``, None while it doesn't answer.

    ``node`` is known from the first answer on, and kept when the node is lost. ``lost`` says why it doesn't
    answer and ``since_s`` since when (the observer's clock).
    """

    endpoint: str
    node: str | None
    report: Mapping[str, Any] | None
    lost: str | None
    since_s: float

    @property
    def name(self) -> str:
        return self.node or self.endpoint

    @property
    def role(self) -> str:
        return str(self.report.get("role", "?")) if self.report is not None else "unreachable"

    def number(self, field: str) -> int | None:
        value = self.report.get(field) if self.report is not None else None
        return value if isinstance(value, int) else None

    @property
    def links(self) -> tuple[tuple[str, bool], ...]:
        """(other node, is the link up), sorted by node."""
        links = self.report.get("links") if self.report is not None else None
        if not isinstance(links, Mapping):
            return ()
        return tuple(
            (str(node), bool(link.get("connected")) if isinstance(link, Mapping) else bool(link))
            for node, link in sorted(links.items())
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``kind``: leader | leaderless | election | lost | returned."""

    at_s: float
    kind: str
    text: str


def leader_of(views: Sequence[NodeView]) -> NodeView | None:
    """Whoever says it leads, in the highest term seen: one that was deposed may not have noticed yet."""
    claims = [view for view in views if view.role == "leader"]
    best = max(claims, key=lambda view: view.number("term") or 0, default=None)
    newest = max((view.number("term") or 0 for view in views), default=0)
    return best if best is not None and (best.number("term") or 0) >= newest else None


def lag(view: NodeView, leader: NodeView | None) -> int | None:
    """Entries the leader knows to be committed and this node hasn't applied; None where it can't be said."""
    if leader is None:
        return None
    commit, applied = leader.number("commit_index"), view.number("last_applied")
    return None if commit is None or applied is None else max(0, commit - applied)


class Observer:
    """Collects answers, one endpoint at a time, and notes what changed. Times are seconds of one clock."""

    def __init__(self, endpoints: Sequence[str], now_s: float) -> None:
        self._views = {name: NodeView(name, None, None, "not asked yet", now_s) for name in endpoints}
        self._asked: set[str] = set()
        self._leader: tuple[str, int] | None = None  # the last one seen, and its term
        self._leader_seen_s = now_s
        self._leaderless = False
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)

    @property
    def views(self) -> tuple[NodeView, ...]:
        return tuple(self._views.values())

    @property
    def complete(self) -> bool:
        """Every endpoint was asked at least once."""
        return len(self._asked) == len(self._views)

    def add(self, endpoint: str, now_s: float) -> None:
        """Watch one endpoint more, learnt from the cluster."""
        if endpoint not in self._views:
            self._views[endpoint] = NodeView(endpoint, None, None, "not asked yet", now_s)

    def answered(self, endpoint: str, report: Mapping[str, Any], now_s: float) -> list[Event]:
        before, first = self._views[endpoint], endpoint not in self._asked
        node = str(report.get("node") or endpoint)
        since = now_s if before.report is None else before.since_s
        after = NodeView(endpoint, node, report, None, since)
        self._views[endpoint] = after
        self._asked.add(endpoint)
        events = []
        if before.report is None and not first:
            events.append(Event(now_s, "returned", f"{node} is back after {now_s - before.since_s:.1f} s"))
        if after.role in ("candidate", "pre_candidate") and before.role != after.role:
            what = (
                "stands for election"
                if after.role == "candidate"
                else "asks whether it could win an election"
            )
            events.append(Event(now_s, "election", f"{node} {what}, term {after.number('term')}"))
        return self._noted(events + self._leadership(now_s))

    def lost(self, endpoint: str, reason: str, now_s: float) -> list[Event]:
        before, first = self._views[endpoint], endpoint not in self._asked
        since = before.since_s if before.report is None else now_s
        self._views[endpoint] = NodeView(endpoint, before.node, None, reason, since)
        self._asked.add(endpoint)
        events = []
        if before.report is not None or first:
            was = ", the leader," if self._leader is not None and before.node == self._leader[0] else ""
            events.append(Event(now_s, "lost", f"{before.name}{was} does not answer: {reason}"))
        return self._noted(events + self._leadership(now_s))

    def _leadership(self, now_s: float) -> list[Event]:
        leader = leader_of(self.views)
        if leader is None:
            if not self.complete or self._leaderless:
                return []
            self._leaderless = True
            return [Event(now_s, "leaderless", "no leader answers")]
        old, new = self._leader, (leader.name, leader.number("term") or 0)
        gap_s = now_s - self._leader_seen_s
        self._leader, self._leader_seen_s = new, now_s
        was_leaderless, self._leaderless = self._leaderless, False
        if old == new and not was_leaderless:
            return []
        text = f"{new[0]} leads, term {new[1]}"
        if old is not None:
            # NB: as seen from here: no shorter than the time between two looks.
            text += f" ({old[0]} was last seen leading {gap_s:.1f} s ago)"
        return [Event(now_s, "leader", text)]

    def _noted(self, events: list[Event]) -> list[Event]:
        self.events.extend(events)
        return events
