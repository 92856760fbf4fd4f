"""The replicated state machine: a function of the log alone, pure and total.

``StateMachine`` is what a replica asks of any machine; ``KvMachine`` is ours. ``apply`` never raises for what
an entry holds: whatever is in a committed entry gives the same result on every node.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from raftkv.kv.session import BatchId, Sessions, decode_batch, encode_batch
from raftkv.kv.store import Store

_PUT, _DELETE = int(Opcode.PUT), int(Opcode.DELETE)


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch: its name, and a result for each command; None if it was seen before."""

    batch: BatchId
    results: Sequence[Any] | None


class StateMachine(Protocol):
    """What a replica replicates. Deterministic: equal logs give equal machines."""

    def seal(self, batch: BatchId, commands: Sequence[bytes]) -> bytes:
        """Encode a batch of this machine's commands for the log."""
        ...

    def apply(self, time_ms: int, data: bytes) -> Applied | None:
        """Apply a sealed batch. ``time_ms`` is the entry's cluster time. None: it is not a batch."""
        ...


class KvMachine:
    """The key-value store behind sessions."""

    def __init__(self) -> None:
        self.store = Store()
        self._sessions = Sessions()

    def seal(self, batch: BatchId, commands: Sequence[bytes]) -> bytes:
        return encode_batch(batch, commands)

    def apply(self, time_ms: int, data: bytes) -> Applied | None:
        try:
            batch, commands = decode_batch(data)
        except ValueError:
            return None
        if not self._sessions.admit(batch):
            return Applied(batch, None)
        return Applied(batch, [self._execute(command) for command in commands])

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
