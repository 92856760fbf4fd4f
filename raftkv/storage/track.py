"""Where a group's log stands, without its entries: what ``Wal`` must know to write what recovery accepts.

Rules: the same as ``recovery.GroupReplay``'s, which has the entries. Every new segment writes down where this
one says that each log stands (POSITION), and the next start compares that with what it read: should the two
ever differ, it is refused, not guessed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import chain

from raftkv.consensus.types import Entry, Index, SnapshotMeta, Term


class Track:
    """One group's log: its end, and which term each entry is of."""

    __slots__ = ("_floor", "_runs", "_tail")

    def __init__(
        self, boundary: SnapshotMeta, entries: Iterable[Entry] = (), floor: Index = Index(0)
    ) -> None:
        """``floor``: nothing at or below it is written any more."""
        self._floor = floor
        self._tail: Entry | SnapshotMeta = boundary
        self._runs: list[tuple[Index, Term]] = []  # (first index, term), by index, of consecutive entries
        term: Term | None = None
        begin: tuple[Entry | SnapshotMeta, ...] = (boundary,)
        for each in chain(begin, entries):
            if each.term != term:
                term = each.term
                self._runs.append((each.index, term))
            self._tail = each

    @property
    def last(self) -> SnapshotMeta:
        """The position of the last entry; the boundary's where there is none."""
        tail = self._tail
        return SnapshotMeta(tail.index, tail.term, tail.time_ms)

    def term_at(self, index: Index) -> Term | None:
        """The term of the entry at ``index``, or of the boundary; None where there is neither."""
        run = self._run_of(index)
        return self._runs[run][1] if run >= 0 and index <= self._tail.index else None

    def put(self, entry: Entry) -> bool:
        """Append ``entry``, or replace from its index on; False where it would leave a gap, or is final."""
        if not self._floor < entry.index <= self._tail.index + 1:
            return False
        while self._runs and self._runs[-1][0] >= entry.index:
            self._runs.pop()
        if not self._runs or self._runs[-1][1] != entry.term:
            self._runs.append((entry.index, entry.term))
        self._tail = entry
        return True

    def begin_after(self, boundary: SnapshotMeta) -> bool:
        """Forget up to ``boundary``, and all after it too unless that entry was there; False where what is
        final would go.
        """
        was_there = self.term_at(boundary.index) == boundary.term
        if boundary.index < max(1, self._floor) or (boundary.index == self._floor and not was_there):
            return False
        if was_there:
            self._forget_before(boundary.index)
        else:
            self._runs = [(boundary.index, boundary.term)]
        if not was_there or boundary.index == self._tail.index:
            self._tail = boundary
        self._floor = boundary.index
        return True

    def settle(self, index: Index) -> None:
        """What is at or below ``index`` is final: a snapshot covers it."""
        self._floor = max(self._floor, min(index, self._tail.index))
        self._forget_before(self._floor)

    def _run_of(self, index: Index) -> int:
        return bisect_right(self._runs, index, key=_first_index) - 1

    def _forget_before(self, index: Index) -> None:
        run = self._run_of(index)
        if run >= 0:
            self._runs[: run + 1] = [(index, self._runs[run][1])]


def _first_index(run: tuple[Index, Term]) -> Index:
    return run[0]
