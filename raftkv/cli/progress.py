"""A progress bar on standard error, for people at a terminal. rich is imported only there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]
"""So much more is done."""


@contextmanager
def bar(unit: str, total: int | None, output: str) -> Iterator[Advance]:
    """Shown where standard error is a terminal and ``output`` is for people. ``total``: None if unknown."""
    if output == "json" or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - heavy
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    count = "{task.completed:,.0f}" if total is None else "{task.completed:,.0f} of {task.total:,.0f}"
    columns = (BarColumn(), TextColumn(f"{count} {unit}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda more: progress.advance(task, more)
