"""A picture of where a history breaks: the operations that don't fit, and those about the same keys near
them.

As text, or as a page of HTML that needs nothing else. Must not know how the verdict was found.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable

from raftkv.verify.history import (
    Cas,
    Condition,
    Delete,
    Deleted,
    Get,
    Item,
    List,
    Listed,
    Operation,
    Outcome,
    Put,
    Read,
    Refused,
    Written,
)
from raftkv.verify.verdict import Verdict

MAX_SHOWN_OPERATIONS = 24
MAX_ORDER_OPERATIONS = 8
_MAX_VALUE_CHARS = 24
_BAR_COLUMNS = 60
_REASON_COLUMNS = 110


def text(history: Iterable[Operation], verdict: Verdict) -> str:
    """The reason, a line an operation with its interval as a bar (``!`` marks what doesn't fit, ``~`` an
    answer that never came), and the end of the longest order that fits. Ends with a newline.
    """
    shown = window(history, verdict)
    place = _Columns(shown)
    rows = [((o.client, asked(o), answered(o)), place.bar(o), o in verdict.culprits) for o in shown]
    widths = [max(map(len, column)) for column in zip(*(words for words, *_ in rows), strict=True)]
    lines = [*textwrap.wrap(verdict.reason, _REASON_COLUMNS), ""]
    for words, bar, culprit in rows:
        cells = (f"{word:<{width}}" for word, width in zip(words, widths, strict=True))
        lines.append(f"{'!' if culprit else ' '} {'  '.join(cells)}  {bar}".rstrip())
    if verdict.order:
        lines += ["", "an order that fits, up to there:"]
        if len(verdict.order) > MAX_ORDER_OPERATIONS:
            lines.append(f"  ... {len(verdict.order) - MAX_ORDER_OPERATIONS:,} before")
        for operation in verdict.order[-MAX_ORDER_OPERATIONS:]:
            lines.append(f"  {operation.client}  {asked(operation)}  {answered(operation)}")
    return "\n".join(lines) + "\n"


def page(history: Iterable[Operation], verdict: Verdict) -> str:
    """The same as one HTML page."""
    shown = window(history, verdict)
    place = _Columns(shown)
    rows = []
    for operation in shown:
        left, right = place.span(operation)
        kind = "culprit" if operation in verdict.culprits else operation.outcome.value
        style = f"margin-left:{left / _BAR_COLUMNS:.1%};width:{(right - left + 1) / _BAR_COLUMNS:.1%}"
        cells = (html.escape(cell) for cell in (operation.client, asked(operation), answered(operation)))
        times = f"{operation.call:.6f} to {operation.end:.6f} s"
        bar = f'<td class="t"><div class="{kind}" title="{times}" style="{style}"></div></td>'
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + bar + "</tr>")
    order = "".join(
        f"<li>{html.escape(f'{o.client}: {asked(o)} {answered(o)}')}</li>"
        for o in verdict.order[-MAX_ORDER_OPERATIONS:]
    )
    after = f"<p>An order that fits, up to there (its end):</p><ol>{order}</ol>" if order else ""
    return (
        '<!doctype html><meta charset="utf-8"><title>history</title><style>'
        "body{font:14px monospace;margin:2em}td{padding:2px 8px;white-space:nowrap}.t{width:60%}"
        "div{height:1em;background:#9bc}div.unknown{background:#ddd}div.culprit{background:#d55}</style>"
        f"<h1>{verdict.answer.value}</h1><p>{html.escape(verdict.reason)}</p>"
        f"<table style='width:100%'>{''.join(rows)}</table>{after}\n"
    )


def window(history: Iterable[Operation], verdict: Verdict) -> list[Operation]:
    """The culprits, and what overlaps or precedes them most closely about their keys; by call."""
    culprits = list(dict.fromkeys(verdict.culprits))[:MAX_SHOWN_OPERATIONS]
    if not culprits:
        return []
    keys = {o.key for o in culprits}
    first, last = min(o.call for o in culprits), max(o.call if math.isinf(o.end) else o.end for o in culprits)
    near = [
        o
        for o in history
        if o.call <= last and o.outcome is not Outcome.FAIL and o not in culprits
        and (o.key in keys or None in keys or o.key is None)
    ]  # fmt: skip
    # Overlapping ones first, then the latest before.
    near.sort(key=lambda o: (o.end < first, -o.call))
    return sorted([*culprits, *near[: MAX_SHOWN_OPERATIONS - len(culprits)]], key=lambda o: (o.call, o.end))


class _Columns:
    """Times as columns. Only the order of events is to scale: it alone decides."""

    def __init__(self, operations: list[Operation]) -> None:
        ends = {o.end for o in operations if math.isfinite(o.end) and o.outcome is Outcome.OK}
        times = sorted({o.call for o in operations} | ends)
        step = (_BAR_COLUMNS - 1) / max(1, len(times) - 1)
        self._column = {moment: round(place * step) for place, moment in enumerate(times)}

    def span(self, operation: Operation) -> tuple[int, int]:
        """First and last column, both included."""
        left = self._column[operation.call]
        if operation.outcome is not Outcome.OK:
            return left, _BAR_COLUMNS - 1
        return left, self._column[operation.end]

    def bar(self, operation: Operation) -> str:
        left, right = self.span(operation)
        width = right - left + 1
        if operation.outcome is not Outcome.OK:
            return " " * left + "|" + "~" * (width - 1)
        return " " * left + ("|" if width == 1 else "|" + "-" * (width - 2) + "|")


def asked(operation: Operation) -> str:
    match operation.action:
        case Put(key, value, condition):
            return f"put {_name(key)}={_name(value)}{_given(condition)}"
        case Delete(key, condition):
            return f"delete {_name(key)}{_given(condition)}"
        case Get(key, stale):
            return f"get {_name(key)}" + " (stale)" * stale
        case Cas(key, expected, value):
            return f"cas {_name(key)}: {_name(expected)} to {_name(value)}"
        case List(start, end, limit, reverse, stale):
            to = "" if end is None else _name(end)
            return f"list {_name(start)}..{to} limit {limit}" + " reverse" * reverse + " (stale)" * stale


def answered(operation: Operation) -> str:
    match operation.result:
        case None:
            return f"{operation.outcome.value}"
        case Written(revision, version):
            words = ["done", _number("v", version)]
        case Deleted(deleted, revision):
            words = ["done" if deleted else "nothing to delete"]
        case Refused(mod, revision):
            words = ["refused", _number("mod", mod)]
        case Read(item, revision):
            words = ["none"] if item is None else [_item(item)]
        case Listed(items, more, revision):
            words = [
                f"{len(items)} keys: {' '.join(_name(key) for key, _ in items[:4])}",
                "..." * (len(items) > 4),
            ]
            words.append("more" * bool(more))
    return " ".join(filter(None, [*words, _number("@", revision)]))


def _item(item: Item) -> str:
    value = "there" if item.value is None else _name(item.value)
    return " ".join(filter(None, [value, _number("mod", item.mod_revision), _number("v", item.version)]))


def _number(name: str, number: int | None) -> str:
    return "" if number is None else f"{name}{number}"


def _given(condition: Condition | None) -> str:
    if condition is None:
        return ""
    return f" if {condition.kind.value} {','.join(map(str, condition.revisions))}".rstrip()


def _name(raw: bytes) -> str:
    """Bytes as ASCII on one line, cut short."""
    shown = ascii(raw.decode("utf-8", "surrogateescape"))[1:-1]
    return shown if len(shown) <= _MAX_VALUE_CHARS else shown[: _MAX_VALUE_CHARS - 3] + "..."
