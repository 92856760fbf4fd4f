"""What the replicated machine must have done, computed a second time from the committed log alone.

Written apart from ``raftkv.kv``, over a plain dict: results, revisions, exactly-once, and what any key held
at any revision. The first machine that applies an entry decides whether its batch was dropped as seen before;
the reference checks that nothing is applied twice, and that every other machine agrees.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from struct import unpack, unpack_from
from typing import Any

import msgpack

from raftkv.consensus.invariants import InvariantBroken
from raftkv.kv.commands import ConditionKind
from raftkv.kv.machine import Applied
from raftkv.kv.results import DeleteResult, PutResult, Refused, Result
from raftkv.kv.session import BatchId, decode_batch

Held = tuple[int, bytes | None, int, int]
"""(revision, the value from then on, None: deleted; the key's create_revision and version)"""


class Reference:
    def __init__(self) -> None:
        self.changes: list[tuple[bytes, bytes | None]] = []  # (key, value) by revision, from 1
        self._held: dict[bytes, list[Held]] = {}
        self._results: list[Sequence[Any] | None] = []  # by position among the log's batches
        self._batches: list[BatchId | None] = []  # by position; None: was dropped as seen before
        self._revisions: list[int] = [0]  # after so many batches
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
            self._batches.append(None if applied.results is None else applied.batch)
            self._revisions.append(self.revision)
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
        return held[position - 1][:2]

    def revision_after(self, batches: int) -> int:
        """The store's revision when the log's first ``batches`` are applied."""
        return self._revisions[batches]

    def check_image(self, who: str, batches: int, chunks: Iterable[bytes]) -> None:
        """``chunks``, as a machine exports them, must hold what the log's first ``batches`` lead to."""
        found = [msgpack.unpackb(chunk) for chunk in chunks if chunk]
        (_, revision, keys, nodes), rows = found[0], found[1:]
        pairs = [value for values in rows[nodes:] for value in values]
        sessions = {node: (number, low, _numbers(applied)) for node, number, low, applied in rows[:nodes]}
        store = {key: _columns(row) for key, row in zip(pairs[::2], pairs[1::2], strict=True)}
        expected = self._revisions[batches], self._sessions_after(batches), self._store_after(batches)
        if (revision, sessions, store) != expected or len(store) != keys:
            raise InvariantBroken(
                f"{who} is another machine than {batches} batches lead to: revision {revision}, sessions "
                f"{sessions}, keys {sorted(store)}; expected {expected[0]}, {expected[1]}, "
                f"{sorted(expected[2])}"
            )

    def _sessions_after(self, batches: int) -> dict[str, tuple[int, int, list[int]]]:
        """node -> (incarnation, low, numbers applied from there on)"""
        of_node: dict[str, list[BatchId]] = {}
        for batch in self._batches[:batches]:
            if batch is not None:
                of_node.setdefault(batch.node, []).append(batch)
        sessions = {}
        for node, all_of_it in of_node.items():
            last = max(batch.incarnation for batch in all_of_it)
            ours = [batch for batch in all_of_it if batch.incarnation == last]
            low = max(1, *(batch.low for batch in ours))
            sessions[node] = last, low, sorted(batch.seq for batch in ours if batch.seq >= low)
        return sessions

    def _store_after(self, batches: int) -> dict[bytes, Held]:
        """key -> its mod_revision, value, create_revision and version"""
        revision = self._revisions[batches]
        store = {}
        for key, held in self._held.items():
            position = bisect_right(held, revision, key=lambda each: each[0])
            if position and held[position - 1][1] is not None:
                store[key] = held[position - 1]
        return store

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
        held = self._held.get(key)
        modified, current, created, version = held[-1] if held else (0, None, 0, 0)
        if current is None:
            modified = created = version = 0
        if condition is not None and not _holds(condition[0], condition[1], modified):
            return Refused(modified, self.revision)
        if opcode == 2:
            if modified:
                self._change(key, None, 0, 0)
            return DeleteResult(int(modified != 0), self.revision)
        value = rest[0]
        if value in self._values:
            raise InvariantBroken(f"exactly once: {value[:20]!r} is written twice")
        self._values.add(value)
        self._change(key, value, created or self.revision + 1, version + 1)
        return PutResult(self.revision, version + 1)

    def _change(self, key: bytes, value: bytes | None, created: int, version: int) -> None:
        self.changes.append((key, value))
        self._held.setdefault(key, []).append((self.revision, value, created, version))


def _numbers(packed: bytes) -> list[int]:
    return list(unpack(f"<{len(packed) // 8}Q", packed))


def _columns(row: bytes) -> Held:
    """Of a row without a content type."""
    created, modified, version, _ = unpack_from("<QQQI", row)
    return modified, row[28:], created, version


def _holds(kind: int, revisions: Sequence[int], modified: int) -> bool:
    return {
        ConditionKind.EXISTS: modified != 0,
        ConditionKind.ABSENT: modified == 0,
        ConditionKind.REVISION_IN: modified in revisions,
        ConditionKind.REVISION_NOT_IN: modified not in revisions,
    }[ConditionKind(kind)]
