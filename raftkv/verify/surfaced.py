"""Unknown writes that somebody saw: what is known of them after all.

A put of unknown outcome whose value a later read shows did happen, before that read returned. Knowing that
spares the search most of its guesses (etcd's robustness tests patch their histories likewise). Only sound
conclusions: the value must be that of no other put to the key, and the read no stale one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from raftkv.verify.history import Get, Item, Operation, Outcome, Put, Read, Written


def settle(operations: list[Operation]) -> list[Operation]:
    """One key's operations; each unknown put that was seen is answered, at the end of the first to see it."""
    writers = Counter(
        value
        for o in operations
        if o.outcome is not Outcome.FAIL and (value := getattr(o.action, "value", None)) is not None
    )
    seen: dict[bytes, tuple[float, Item]] = {}
    for o in operations:
        if isinstance(o.action, Get) and not o.stale and isinstance(o.result, Read):
            item = o.result.item
            if item is not None and item.value is not None and writers[item.value] == 1:
                seen[item.value] = min(seen.get(item.value, (o.end, item)), (o.end, item), key=lambda s: s[0])
    return [_settled(o, seen) for o in operations]


def _settled(operation: Operation, seen: dict[bytes, tuple[float, Item]]) -> Operation:
    action = operation.action
    if operation.outcome is not Outcome.UNKNOWN or not isinstance(action, Put) or action.value not in seen:
        return operation
    end, item = seen[action.value]
    if end < operation.call:
        return operation  # seen before it was asked for: nothing explains that, and the search will say so
    return replace(operation, outcome=Outcome.OK, end=end, result=Written(item.mod_revision, item.version))
