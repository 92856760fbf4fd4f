"""The machine a second time, as plain as can be: dicts, whole copies, no encodings. Written apart from
``raftkv.kv``, from the rules that ``kv/commands.py`` states; only the classes of results are shared.

All that was ever there stays, so that any moment can be asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from struct import pack
from typing import Any, NamedTuple
from zlib import crc32

from raftkv.consensus.invariants import InvariantBroken
from raftkv.kv.commands import ConditionKind, Opcode, Relation, Target
from raftkv.kv.results import (
    BatchResult,
    CompactResult,
    DeleteResult,
    Done,
    GetResult,
    IncrementResult,
    LeaseResult,
    PutResult,
    RangeResult,
    Reason,
    Refused,
    Rejected,
    Result,
    RevokeResult,
    TxnResult,
)
from raftkv.kv.row import Item

LEASED = 1 << 31  # in a row: it has a lease


class Held(NamedTuple):
    """What a key holds from a revision on. All is 0, and the value None, where there is no such key."""

    modified: int
    value: bytes | None
    created: int
    version: int
    lease: int


class Lease(NamedTuple):
    ttl_ms: int
    expires_ms: int
    own: bool  # goes with the last of its keys


class Moment(NamedTuple):
    """The machine, but for its keys and sessions, after some batch."""

    revision: int = 0
    level: int = 1
    time_ms: int = 0
    compacted: int = 0
    checksum: int | None = None
    next_lease: int = 1
    leases: Mapping[int, Lease] = {}
    tokens: int = 0  # how many there were


Change = tuple[int, bytes, Held, Held]
"""(revision, key, what it held, what it holds)"""

NOTHING = Held(0, None, 0, 0, 0)


class _Undone(Exception):
    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


class Model:
    def __init__(self) -> None:
        self.changes: list[dict[bytes, tuple[Held, Held]]] = []  # by revision, from 1: (before, after)
        self.tokens: list[tuple[str, int, bytes, Any]] = []  # (token, when, fingerprint, result)
        self.on_lease_end: Callable[[int], None] = lambda lease: None  # its time has passed
        self._level, self._time_ms, self._log_ms, self._compacted = 1, 0, 0, 0
        self._checksum: int | None = None
        self._next_lease = 1
        self._leases: dict[int, Lease] = {}  # NB: never changed but replaced, for ``moment`` hands it out
        self._now: dict[bytes, Held] = {}
        self._past: dict[bytes, list[Held]] = {}
        self._values: set[bytes] = set()
        self._pending: dict[bytes, Held] = {}  # what the command at hand has changed so far
        self._written: list[bytes] = []  # values that it has put

    # -- what there is, and was ----------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        return len(self.changes)

    def moment(self) -> Moment:
        return Moment(
            self.revision, self._level, self._time_ms, self._compacted, self._checksum, self._next_lease,
            self._leases, len(self.tokens),
        )  # fmt: skip

    def wrote(self, value: bytes) -> bool:
        return value in self._values

    def at(self, key: bytes, revision: int) -> Held:
        past = self._past.get(key, [])
        position = bisect_right(past, revision, key=lambda held: held.modified)
        held = past[position - 1] if position else NOTHING
        return NOTHING if held.value is None else held

    def store_at(self, revision: int) -> dict[bytes, Held]:
        """All keys, in order."""
        found = ((key, self.at(key, revision)) for key in sorted(self._past))
        return {key: held for key, held in found if held.value is not None}

    def between(self, after: int, upto: int) -> Iterator[Change]:
        for revision in range(after + 1, upto + 1):
            for key, (before, then) in self.changes[revision - 1].items():
                yield revision, key, before, then

    # -- time ----------------------------------------------------------------------------------------------

    def pass_time(self, time_ms: int) -> None:
        """It is ``time_ms`` in the log."""
        if time_ms < self._log_ms:
            raise InvariantBroken(f"cluster time goes back from {self._log_ms} to {time_ms}")
        self._log_ms = time_ms
        if self._level == 1:
            return
        self._time_ms = time_ms
        due = [(each.expires_ms, lease) for lease, each in self._leases.items() if each.expires_ms <= time_ms]
        for _, lease in sorted(due):
            self._end_lease(lease)
            self.on_lease_end(lease)

    def _end_lease(self, lease: int) -> int:
        self._leases = {each: row for each, row in self._leases.items() if each != lease}
        keys = sorted(key for key, held in self._now.items() if held.lease == lease)
        self._pending = dict.fromkeys(keys, NOTHING)
        self._commit()
        return len(keys)

    # -- commands ------------------------------------------------------------------------------------------

    def execute(self, command: Sequence[Any]) -> Result:
        match command:
            case [Opcode.LEVEL, level]:
                if self._level < level:
                    self._level, self._compacted, self._checksum = level, self.revision, 0
                return Done(self.revision)
            case [Opcode.TICK]:
                return Done(self.revision)
            case [Opcode.BATCH, commands]:
                return BatchResult(tuple([self.execute(each) for each in commands]), self.revision)
            case [Opcode.ONCE, token, fingerprint, inner]:
                return self._once(token, fingerprint, inner)
            case [Opcode.COMPACT, revision]:
                if revision > self.revision:
                    return self._rejected(Reason.FUTURE_REVISION)
                self._compacted = max(self._compacted, revision)
                return CompactResult(self._compacted, self.revision)
            case [Opcode.KEEP_ALIVE | Opcode.REVOKE, lease] if lease not in self._leases:
                return self._rejected(Reason.NO_SUCH_LEASE)
            case [Opcode.KEEP_ALIVE, lease]:
                ttl_ms, _, own = self._leases[lease]
                renewed = Lease(ttl_ms, self._time_ms + ttl_ms, own)
                self._leases = {**self._leases, lease: renewed}
                return LeaseResult(lease, ttl_ms, renewed.expires_ms)
            case [Opcode.REVOKE, lease]:
                return RevokeResult(self._end_lease(lease), self.revision)
            case _:
                return self._all_or_nothing(command)

    def _once(self, token: str, fingerprint: bytes, command: Sequence[Any]) -> Result:
        for known, _, print_then, result in self.tokens:
            if known == token:
                return result if print_then == fingerprint else self._rejected(Reason.TOKEN_REUSED)
        outcome = self.execute(command)
        self.tokens.append((token, self._time_ms, fingerprint, outcome))
        return outcome

    def _all_or_nothing(self, command: Sequence[Any]) -> Result:
        leases = self._leases
        try:
            result: Result = self._operate(command)
        except _Undone as undone:
            self._leases, self._pending, self._written = leases, {}, []
            return undone.result
        self._commit()
        return result

    def _commit(self) -> None:
        pending, self._pending = self._pending, {}
        written, self._written = self._written, []
        for value in written:
            if value in self._values:
                raise InvariantBroken(f"exactly once: {value[:20]!r} is written twice")
            self._values.add(value)
        if pending:
            self._change(pending)
        self._forget_own()

    def _change(self, pending: dict[bytes, Held]) -> None:
        change: dict[bytes, tuple[Held, Held]] = {}
        self.changes.append(change)
        for key, then in pending.items():
            before = self._now.pop(key, NOTHING)
            if then.value is not None:
                self._now[key] = then
            if then != before:
                change[key] = before, then
                kept = self._past.setdefault(key, [])
                kept.append(then._replace(modified=self.revision))
                self._add_to_checksum(key, then)

    def _forget_own(self) -> None:
        """The leases that were made for a key go with it."""
        if any(row.own for row in self._leases.values()):
            held = {each.lease for each in self._now.values()}
            self._leases = {lease: row for lease, row in self._leases.items() if lease in held or not row.own}

    def _add_to_checksum(self, key: bytes, then: Held) -> None:
        if self._checksum is None:
            return
        if then.value is None:
            self._checksum = crc32(key, self._checksum ^ self.revision)
            return
        lease = pack("<Q", then.lease) if then.lease else b""
        row = pack("<QQQI", then.created, then.modified, then.version, LEASED if lease else 0) + lease
        self._checksum = crc32(row + then.value, crc32(key, self._checksum))

    # -- what takes one revision together ------------------------------------------------------------------

    def _operate(self, command: Sequence[Any]) -> Any:
        match command:
            case [Opcode.PUT, key, value, None, condition, *rest]:
                return self._put(key, value, condition, *rest)
            case [Opcode.DELETE, key, condition]:
                self._check(key, condition)
                was_there = self._held(key).value is not None
                if was_there:
                    self._remove(key)
                return DeleteResult(int(was_there), self._revision_now)
            case [Opcode.GET, key]:
                held = self._held(key)
                return GetResult(None if held.value is None else _item(held), self._revision_now)
            case [Opcode.RANGE, start, end, limit, flags]:
                found = [(key, _item(held)) for key, held in self._range(start, end)]
                if flags & 1:
                    found.reverse()
                if flags & 2:
                    found = [(key, item._replace(value=b"")) for key, item in found]
                return RangeResult(tuple(found[:limit]), len(found) > limit, self._revision_now)
            case [Opcode.DELETE_RANGE, start, end]:
                keys = [key for key, _ in self._range(start, end)]
                for key in keys:
                    self._remove(key)
                return DeleteResult(len(keys), self._revision_now)
            case [Opcode.INCREMENT, key, by]:
                return self._increment(key, by)
            case [Opcode.GRANT, lease, ttl_ms]:
                if lease in self._leases:
                    raise self._undone(Reason.LEASE_EXISTS)
                granted = self._grant(lease, ttl_ms, own=False)
                return LeaseResult(granted, ttl_ms, self._time_ms + ttl_ms)
            case [Opcode.TXN, compares, then, otherwise]:
                succeeded = all(self._compare(*each) for each in compares)
                results = tuple([self._operate(each) for each in (then if succeeded else otherwise)])
                return TxnResult(succeeded, results, self._revision_now)
            case _:
                raise InvariantBroken(f"the log holds {command!r}, which no client asks for")

    def _put(
        self, key: bytes, value: bytes, condition: Sequence[Any] | None, lease: int = 0, ttl_ms: int = 0
    ) -> PutResult:
        self._check(key, condition)
        if ttl_ms:
            lease = self._grant(0, ttl_ms, own=True)
        elif lease and lease not in self._leases:
            raise self._undone(Reason.NO_SUCH_LEASE)
        self._written.append(value)
        return PutResult(self.revision + 1, self._set(key, value, lease), lease)

    def _increment(self, key: bytes, by: int) -> IncrementResult:
        held = self._held(key)
        digits = b"0" if held.value is None else held.value
        if len(digits) > 20 or not digits.removeprefix(b"-").isdigit():
            raise self._undone(Reason.NOT_A_NUMBER)
        value = int(digits) + by
        if abs(value) >= 1 << 63:
            raise self._undone(Reason.NUMBER_TOO_LARGE)
        return IncrementResult(value, self.revision + 1, self._set(key, b"%d" % value, held.lease))

    def _set(self, key: bytes, value: bytes, lease: int) -> int:
        """The key's version then: how many revisions have put it since it was created."""
        held, revision = self._held(key), self.revision + 1
        version = held.version + (held.modified != revision)
        self._pending[key] = Held(revision, value, held.created or revision, version, lease)
        return version

    def _remove(self, key: bytes) -> None:
        """What wasn't there before this command won't have been there."""
        if key in self._now:
            self._pending[key] = NOTHING
        else:
            del self._pending[key]

    def _grant(self, lease: int, ttl_ms: int, *, own: bool) -> int:
        lease = lease or self._next_lease
        self._next_lease = max(self._next_lease, lease + 1)  # for good, even if it is undone
        self._leases = {**self._leases, lease: Lease(ttl_ms, self._time_ms + ttl_ms, own)}
        return lease

    # -- what the command at hand sees ---------------------------------------------------------------------

    @property
    def _revision_now(self) -> int:
        return self.revision + bool(self._pending)

    def _held(self, key: bytes) -> Held:
        return self._pending.get(key) or self._now.get(key, NOTHING)

    def _range(self, start: bytes, end: bytes | None) -> list[tuple[bytes, Held]]:
        keys = sorted(key for key in {**self._now, **self._pending} if key >= start)
        seen = [(key, self._held(key)) for key in keys if end is None or key < end]
        return [(key, held) for key, held in seen if held.value is not None]

    def _rejected(self, reason: Reason) -> Rejected:
        return Rejected(reason, "", self.revision)

    def _undone(self, reason: Reason) -> _Undone:
        return _Undone(self._rejected(reason))

    def _check(self, key: bytes, condition: Sequence[Any] | None) -> None:
        modified = self._held(key).modified
        if condition is not None and not _allows(condition[0], condition[1], modified):
            raise _Undone(Refused(self._now.get(key, NOTHING).modified, self.revision))

    def _compare(
        self, key: bytes, end: bytes | None, target: int, relation: int, operand: bytes | int
    ) -> bool:
        found = [self._held(key)] if end is None else [held for _, held in self._range(key, end or None)]
        seen = [held for held in found if held.value is not None] or [NOTHING]
        return all(_stands(_seen_as(held, target), relation, operand) for held in seen)


def _item(held: Held) -> Item:
    assert held.value is not None
    return Item(held.value, held.created, held.modified, held.version, None, held.lease)


def _seen_as(held: Held, target: int) -> Any:
    return {
        Target.VALUE: held.value,
        Target.VERSION: held.version,
        Target.CREATE_REVISION: held.created,
        Target.MOD_REVISION: held.modified,
        Target.LEASE: held.lease,
        Target.EXISTS: int(held.value is not None),
    }[Target(target)]


def _stands(found: Any, relation: int, operand: Any) -> bool:
    if found is None:
        return False
    return bool(
        {
            Relation.EQUAL: found == operand,
            Relation.NOT_EQUAL: found != operand,
            Relation.LESS: found < operand,
            Relation.GREATER: found > operand,
        }[Relation(relation)]
    )


def _allows(kind: int, revisions: Sequence[int], modified: int) -> bool:
    return {
        ConditionKind.EXISTS: modified != 0,
        ConditionKind.ABSENT: modified == 0,
        ConditionKind.REVISION_IN: modified in revisions,
        ConditionKind.REVISION_NOT_IN: modified not in revisions,
    }[ConditionKind(kind)]
