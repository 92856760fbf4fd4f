"""The status table: the same cells for a terminal (rich) and for a pipe (plain columns)."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raftkv.cli.observation import Event, NodeView, lag, leader_of
from raftkv.cli.output import plain_columns

COLUMNS = ("NODE", "ROLE", "TERM", "LEADER", "COMMIT", "APPLIED", "LAST", "LAG", "REVISION", "LINKS")
NUMBERS = frozenset({"TERM", "COMMIT", "APPLIED", "LAST", "LAG", "REVISION"})
WIDE_ONLY = frozenset({"LAST", "REVISION"})
WIDE_CHARACTERS = 110
ROLE_STYLES = {
    "leader": "bold green",
    "old leader": "yellow",
    "follower": "blue",
    "candidate": "bold yellow",
    "pre-candidate": "yellow",
    "unreachable": "bold red",
}
EVENT_STYLES = {
    "leader": "green",
    "leaderless": "red",
    "election": "yellow",
    "lost": "red",
    "returned": "cyan",
}
LAG_NOTICED_ENTRIES = 1_000  # two looks are never at the same moment: under load a smaller lag means nothing


def plain_table(views: Sequence[NodeView], now_s: float) -> str:
    """Aligned columns without colour, a line a node, the first one the header."""
    leader = leader_of(views)
    return plain_columns([COLUMNS, *(_cells(view, leader, now_s) for view in _sorted(views))])


def live_view(
    views: Sequence[NodeView], events: Sequence[Event], now_s: float, width: int, shown_events: int
) -> RenderableType:
    """What ``status --watch`` shows: the table, a line of summary, and the newest events, newest last."""
    recent = list(events)[-shown_events:] if shown_events > 0 else []
    lines = [_event_line(event, now_s) for event in recent] or [Text("nothing yet", style="dim")]
    return Group(rich_table(views, now_s, width), Text(), summary(views), Text(), *lines)


def rich_table(views: Sequence[NodeView], now_s: float, width: int) -> Table:
    """``width`` in characters: a narrow screen goes without the columns that matter least."""
    columns = [name for name in COLUMNS if width >= WIDE_CHARACTERS or name not in WIDE_ONLY]
    leader = leader_of(views)
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for column in columns:
        table.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=column != "LINKS")
    for view in _sorted(views):
        cells = dict(zip(COLUMNS, _cells(view, leader, now_s), strict=True))
        row = [Text(cells[column] or "-", style=_style(column, cells, view)) for column in columns]
        if view.report is not None:
            row[-1] = _links(view)
        table.add_row(*row)
    return table


def summary(views: Sequence[NodeView]) -> Text:
    """One sentence: who leads, how many nodes answer, and how many more may be lost."""
    leader = leader_of(views)
    up = sum(view.report is not None for view in views)
    if leader is None:
        return Text(f"no leader; {up} of {len(views)} nodes answer", style="bold red")
    members = len(leader.links) + 1
    linked = sum(up for _, up in leader.links) + 1
    spare = linked - (members // 2 + 1)
    text = f"{leader.name} leads term {leader.number('term')} with {linked} of {members} nodes"
    if spare < 0:
        return Text(f"{text}: no majority", style="bold red")
    rest = f"; {spare} more may be lost" if spare else "; none may be lost"
    return Text(text + rest, style="green" if spare else "yellow")


def event_text(event: Event, now_s: float) -> str:
    """``14:03:22.1  n2 leads, term 4``, in local time."""
    wall_s = time.time() - (now_s - event.at_s)
    clock = time.strftime("%H:%M:%S", time.localtime(wall_s))
    return f"{clock}.{int(wall_s * 10) % 10}  {event.text}"


def _event_line(event: Event, now_s: float) -> Text:
    return Text(event_text(event, now_s), style=EVENT_STYLES[event.kind], overflow="ellipsis", no_wrap=True)


def _sorted(views: Sequence[NodeView]) -> list[NodeView]:
    return sorted(views, key=lambda view: (view.node is None, view.name))


def _cells(view: NodeView, leader: NodeView | None, now_s: float) -> list[str]:
    if view.report is None:
        reason = f"{view.lost}, {_age(now_s - view.since_s)}" if view.lost else ""
        return [view.name, "unreachable", *[""] * (len(COLUMNS) - 3), reason]
    numbers = [view.number(name) for name in ("commit_index", "last_applied", "last_index")]
    behind = lag(view, leader)
    return [
        view.name,
        _role(view, leader),
        _shown(view.number("term")),
        str(view.report.get("leader") or ""),
        *map(_shown, numbers),
        _shown(behind),
        _shown(view.number("revision")),
        ", ".join(f"{node} {'up' if up else 'DOWN'}" for node, up in view.links),
    ]


def _role(view: NodeView, leader: NodeView | None) -> str:
    if view.role == "leader" and view is not leader:
        return "old leader"  # deposed, and doesn't know it yet
    return view.role.replace("_", "-")


def _style(column: str, cells: dict[str, str], view: NodeView) -> str:
    role_style = ROLE_STYLES.get(cells["ROLE"], "")
    if column in ("NODE", "ROLE"):
        return role_style
    if view.report is None:
        return "red"
    if column == "LAG" and cells["LAG"].isdigit() and int(cells["LAG"]) >= LAG_NOTICED_ENTRIES:
        return "yellow"
    return "bold" if cells["ROLE"] == "leader" else ""


def _links(view: NodeView) -> Text:
    parts = [
        Text(f"{node} {'up' if up else 'DOWN'}", style="green" if up else "bold red")
        for node, up in view.links
    ]
    return Text(", ").join(parts) if parts else Text("-")


def _shown(number: int | None) -> str:
    return "" if number is None else str(number)


def _age(seconds: float) -> str:
    if seconds < 1:
        return "just now"
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"
