"""What the replicated machine must have done, computed a second time from the committed log alone.

Written apart from ``raftkv.kv``, over a plain dict: results, revisions, exactly-once, and what any key held
at any revision. The first machine that applies an entry decides whether its batch was dropped as seen before;
the reference checks that nothing is applied twice, and that every other machine agrees.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from raftkv.consensus.invariants import InvariantBroken
from raftkv.kv.commands import ConditionKind, DeleteResult, PutResult, Refused, Result
from raftkv.kv.machine import Applied
from raftkv.kv.session import BatchId, decode_batch

Held = tuple[int, bytes | None]
"""(revision, the value from then on; None: deleted)"""


class Reference:
    def __init__(self) -> None:
        self.changes: list[tuple[bytes, bytes | None]] = []  # (key, value) by revision, from 1
        self._held: dict[bytes, list[Held]] = {}
        self._current: dict[bytes, tuple[int, int]] = {}  # key -> (mod_revision, version)
        self._results: list[Sequence[Any] | None] = []  # by position among the log's batches
        self._seen: set[BatchId] = set()
        self._values: set[bytes] = set()

    @property
    def revision(self) -> int:
        return len(self.changes)

    def wrote(self, value: bytes) -> bool:
        """Whether ``value`` was ever put. Values are unique."""
        return value in self._values

    def applied(self, position: int, data: bytes, applied: Applied | None) -> None:
        """A machine has applied the log's batch number ``position`` (from 0): is it what must be?"""
        if applied is None:
            raise InvariantBroken(f"batch {position} is no batch")
        if position == len(self._results):
            self._results.append(self._replay(data, applied))
        expected, results = self._results[position], applied.results
        if results is not None:
            results = list(results)
        if results != expected:
            raise InvariantBroken(f"batch {position} gave {results}, and elsewhere {expected}")

    def at(self, key: bytes, revision: int) -> tuple[int, bytes | None]:
        """(mod_revision, value) of ``key`` when the store was at ``revision``; (0, None) where absent."""
        held = self._held.get(key, [])
        position = bisect_right(held, revision, key=lambda each: each[0])
        if position == 0 or held[position - 1][1] is None:
            return 0, None
        return held[position - 1]

    def _replay(self, data: bytes, applied: Applied) -> list[Result] | None:
        batch, commands = decode_batch(data)
        if applied.results is None:
            return None
        name = BatchId(batch.node, batch.incarnation, batch.seq, 0)
        if name in self._seen:
            raise InvariantBroken(f"sessions: {name} is applied twice")
        self._seen.add(name)
        return [self._execute(command) for command in commands]

    def _execute(self, command: list[Any]) -> Result:
        opcode, key, *rest = command
        condition = rest[-1]
        modified, version = self._current.get(key, (0, 0))
        if condition is not None and not _holds(condition[0], condition[1], modified):
            return Refused(modified, self.revision)
        if opcode == 2:
            if modified:
                del self._current[key]
                self._change(key, None)
            return DeleteResult(int(modified != 0), self.revision)
        value = rest[0]
        if value in self._values:
            raise InvariantBroken(f"exactly once: {value[:20]!r} is written twice")
        self._values.add(value)
        self._change(key, value)
        self._current[key] = self.revision, version + 1
        return PutResult(self.revision, version + 1)

    def _change(self, key: bytes, value: bytes | None) -> None:
        self.changes.append((key, value))
        self._held.setdefault(key, []).append((self.revision, value))


def _holds(kind: int, revisions: Sequence[int], modified: int) -> bool:
    return {
        ConditionKind.EXISTS: modified != 0,
        ConditionKind.ABSENT: modified == 0,
        ConditionKind.REVISION_IN: modified in revisions,
        ConditionKind.REVISION_NOT_IN: modified not in revisions,
    }[ConditionKind(kind)]
