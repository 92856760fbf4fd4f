"""The replicated state machine: a function of the log alone, pure and total.

``StateMachine`` is what a replica asks of any machine; ``KvMachine`` is ours. ``apply`` never raises for what
an entry holds: whatever is in a committed entry gives the same result on every node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raftkv.kv.commands import (
    ConditionKind,
    DeleteResult,
    Malformed,
    Opcode,
    PutResult,
    Refused,
    Result,
)
from raftkv.kv.ordered import Bucket, OrderedRows
from raftkv.kv.session import BatchId, Sessions, decode_batch, encode_batch
from raftkv.kv.snapshot import Export, Restore
from raftkv.kv.store import Store

_PUT, _DELETE = int(Opcode.PUT), int(Opcode.DELETE)
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


class KvMachine:
    """The key-value store behind sessions."""

    def __init__(self) -> None:
        self.store = Store()
        self._sessions = Sessions()
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
        if not self._sessions.admit(batch):
            return Applied(batch, None)
        return Applied(batch, [self._execute(command) for command in commands])

    def incarnation(self, node: str) -> int:
        """The latest run of ``node`` that a batch was applied from; 0: none ever was."""
        return self._sessions.incarnation(node)

    def export(self) -> Export:
        return Export(self.store, self._sessions)

    def restorer(self) -> Restore[KvMachine]:
        return Restore(self._become)

    def _become(self, revision: int, rows: OrderedRows, sessions: Sessions) -> KvMachine:
        self._former = self.store.become(revision, rows).pieces()
        self._sessions = sessions
        return self

    def _execute(self, command: Any) -> Result:
        # NB: the bytes come from our own handlers, but an entry is forever: check before anything changes.
        # Plain comparisons, for this runs for every operation on every node (match over the enum took twice
        # as long).
        if type(command) is not list or len(command) < 3 or type(command[1]) is not bytes:
            return Malformed("unknown command")
        opcode, key = command[0], command[1]
        if type(opcode) is not int:  # True == 1 == 1.0, but neither is an opcode
            return Malformed("unknown command")
        if opcode == _PUT and len(command) == 5:
            _, _, value, content_type, condition = command
            if type(value) is bytes and (content_type is None or type(content_type) is str):
                refused = None if condition is None else self._check(key, condition)
                if refused is not None:
                    return refused
                version = self.store.put(key, value, content_type)
                return PutResult(self.store.revision, version)
        elif opcode == _DELETE and len(command) == 3:
            condition = command[2]
            refused = None if condition is None else self._check(key, condition)
            if refused is not None:
                return refused
            deleted = self.store.delete(key)
            return DeleteResult(int(deleted), self.store.revision)
        return Malformed("unknown command")

    def _check(self, key: bytes, condition: Any) -> Refused | Malformed | None:
        """None if ``condition`` holds of ``key``."""
        match condition:
            case [kind, list(revisions)] if all(type(number) is int for number in (kind, *revisions)):
                current = self.store.mod_revision(key)
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
        return None if holds else Refused(current, self.store.revision)
