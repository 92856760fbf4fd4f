"""A short way to write histories down: ``put("c1", "a=1", 0, 3, rev=1)`` asked at 0, answered at 3."""

from __future__ import annotations

import math

from raftkv.verify.history import (
    Action,
    Condition,
    ConditionKind,
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
    Result,
    Written,
)

LOST = math.inf  # as an end: no answer came
ABSENT = Condition(ConditionKind.ABSENT)


def at(*revisions: int) -> Condition:
    return Condition(ConditionKind.REVISION_IN, revisions)


def operation(client: str, action: Action, call: float, end: float, result: Result | None) -> Operation:
    return Operation(client, action, call, end, Outcome.UNKNOWN if result is None else Outcome.OK, result)


def put(
    client: str,
    what: str,
    call: float,
    end: float,
    rev: int | None = None,
    *,
    given: Condition | None = None,
    version: int | None = None,
    refused_at: int | None = None,
) -> Operation:
    """``refused_at``: the mod_revision that a 412 told. An ``end`` of LOST makes the outcome unknown."""
    key, value = what.encode().split(b"=")
    result: Result | None = Written(rev, version) if refused_at is None else Refused(refused_at, rev)
    return operation(client, Put(key, value, given), call, end, None if end == LOST else result)


def delete(
    client: str, key: str, call: float, end: float, rev: int | None = None, *, deleted: int = 1
) -> Operation:
    result = None if end == LOST else Deleted(deleted, rev)
    return operation(client, Delete(key.encode()), call, end, result)


def get(
    client: str,
    what: str,
    call: float,
    end: float,
    rev: int | None = None,
    *,
    mod: int | None = None,
    version: int | None = None,
    stale: bool = False,
) -> Operation:
    """``what``: ``a=1`` read 1, ``a`` found nothing."""
    key, there, value = what.encode().partition(b"=")
    item = Item(value, None, mod, version) if there else None
    return operation(client, Get(key, stale), call, end, Read(item, rev))


def page(
    client: str, what: str, call: float, end: float, rev: int, *, limit: int = 100, more: bool = False
) -> Operation:
    """``what``: ``a=1 b=2`` is what it listed, of all keys."""
    pairs = [word.encode().split(b"=") for word in what.split()]
    items = tuple((key, Item(value)) for key, value in pairs)
    return operation(client, List(limit=limit), call, end, Listed(items, more, rev))
