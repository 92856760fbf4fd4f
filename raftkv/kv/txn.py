"""Operations that take one revision together, or none: they work over the store, and only ``commit`` changes
it. So whatever can't be done leaves no trace.

An operation sees what those before it did. A key that is written several times is changed once.
"""

from __future__ import annotations

from typing import Any

from raftkv.kv.commands import KEYS_ONLY, REVERSE, ConditionKind, Opcode, Relation, Target
from raftkv.kv.lease import MAX_CHOSEN_ID, MAX_LEASES, MAX_TTL_MS, MIN_TTL_MS, Leases
from raftkv.kv.results import (
    DeleteResult,
    GetResult,
    IncrementResult,
    Malformed,
    PutResult,
    RangeResult,
    Reason,
    Refused,
    Rejected,
    Result,
    TxnResult,
)
from raftkv.kv.row import Item, item_of, lease_of, mod_revision_of, pack_row, unpack_header
from raftkv.kv.store import Row, Store

MAX_DEPTH = 8
MAX_NUMBER = (1 << 63) - 1
MAX_DIGITS = 20
MAX_RANGE = 10_000
MAX_READ_BYTES = 8 << 20  # keys and values that one command gives back
_NO_ITEM = Item(b"", 0, 0, 0, None)


class Undone(Exception):
    """An operation can't be done; ``result`` says why."""

    def __init__(self, result: Malformed | Rejected | Refused) -> None:
        super().__init__(str(result))
        self.result = result


def malformed(reason: str) -> Undone:
    return Undone(Malformed(reason))


class ReadRoom:
    """How much a command may still read, with all that it is made of: every node that applies it must hold
    the answer for a while.
    """

    def __init__(self) -> None:
        self.left_bytes = MAX_READ_BYTES


class Txn:
    """At most one commit. All methods raise ``Undone``."""

    def __init__(self, store: Store, leases: Leases, time_ms: int, room: ReadRoom) -> None:
        self._store = store
        self._room = room
        self._leases = leases
        self._time_ms = time_ms
        self._changes: dict[bytes, Row] = {}
        self._granted: list[int] = []

    @property
    def revision(self) -> int:
        """Of the store, if this is committed now."""
        return self._store.revision + bool(self._changes)

    def commit(self) -> None:
        if self._granted:
            used = {lease_of(row) for row in self._changes.values() if row is not None}
            for lease in self._granted:
                if lease not in used:  # its key was put again, or deleted
                    self._leases.remove(lease)
        if self._changes:
            self._store.take(self._changes)

    def abandon(self) -> None:
        for lease in self._granted:
            self._leases.remove(lease)

    # -- operations ----------------------------------------------------------------------------------------

    def execute(self, command: Any, depth: int = 0) -> Result:
        if type(command) is not list or not command or type(command[0]) is not int or has_bool(command):
            raise malformed("unknown command")
        match command:
            case [Opcode.PUT, bytes(key), bytes(value), None | str() as content_type, condition]:
                return self._put(key, value, content_type, condition)
            case [
                Opcode.PUT,
                bytes(key),
                bytes(value),
                None | str() as content_type,
                condition,
                int(lease),
                int(ttl_ms),
            ]:
                return self._put(key, value, content_type, condition, lease=lease, ttl_ms=ttl_ms)
            case [Opcode.DELETE, bytes(key), condition]:
                self._check_condition(key, condition)
                there = self._row(key) is not None
                if there:
                    self._remove(key)
                return DeleteResult(int(there), self.revision)
            case [Opcode.GET, bytes(key)]:
                row = self._row(key)
                self._take_room(0 if row is None else len(key) + len(row))
                return GetResult(None if row is None else item_of(row), self.revision)
            case [Opcode.RANGE, bytes(start), None | bytes() as end, int(limit), int(flags)]:
                return self._range(start, end, limit, flags)
            case [Opcode.DELETE_RANGE, bytes(start), None | bytes() as end]:
                keys = [key for key, _ in self._store.rows(start, end, overlay=self._changes)]
                for key in keys:
                    self._remove(key)
                return DeleteResult(len(keys), self.revision)
            case [Opcode.INCREMENT, bytes(key), int(by)]:
                return self._increment(key, by)
            case [Opcode.TXN, list(compares), list(then), list(otherwise)] if depth < MAX_DEPTH:
                return self._branch(compares, then, otherwise, depth)
            case _:
                raise malformed("unknown command in a transaction")

    def _branch(self, compares: list[Any], then: list[Any], otherwise: list[Any], depth: int) -> TxnResult:
        held = [self._compare(each) for each in compares]  # all of them: none may be malformed
        succeeded = all(held)
        results = [self.execute(each, depth + 1) for each in (then if succeeded else otherwise)]
        return TxnResult(succeeded, tuple(results), self.revision)

    def _put(
        self,
        key: bytes,
        value: bytes,
        content_type: str | None,
        condition: Any,
        *,
        lease: int = 0,
        ttl_ms: int = 0,
    ) -> PutResult:
        self._check_condition(key, condition)
        if ttl_ms:
            lease = self.grant(ttl_ms, own=True)
        elif lease and self._leases.get(lease) is None:
            raise Undone(
                self._rejected(Reason.NO_SUCH_LEASE, f"there is no lease {lease}; it may have ended")
            )
        old, revision = self._row(key), self._store.revision + 1
        create_revision, version = _next_version(old, revision)
        self._changes[key] = pack_row(value, create_revision, revision, version, content_type, lease)
        return PutResult(revision, version, lease)

    def _increment(self, key: bytes, by: int) -> IncrementResult:
        """Content type and lease stay as they are."""
        row, revision = self._row(key), self._store.revision + 1
        item = _NO_ITEM if row is None else item_of(row)
        digits = item.value if row is not None else b"0"
        if len(digits) > MAX_DIGITS or not digits.removeprefix(b"-").isdigit():
            raise Undone(self._rejected(Reason.NOT_A_NUMBER, "the value isn't a decimal number"))
        value = int(digits) + by
        if abs(value) > MAX_NUMBER:
            raise Undone(self._rejected(Reason.NUMBER_TOO_LARGE, "the sum is beyond 64 bits"))
        create_revision, version = _next_version(row, revision)
        self._changes[key] = pack_row(
            b"%d" % value, create_revision, revision, version, item.content_type, item.lease
        )
        return IncrementResult(value, revision, version)

    def _range(self, start: bytes, end: bytes | None, limit: int, flags: int) -> RangeResult:
        if not 0 < limit <= MAX_RANGE or flags not in range(4):
            raise malformed("a range with a limit or flags that can't be")
        page = self._store.page(
            start,
            end,
            limit,
            reverse=bool(flags & REVERSE),
            max_bytes=self._room.left_bytes,
            overlay=self._changes,
        )
        self._take_room(sum(len(key) + len(item.value) for key, item in page.items))
        items = [(key, item._replace(value=b"") if flags & KEYS_ONLY else item) for key, item in page.items]
        return RangeResult(tuple(items), page.more, self.revision)

    def grant(self, ttl_ms: int, *, own: bool = False, lease: int = 0) -> int:
        if not MIN_TTL_MS <= ttl_ms <= MAX_TTL_MS:
            raise malformed("a time to live that can't be")
        if not 0 <= lease <= MAX_CHOSEN_ID:
            raise malformed("a lease's id that can't be")
        if len(self._leases) >= MAX_LEASES:
            raise Undone(self._rejected(Reason.TOO_MANY_LEASES, f"there are {MAX_LEASES} leases already"))
        if lease and self._leases.get(lease) is not None:
            raise Undone(self._rejected(Reason.LEASE_EXISTS, f"there is a lease {lease} already"))
        granted = self._leases.grant(ttl_ms, self._time_ms, own=own, lease=lease)
        self._granted.append(granted)
        return granted

    # -- rows ----------------------------------------------------------------------------------------------

    def _row(self, key: bytes) -> Row:
        return self._changes[key] if key in self._changes else self._store.row(key)

    def _remove(self, key: bytes) -> None:
        if self._store.row(key) is None:  # put by this transaction: nobody will have seen it
            del self._changes[key]
        else:
            self._changes[key] = None

    def _take_room(self, size_bytes: int) -> None:
        self._room.left_bytes -= size_bytes
        if self._room.left_bytes < 0:
            detail = f"more than {MAX_READ_BYTES} bytes would be read at once"
            raise Undone(self._rejected(Reason.ANSWER_TOO_LARGE, detail))

    def _rejected(self, reason: Reason, detail: str) -> Rejected:
        return Rejected(reason, detail, self._store.revision)

    # -- conditions ----------------------------------------------------------------------------------------

    def _check_condition(self, key: bytes, condition: Any) -> None:
        if condition is not None:
            row = self._row(key)
            current = 0 if row is None else mod_revision_of(row)
            refused = check_condition(condition, current, self._store.revision)
            if isinstance(refused, Refused):  # nothing of this will be: what there is counts
                raise Undone(Refused(self._store.mod_revision(key), refused.revision))
            if refused is not None:
                raise Undone(refused)

    def _compare(self, compare: Any) -> bool:
        match compare:
            case [bytes(key), None | bytes() as end, int(target), int(relation), bytes() | int() as operand]:
                pass
            case _:
                raise malformed("not a compare")
        if has_bool(compare) or (type(operand) is bytes) != (target == Target.VALUE):
            raise malformed("a compare with an operand of another kind")
        if target not in _TARGETS or relation not in _RELATIONS:
            raise malformed("an unknown compare")
        if end is None:
            row = self._row(key)
            items = [] if row is None else [item_of(row)]
        else:
            rows = self._store.rows(key, end or None, overlay=self._changes)
            items = [item_of(row) for _, row in rows]
        if not items:
            return target != Target.VALUE and _holds(relation, _column(None, target), operand)
        return all(_holds(relation, _column(item, target), operand) for item in items)


_TARGETS = frozenset(Target)
_RELATIONS = frozenset(Relation)


def has_bool(parts: list[Any]) -> bool:
    """True is a number to Python, and to a match; it is none here."""
    return any(type(part) is bool for part in parts)


def _column(item: Item | None, target: int) -> Any:
    known = item or _NO_ITEM
    match target:
        case Target.VALUE:
            return known.value
        case Target.VERSION:
            return known.version
        case Target.CREATE_REVISION:
            return known.create_revision
        case Target.MOD_REVISION:
            return known.mod_revision
        case Target.LEASE:
            return known.lease
        case _:
            return int(item is not None)


def _holds(relation: int, value: Any, operand: Any) -> bool:
    match relation:
        case Relation.EQUAL:
            return bool(value == operand)
        case Relation.NOT_EQUAL:
            return bool(value != operand)
        case Relation.LESS:
            return bool(value < operand)
        case _:
            return bool(value > operand)


def _next_version(old: Row, revision: int) -> tuple[int, int]:
    """(create_revision, version) of what follows on ``old`` at ``revision``; a version counts revisions."""
    if old is None:
        return revision, 1
    create_revision, mod_revision, version, _ = unpack_header(old)
    return create_revision, version + (mod_revision != revision)


def check_condition(condition: Any, current: int, revision: int) -> Refused | Malformed | None:
    """None if ``condition`` holds of a key at ``current``, its mod_revision."""
    match condition:
        case [kind, list(revisions)] if all(type(number) is int for number in (kind, *revisions)):
            pass
        case _:
            return Malformed("not a condition")
    match kind:
        case ConditionKind.EXISTS:
            holds = current != 0
        case ConditionKind.ABSENT:
            holds = current == 0
        case ConditionKind.REVISION_IN:
            holds = current in revisions
        case ConditionKind.REVISION_NOT_IN:
            holds = current not in revisions
        case _:
            return Malformed("unknown condition")
    return None if holds else Refused(current, revision)
