"""What must hold when all faults are over: the members are who they should be, they are equal, and every
acknowledged write is there.

Its own listings are operations of the history too, so the checkers compare them with all writes; that the
acknowledged ones are there is looked at once more by ``missing``, which knows no checker.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raftkv.verify.history import (
    Deleted,
    History,
    Item,
    List,
    Listed,
    Operation,
    Outcome,
    Put,
    Written,
)
from tests.cluster.harness import Cluster, Node, until
from tests.nemesis.asking import Connection, perform
from tests.nemesis.notes import OWN_KEYS
from tests.nemesis.roster import voters

SETTLE_DEADLINE_S = 20.0
PAGE_KEYS = 500
TIMEOUT_MS = 10_000
MAX_TOLD = 5

Listing = Mapping[bytes, Item]


@dataclass(frozen=True, slots=True)
class View:
    """All that a node told: (store's revision, items) as its own stale state, and linearizably."""

    stale: tuple[int, Listing]
    linearizable: tuple[int, Listing]


async def settled(cluster: Cluster) -> None:
    """Wait until every node has applied the same, and knows that it is committed. Raises AssertionError."""

    async def equal() -> bool:
        statuses = [await cluster.status(node) for node in cluster.nodes]
        names = ("last_applied", "commit_index", "last_index")
        return len({tuple(s[name] for name in names) if s else None for s in statuses}) == 1 and all(statuses)

    await until(equal, "all nodes have applied the same", SETTLE_DEADLINE_S)


async def other_members(cluster: Cluster) -> list[str]:
    """Which of the nodes doesn't say that all of them, and no others, are the voters for good."""
    expected = sorted(node.name for node in cluster.nodes)
    found = {node.name: await voters(cluster, node) for node in cluster.nodes}
    return [
        f"{name} lists as members {listed}, not {expected}"
        for name, listed in found.items()
        if listed != expected
    ]


async def views(nodes: Sequence[Node]) -> tuple[dict[str, View], list[Operation]]:
    """By node, and the reads it took."""
    operations: list[Operation] = []
    found: dict[str, View] = {}
    for node in nodes:
        stale = await _listing(node, operations, stale=True)
        found[node.name] = View(stale, await _listing(node, operations, stale=False))
    return found, operations


async def _listing(node: Node, operations: list[Operation], *, stale: bool) -> tuple[int, Listing]:
    """Page after page; those of the workloads' keys are no operations of the history. Raises AssertionError
    if it isn't answered.
    """
    connection = Connection(node.host, node.port)
    items: dict[bytes, Item] = {}
    revision = 0
    for first, end in ((b"", OWN_KEYS), (OWN_KEYS, None)):
        start, more = first, True
        while more:
            action = List(start, end, PAGE_KEYS, stale=stale)
            operation = await perform(connection, f"judge-{node.name}", action, TIMEOUT_MS)
            if end is not None:
                operations.append(operation)
            result = operation.result
            assert isinstance(result, Listed), f"{node.name} doesn't list: {operation.outcome}"
            items.update(result.items)
            more, revision = bool(result.more), result.revision or 0
            start = max(items, default=b"") + b"\0"
    connection.close()
    return revision, items


def differences(found: Mapping[str, View]) -> list[str]:
    """Every view must be the first one, items and revision."""
    complaints = []
    (first, reference), *_ = found.items()
    for name, view in found.items():
        for what, state in (("stale", view.stale), ("linearizable", view.linearizable)):
            if state == reference.stale:
                continue
            (revision, items), (expected_revision, expected) = state, reference.stale
            keys = sorted(
                key for key in items.keys() | expected.keys() if items.get(key) != expected.get(key)
            )
            shown = [f"{key!r}: {items.get(key)} not {expected.get(key)}" for key in keys[:MAX_TOLD]]
            complaints.append(
                f"{name}'s {what} state at revision {revision} differs from {first}'s at {expected_revision}"
                f" in {len(keys)} keys: {'; '.join(shown)}"
            )
    return complaints


def missing(history: History, state: Listing) -> list[str]:
    """Of every key, the last acknowledged change is there, or a later one that nobody was told of."""
    last: dict[bytes, tuple[int, Operation]] = {}
    untold: defaultdict[bytes, int] = defaultdict(int)
    for operation in history:
        key = operation.key
        if key is None or operation.reads_only:
            continue
        if operation.outcome is Outcome.UNKNOWN:
            untold[key] += 1
        revision = operation.revision
        if operation.changed and revision is not None and revision > last.get(key, (0,))[0]:
            last[key] = (revision, operation)
    complaints = []
    for key, (revision, operation) in sorted(last.items()):
        item = state.get(key)
        if not _shows(item, revision, operation) and not (
            untold[key] and (item is None or (item.mod_revision or 0) > revision)
        ):
            complaints.append(f"{key!r}: acknowledged {operation.action} at {revision}, and there is {item}")
    return complaints


def _shows(item: Item | None, revision: int, operation: Operation) -> bool:
    if isinstance(operation.result, Deleted):
        return item is None
    assert isinstance(operation.action, Put)
    assert isinstance(operation.result, Written)
    return item is not None and (item.mod_revision, item.value, item.version) == (
        revision,
        operation.action.value,
        operation.result.version,
    )


async def equal_states(cluster: Cluster) -> tuple[list[str], Listing, list[Operation]]:
    """Once all have settled: what differs, the state, and the reads it took."""
    try:
        await settled(cluster)
        async with asyncio.timeout(SETTLE_DEADLINE_S):
            found, operations = await views(cluster.nodes)
    except (AssertionError, TimeoutError) as error:
        statuses = {node.name: await cluster.status(node) for node in cluster.nodes}
        return [f"the nodes don't settle: {error}; {statuses}"], {}, []
    complaints = [*await other_members(cluster), *differences(found)]
    return complaints, found[cluster.nodes[0].name].linearizable[1], operations
