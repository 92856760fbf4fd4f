"""What one key may do, one operation after the other: the specifications that a search tries orders against.

A model's ``step`` gives the state after an operation, or None where its result could not have come of that
state. An operation of unknown outcome has no result to compare; where it would change nothing, ``step``
refuses it too, since never happening covers that. States are hashable, and never None. Must not know time or
orders.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Hashable
from typing import Any, NamedTuple, Protocol

from raftkv.verify.history import (
    Cas,
    Condition,
    ConditionKind,
    Delete,
    Deleted,
    Get,
    Operation,
    Put,
    Read,
    Refused,
    Written,
)


class Model(Protocol):
    """A sequential specification of one key. ``by_revision``: answered operations fit only in the order of
    their revisions, a change before what saw it.
    """

    by_revision: bool

    @property
    def initial(self) -> Hashable: ...

    def step(self, state: Any, operation: Operation) -> Hashable | None: ...

    def leaves_room(self, state: Any, following: Operation) -> bool:
        """Whether ``following``, the next by revision, may still come after ``state``."""
        ...


class Register:
    """A value that is put, read, deleted, and compared and set. Its state is ``(value,)``, or ``()`` if
    absent.

    Looks at no revisions. Raises ValueError on conditions, which need them.
    """

    by_revision = False
    initial: tuple[bytes, ...] = ()

    def step(self, state: tuple[bytes, ...], operation: Operation) -> tuple[bytes, ...] | None:
        match operation.action, operation.result:
            case Put(_, value, None), Written() | None:
                return (value,)
            case Cas(_, expected, value), result:
                if state == (expected,):
                    return None if isinstance(result, Refused) else (value,)
                return state if isinstance(result, Refused) else None
            case Delete(_, None), None:
                return () if state else None
            case Delete(_, None), Deleted(deleted):
                return () if deleted == len(state) else None
            case Get(), Read(None):
                return state if not state else None
            case Get(), Read(item) if item is not None:
                return state if state and item.value in (None, state[0]) else None
        raise ValueError(f"no operation of a register: {operation.action}")

    def leaves_room(self, state: tuple[bytes, ...], following: Operation) -> bool:
        return True


class KeyState(NamedTuple):
    """A key in a store with revisions.

    ``version`` 0: absent. ``create`` and ``mod`` are 0 then. They are negative where a write of unknown
    outcome made them: -n stands for "n or later", until an answer tells. ``floor``: the store's revision is
    that at least.
    """

    value: bytes
    create: int
    mod: int
    version: int
    floor: int

    @property
    def absent(self) -> bool:
        return self.version == 0


_FRESH = KeyState(b"", 0, 0, 0, 0)


class KeyValue:
    """raftkv's key: puts and deletes with conditions, reads with all their revisions. Raises ValueError on
    Cas.

    The store's revision is shared by all keys, so here it only never falls, and grows with each change; that
    it grows by 1 is for ``revisions`` to check. ``taken``: the revisions of answered writes, to any key; no
    other write can have one of them.
    """

    by_revision = True
    initial = _FRESH

    def __init__(self, taken: Collection[int] = ()) -> None:
        self._last = max(taken, default=0)
        taken = frozenset(taken)
        self._free = [revision for revision in range(1, self._last) if revision not in taken]

    def _first_free(self, floor: int) -> int:
        """The first revision above ``floor`` that isn't taken."""
        place = bisect_right(self._free, floor)
        return self._free[place] if place < len(self._free) else max(floor, self._last) + 1

    def step(self, state: KeyState, operation: Operation) -> KeyState | None:
        action, result = operation.action, operation.result
        revision = operation.revision
        if revision is not None and revision < state.floor:
            return None
        match action, result:
            case Get(), Read():
                return _read(state, result)
            case (Put() | Delete()) as write, Refused():
                return _refused(state, write.condition, result)
            case Put(), (Written() | None) as written:
                given = _given(state, action.condition)
                return None if given is None else _put(given, action.value, written, self._first_free)
            case Delete(), (Deleted() | None) as deleted:
                given = _given(state, action.condition)
                return None if given is None else _delete(given, deleted, self._first_free)
        raise ValueError(f"no operation of a key-value store: {action}")

    def leaves_room(self, state: KeyState, following: Operation) -> bool:
        return following.revision is None or state.floor + following.changed <= following.revision


def _put(
    state: KeyState, value: bytes, written: Written | None, first_free: Callable[[int], int]
) -> KeyState | None:
    revision = written.revision if written else None
    version = state.version + 1
    if written and written.version not in (None, version):
        return None
    if revision is not None and revision <= state.floor:
        return None
    floor = first_free(state.floor) if revision is None else revision
    mod = -floor if revision is None else revision
    return KeyState(value, mod if state.absent else state.create, mod, version, floor)


def _delete(state: KeyState, deleted: Deleted | None, first_free: Callable[[int], int]) -> KeyState | None:
    revision = deleted.revision if deleted else None
    if deleted and deleted.deleted == 0:
        return _at_least(state, revision) if state.absent else None
    if state.absent or (revision is not None and revision <= state.floor):
        return None
    return _FRESH._replace(floor=first_free(state.floor) if revision is None else revision)


def _read(state: KeyState, read: Read) -> KeyState | None:
    item = read.item
    if item is None or state.absent:
        return _at_least(state, read.revision) if item is None and state.absent else None
    if item.value not in (None, state.value) or item.version not in (None, state.version):
        return None
    seen = _with_mod(state, item.mod_revision, read.revision)
    if seen is None or item.create_revision is None:
        return seen
    create = item.create_revision
    if not _may_be(seen.create, create) or (seen.mod >= 0 and create > seen.mod):
        return None
    return seen._replace(create=create)


def _refused(state: KeyState, condition: Condition | None, result: Refused) -> KeyState | None:
    if condition is None:
        return None
    seen = _with_mod(state, result.mod_revision, result.revision)
    if seen is None:
        return None
    if seen.mod < 0 and condition.kind not in (ConditionKind.EXISTS, ConditionKind.ABSENT):
        return seen  # nobody was told the revision: the condition may not have held
    return None if condition.holds(seen.mod) else seen


def _given(state: KeyState, condition: Condition | None) -> KeyState | None:
    """The state with what it tells that ``condition`` held; None if it can't have."""
    if condition is None:
        return state
    if state.mod >= 0 or condition.kind in (ConditionKind.EXISTS, ConditionKind.ABSENT):
        return state if condition.holds(state.mod) else None
    if condition.kind is ConditionKind.REVISION_NOT_IN:
        return state  # NB: lenient; what the revision then can't be is not remembered
    possible = [revision for revision in condition.revisions if _may_be(state.mod, revision)]
    if len(possible) == 1:
        return _with_mod(state, possible[0], None)
    return state if possible else None


def _with_mod(state: KeyState, mod: int | None, revision: int | None) -> KeyState | None:
    """The state, now that its mod_revision was seen to be ``mod`` in a store at ``revision``."""
    if mod is None:
        return _at_least(state, revision)
    if not _may_be(state.mod, mod) or (revision is not None and mod > revision):
        return None
    create = mod if state.version == 1 else state.create
    return _at_least(state._replace(mod=mod, create=create, floor=max(state.floor, mod)), revision)


def _may_be(held: int, seen: int) -> bool:
    return seen == held if held >= 0 else seen >= -held


def _at_least(state: KeyState, revision: int | None) -> KeyState:
    return state if revision is None or revision <= state.floor else state._replace(floor=revision)
