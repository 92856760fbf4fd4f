"""States of what others hold: who has a lock or leads an election, and each state of what is followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from typing import Any

from raftkv.cli.holding import Queue
from raftkv.cli.output import Failure, document_of, print_json, print_rows, printable, reported
from raftkv.cli.watch import PATIENCE_S, say_that_it_moved
from raftkv.client import Cluster, Request
from raftkv.client.kv import item_bytes
from raftkv.client.watch import Query, watch

COLUMNS = ("value", "fencing token", "lease", "waiting")


def show(cluster: Cluster, queue: Queue, holder: str, output: str) -> None:
    """``holder``: what the answer calls whoever has it. Raises ``Failure`` where nobody has."""
    with reported():
        found = document_of(cluster.read(Request("GET", queue.path)))
    has_it = found.get(holder)
    if output == "json":
        print_json(found)
    elif has_it:
        row = (*holder_cells(has_it), str(found.get("waiters", 0)))
        print_rows(COLUMNS, [row], empty="", styles={"value": "green"})
    if not has_it:
        raise Failure(f"nobody has {queue}")


def holder_cells(has_it: Mapping[str, Any]) -> tuple[str, str, str]:
    """Its value, fencing token and lease."""
    return printable(item_bytes(has_it, "value")), str(has_it["fencing_token"]), str(has_it["lease"])


def states(
    cluster: Cluster, path: str, query: Query, kind: str, limit: int | None
) -> Iterator[dict[str, Any]]:
    """The state of what is at ``path``, told by events of that ``kind``: now, and each time that it is
    another; ``limit`` of them. Ends with Ctrl-C. Raises ``Failure``.
    """
    with reported():
        events = watch(cluster, query, path=path, patience_s=PATIENCE_S, on_moved=say_that_it_moved)
        with closing(events):
            try:
                yield from islice(different(event for event in events if event["event"] == kind), limit)
            except KeyboardInterrupt:
                return


def different(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Another node begins with the state now, which may be the last that was seen."""
    last: dict[str, Any] | None = None
    for event in events:
        if event != last:
            last = event
            yield event
