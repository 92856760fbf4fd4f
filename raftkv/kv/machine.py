"""The replicated state machine: a function of the log alone, pure and total.

``StateMachine`` is what a replica asks of any machine; ``KvMachine`` is ours. ``apply`` never raises for what
an entry holds: whatever is in a committed entry gives the same result on every node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from raftkv.kv.commands import Opcode
from raftkv.kv.history import History
from raftkv.kv.levels import MACHINE_LEVEL, OLDEST_LEVEL
from raftkv.kv.ordered import Bucket
from raftkv.kv.results import (
    BatchResult,
    CompactResult,
    DeleteResult,
    Done,
    LeaseResult,
    Malformed,
    PutResult,
    Reason,
    Refused,
    Rejected,
    Result,
    RevokeResult,
    pack_result,
    unpack_result,
)
from raftkv.kv.session import BatchId, decode_batch, encode_batch
from raftkv.kv.snapshot import Export, Restore
from raftkv.kv.state import State
from raftkv.kv.store import Put
from raftkv.kv.token import Outcome
from raftkv.kv.txn import ReadRoom, Txn, Undone, check_condition, has_bool

_PUT = int(Opcode.PUT)
_NOT_IN_BATCH = tuple(map(int, (Opcode.BATCH, Opcode.ONCE, Opcode.LEVEL)))
_tuple = tuple.__new__
_FREED_BUCKETS = 4  # with each batch; about half a millisecond


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch: its name, and a result for each command; None if it was seen before."""

    batch: BatchId
    results: Sequence[Any] | None


class Exporting(Iterator[bytes], Protocol):
    """A machine's chunks. Empty ones say that there is more to do; they may be left out."""

    def close(self) -> None:
        """No more chunks are wanted. May be called again, and after the last one."""
        ...


class Restoring(Protocol):
    """A machine's state while it is read back. Both methods raise ValueError for chunks that no export gave,
    and nothing else.
    """

    def feed(self, chunk: bytes) -> None:
        """The next chunk, as it was cut."""
        ...

    def finish(self) -> StateMachine:
        """From now on the machine that was asked for this has the state that was fed; it is returned."""
        ...


class StateMachine(Protocol):
    """What a replica replicates. Deterministic: equal logs give equal machines.

    All of it runs in the turns of a node, so no call may take long. A machine that is small enough can do
    with ``return (chunk for chunk in [self._encode()])`` for ``export``, which copies it at once, and decode
    that one chunk in ``finish``.
    """

    def seal(self, batch: BatchId, commands: Sequence[bytes]) -> bytes:
        """Encode a batch of this machine's commands for the log."""
        ...

    def apply(self, time_ms: int, data: bytes) -> Applied | None:
        """Apply a sealed batch. ``time_ms`` is the entry's cluster time. None: it is not a batch."""
        ...

    def export(self) -> Exporting:
        """The machine as it is now, in chunks of some 64 KiB; ``apply`` may run between any two of them.
        Equal machines give equal chunks. Raises RuntimeError while too many others are under way.
        """
        ...

    def restorer(self) -> Restoring:
        """Takes the chunks of an ``export`` by a machine of this kind. This machine stays as it is, and may
        be used, until it is finished.
        """
        ...


class KvMachine(State):
    """The key-value store behind sessions.

    It begins at level 1, with puts and deletes alone, and without a past. From the LEVEL command on it is a
    machine of level 2: no node that doesn't understand the rest has to apply it, or to restore it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._former: list[Bucket] = []  # of the store it had before it was restored: freed bit by bit

    def seal(self, batch: BatchId, commands: Sequence[bytes]) -> bytes:
        return encode_batch(batch, commands)

    def apply(self, time_ms: int, data: bytes) -> Applied | None:
        try:
            batch, commands = decode_batch(data)
        except ValueError:
            return None
        if self._former:
            del self._former[-_FREED_BUCKETS:]
        if self.level != OLDEST_LEVEL:
            self._pass_time(time_ms)
        if not self.sessions.admit(batch):
            return Applied(batch, None)
        return Applied(batch, self._execute_all(commands))

    def incarnation(self, node: str) -> int:
        """The latest run of ``node`` that a batch was applied from; 0: none ever was."""
        return self.sessions.incarnation(node)

    @property
    def due_ms(self) -> float:
        """When, in cluster time, a lease ends, and somebody should say that it is as late; or earlier."""
        return self.leases.due_ms

    @property
    def checksum(self) -> int | None:
        """Over all that has changed: equal at equal revisions wherever the machines are. None: at level 1."""
        return None if self.store.history is None else self.store.history.checksum

    # -- snapshots -----------------------------------------------------------------------------------------

    def export(self) -> Export:
        return Export(self)

    def restorer(self) -> Restore[KvMachine]:
        return Restore(self._become)

    def _become(self, other: State) -> KvMachine:
        self._former = self.store.become(other.store).pieces()
        self.leases, self.tokens, self.sessions = other.leases, other.tokens, other.sessions
        self.level, self.time_ms = other.level, other.time_ms
        return self

    # -- commands ------------------------------------------------------------------------------------------

    def _pass_time(self, time_ms: int) -> None:
        """Leases that have ended go, each with all of its keys at one revision."""
        assert self.store.history is not None
        self.time_ms = self.store.history.time_ms = time_ms
        if self.leases.due_ms <= time_ms:
            for lease in self.leases.take_due(time_ms):
                self._remove_keys(lease)

    def _remove_keys(self, lease: int) -> int:
        keys = self.store.leased(lease)
        if keys:
            self.store.take(dict.fromkeys(keys))
            self.store.keyless.clear()
        return len(keys)

    def _execute_all(self, commands: list[Any], room: ReadRoom | None = None) -> list[Result]:
        """``commands`` in order. ``room``: of the batch that they stand in."""
        # NB: the bytes come from our own handlers, but an entry is forever: check before anything changes.
        # Plain comparisons, for this runs for every operation on every node (match over the enum took twice
        # as long), and puts that follow on each other are done together.
        results: list[Result] = []
        puts: list[Put] = []
        for command in commands:
            if type(command) is list and len(command) == 5:
                opcode, key, value, content_type, condition = command
                if (
                    opcode == _PUT
                    and type(opcode) is int  # NB: True == 1 == 1.0, but neither is an opcode
                    and type(key) is bytes
                    and type(value) is bytes
                    and (content_type is None or type(content_type) is str)
                    and condition is None
                ):
                    puts.append((key, value, content_type))
                    continue
            if puts:
                results += self._put_all(puts)
                puts = []
            results.append(self._execute(command, room))
        if puts:
            results += self._put_all(puts)
        return results

    def _put_all(self, puts: list[Put]) -> list[PutResult]:
        store = self.store
        first = store.revision + 1
        versions = store.put_all(puts)
        if store.keyless:
            self._forget_own()
        # NB: by a call of the class, they would take twice the time.
        return [_tuple(PutResult, (revision, version, 0)) for revision, version in enumerate(versions, first)]

    def _execute(self, command: Any, room: ReadRoom | None = None) -> Result:
        objection = _objection(command, in_batch=room is not None)
        if objection:
            return Malformed(objection)
        result = self._execute_plain(command)
        if result is None:
            result = self._execute_other(command, room or ReadRoom())
        if self.store.keyless:
            self._forget_own()
        return result

    def _execute_plain(self, command: list[Any]) -> Result | None:
        """A put or delete of the first level; None: it is another command."""
        match command:
            case [Opcode.PUT, bytes(key), bytes(value), None | str() as content_type, condition]:
                refused = None if condition is None else self._check(key, condition)
                if refused is not None:
                    return refused
                version = self.store.put(key, value, content_type)
                return PutResult(self.store.revision, version)
            case [Opcode.DELETE, bytes(key), condition]:
                refused = None if condition is None else self._check(key, condition)
                if refused is not None:
                    return refused
                deleted = self.store.delete(key)
                return DeleteResult(int(deleted), self.store.revision)
            case _:
                return None

    def _check(self, key: bytes, condition: Any) -> Refused | Malformed | None:
        return check_condition(condition, self.store.mod_revision(key), self.store.revision)

    def _forget_own(self) -> None:
        """Of the leases that have lost their last key, those that were made for it."""
        for lease in self.store.keyless:
            known = self.leases.get(lease)
            if known is not None and known.own and not self.store.leased(lease):
                self.leases.remove(lease)
        self.store.keyless.clear()

    def _execute_other(self, command: list[Any], room: ReadRoom) -> Result:
        if command[0] == Opcode.LEVEL:
            return self._raise_level(command)
        if self.level == OLDEST_LEVEL or has_bool(command):
            return Malformed("unknown command")
        match command:
            case [Opcode.BATCH, list(commands)]:
                room = ReadRoom()
                results = self._execute_all(commands, room)
                return BatchResult(tuple(results), self.store.revision)
            case [Opcode.ONCE, str(token), bytes(fingerprint), list(inner)] if inner[:1] != [Opcode.ONCE]:
                return self._execute_once(token, fingerprint, inner)
            case [Opcode.TICK]:
                return Done(self.store.revision)
            case [Opcode.COMPACT, int(revision)]:
                return self._compact(revision)
            case [Opcode.KEEP_ALIVE, int(lease)]:
                renewed = self.leases.keep_alive(lease, self.time_ms)
                if renewed is None:
                    return self._no_such_lease(lease)
                return LeaseResult(lease, renewed.ttl_ms, renewed.expires_ms)
            case [Opcode.REVOKE, int(lease)]:
                if not self.leases.remove(lease):
                    return self._no_such_lease(lease)
                return RevokeResult(self._remove_keys(lease), self.store.revision)
            case _:
                return self._execute_txn(command, room)

    def _raise_level(self, command: list[Any]) -> Result:
        match command:
            case [_, level] if type(level) is int and OLDEST_LEVEL < level <= MACHINE_LEVEL:
                if self.level < level:
                    self.level = level
                    self.store.history = History(self.store.revision)
                return Done(self.store.revision)
            case _:
                return Malformed("a level that this machine doesn't have")

    def _execute_once(self, token: str, fingerprint: bytes, command: list[Any]) -> Result:
        self.tokens.forget(self.time_ms)
        known = self.tokens.get(token)
        if known is None:
            result = self._execute(command)
            self.tokens.add(token, Outcome(self.time_ms, fingerprint, pack_result(result)))
            return result
        if known.fingerprint != fingerprint:
            detail = "this idempotency key was used for another request"
            return Rejected(Reason.TOKEN_REUSED, detail, self.store.revision)
        return cast(Result, unpack_result(known.result))

    def _execute_txn(self, command: list[Any], room: ReadRoom) -> Result:
        txn = Txn(self.store, self.leases, self.time_ms, room)
        try:
            match command:
                case [Opcode.GRANT, int(lease), int(ttl_ms)]:
                    granted = txn.grant(ttl_ms, lease=lease)
                    return LeaseResult(granted, ttl_ms, self.time_ms + ttl_ms)
                case _:
                    result = txn.execute(command)
        except Undone as undone:
            txn.abandon()
            return undone.result
        txn.commit()
        return result

    def _compact(self, revision: int) -> Result:
        history, now = self.store.history, self.store.revision
        assert history is not None
        if revision > now:
            return Rejected(Reason.FUTURE_REVISION, f"the store is at revision {now} only", now)
        history.compact(revision)
        return CompactResult(history.compacted, now)

    def _no_such_lease(self, lease: int) -> Rejected:
        detail = f"there is no lease {lease}; it may have ended"
        return Rejected(Reason.NO_SUCH_LEASE, detail, self.store.revision)


def _objection(command: Any, *, in_batch: bool) -> str:
    """Why ``command`` can't be one; "" where it may be."""
    if type(command) is not list or not command:
        return "unknown command"
    if in_batch and command[0] in _NOT_IN_BATCH:
        return "unknown command in a batch"
    return "" if type(command[0]) is int else "unknown command"
