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
        match command:
            case [Opcode.PUT, bytes(key), bytes(value), str() | None as content_type, condition]:
                refused = self._check(key, condition)
                if refused is not None:
                    return refused
                item = self.store.put(key, value, content_type)
                return PutResult(item.mod_revision, item.version)
            case [Opcode.DELETE, bytes(key), condition]:
                refused = self._check(key, condition)
                if refused is not None:
                    return refused
                deleted = self.store.delete(key)
                return DeleteResult(int(deleted), self.store.revision)
            case _:
                return Malformed("unknown command")

    def _check(self, key: bytes, condition: Any) -> Refused | Malformed | None:
        """None if ``condition`` holds of ``key``."""
        if condition is None:
            return None
        current = self.store.mod_revision(key)
        match condition:
            case [ConditionKind.EXISTS, _]:
                holds = current != 0
            case [ConditionKind.ABSENT, _]:
                holds = current == 0
            case [ConditionKind.REVISION_IN, list(revisions)]:
                holds = current in revisions
            case [ConditionKind.REVISION_NOT_IN, list(revisions)]:
                holds = current not in revisions
            case _:
                return Malformed("unknown condition")
        return None if holds else Refused(current, self.store.revision)
