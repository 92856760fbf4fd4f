"""The cluster's own account of all that was ever changed: a watch of all keys from revision 1, at the end.

It is checked against what clients were told (``contradictions``), and must be the same on every node; then
the workloads are judged by it.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from raftkv.verify.history import Delete, Deleted, History, Outcome, Put, Written
from tests.cluster.harness import Node
from tests.nemesis.notes import PREFIX, Moments

READ_DEADLINE_S = 60.0
MAX_TOLD = 5


@dataclass(frozen=True, slots=True)
class Change:
    """``value`` is None where the key was deleted; then what follows is 0."""

    revision: int
    key: str
    value: str | None
    create_revision: int = 0
    version: int = 0
    lease: int = 0

    @classmethod
    def of_event(cls, name: str, data: dict[str, Any]) -> Change:
        """``name``: put or delete; ``data``: of the event."""
        if name == "delete":
            return cls(data["revision"], data["key"], None)
        return cls(
            data["revision"],
            data["key"],
            data["value"],
            data["create_revision"],
            data["version"],
            data["lease"] or 0,
        )


class Record:
    """``changes``: in the order of their revisions."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = list(changes)
        self.of_key: defaultdict[str, list[Change]] = defaultdict(list)
        self.of_revision: defaultdict[int, list[Change]] = defaultdict(list)
        for change in changes:
            self.of_key[change.key].append(change)
            self.of_revision[change.revision].append(change)

    @property
    def last_revision(self) -> int:
        return self.changes[-1].revision if self.changes else 0

    def at(self, key: str, revision: int) -> Change | None:
        """What the key was at that revision; None: not there."""
        changes = self.of_key.get(key, [])
        place = bisect_right(changes, revision, key=lambda change: change.revision)
        found = changes[place - 1] if place else None
        return None if found is None or found.value is None else found

    def others(self) -> set[int]:
        """The revisions that are of the workloads' keys, or of none that can be watched: locks."""
        single = {change.revision for change in self.changes if not change.key.startswith(PREFIX)}
        return set(range(1, self.last_revision + 1)) - single

    def flaws(self) -> list[str]:
        """What no history may have."""
        flaws = []
        before = 0
        for change in self.changes:
            if change.revision < before:
                flaws.append(f"{change} comes after revision {before}")
            before = change.revision
            old = self.at(change.key, change.revision - 1)
            if change.value is None:
                flaws += [] if old else [f"{change}: it was not there"]
                continue
            expected = (old.create_revision, old.version + 1) if old else (change.revision, 1)
            if (change.create_revision, change.version) != expected:
                flaws.append(f"{change}: created and version must be {expected}")
        for revision, changes in self.of_revision.items():
            if len({change.key for change in changes}) < len(changes):
                flaws.append(f"revision {revision} changes a key twice")
        return flaws


async def read_record(node: Node, last: int) -> Record:
    """Of one node, up to revision ``last``, of a key that can be watched. Raises AssertionError."""
    changes: list[Change] = []
    url = f"{node.url}/v1/watch?prefix=&from=1"
    headers = {"Accept": "application/x-ndjson"}
    timeout = aiohttp.ClientTimeout(READ_DEADLINE_S)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers, timeout=timeout) as reply,
        ):
            assert reply.status == 200, f"{node.name} doesn't tell the past: {reply.status}"
            async for line in reply.content:
                event = json.loads(line)
                if event["event"] in ("put", "delete"):
                    changes.append(Change.of_event(event["event"], event))
                    if event["id"] == str(last):
                        return Record(changes)
                else:
                    assert event["event"] == "progress", f"{node.name}'s past: {event}"
                    assert "end" not in event, f"{node.name}'s past ends: {event}"
    except (aiohttp.ClientError, TimeoutError) as error:
        raise AssertionError(f"{node.name} doesn't tell the past: {error!r}") from error
    raise AssertionError(f"{node.name}'s past ends before {last}")


async def read_records(nodes: Sequence[Node], last: int) -> tuple[Record, list[str]]:
    """The first one's, and how those of the others differ from it, with its own flaws."""
    first, *others = await asyncio.gather(*(read_record(node, last) for node in nodes))
    complaints = first.flaws()[:MAX_TOLD]
    for node, other in zip(nodes[1:], others, strict=True):
        if other.changes != first.changes:
            differing = (
                pair for pair in zip(other.changes, first.changes, strict=False) if pair[0] != pair[1]
            )
            one, expected = next(differing, (len(other.changes), len(first.changes)))
            complaints.append(f"{node.name} tells of {one}, {nodes[0].name} of {expected}")
    return first, complaints


def contradictions(record: Record, history: History, moments: Moments) -> list[str]:
    """Of single operations: what was acknowledged is there at its revision, what is there was asked for, and
    nobody was told of a revision before it was asked for.
    """
    told: set[int] = set()
    untold: set[tuple[str, str | None]] = set()
    complaints: list[str] = []
    for operation in history:
        action, revision = operation.action, operation.revision
        if not isinstance(action, Put | Delete):
            continue
        value = action.value.decode() if isinstance(action, Put) else None
        key = action.key.decode()
        if operation.outcome is Outcome.UNKNOWN:
            untold.add((key, value))
        if not operation.changed or revision is None:
            continue
        told.add(revision)
        expected = Change(revision, key, value)
        found = record.of_revision.get(revision, [])
        if [_asked_of(change) for change in found] != [(key, value)] or not _same_version(
            operation.result, found
        ):
            complaints.append(f"acknowledged was {expected}, and there is {found}")
        if moments.known_at(revision) < operation.call:
            complaints.append(f"revision {revision} was seen before {action} was asked for")
    for change in record.changes:
        if change.key.startswith(PREFIX) or change.revision in told or _asked_of(change) in untold:
            continue
        complaints.append(f"nobody asked for {change}")
    return complaints[:MAX_TOLD]


def _asked_of(change: Change) -> tuple[str, str | None]:
    return change.key, change.value


def _same_version(result: Any, found: Iterable[Change]) -> bool:
    return isinstance(result, Deleted) or all(
        isinstance(result, Written) and result.version in (None, change.version) for change in found
    )
