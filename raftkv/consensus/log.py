"""The replicated log as one node holds it in memory.

Invariants, which every method keeps:

1. Indexes are consecutive: the entry at position i has index ``boundary.index + 1 + i``.
2. Terms never decrease along the log, and the first entry's is not below ``boundary.term``.
3. Nothing at or below the boundary changes; nothing that was committed is ever cut (the caller passes
``committed``).

It knows nothing of disks (what is durable is the write queue's business) nor of who replicates it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.types import NO_SNAPSHOT, Entry, Index, SnapshotMeta, Term


class Log:
    """Entries after a boundary: the start of time, or the position that a shortened log begins after."""

    __slots__ = ("_entries", "boundary")

    def __init__(self, entries: Iterable[Entry] = (), boundary: SnapshotMeta = NO_SNAPSHOT) -> None:
        self.boundary = boundary
        self._entries: list[Entry] = []
        for entry in entries:
            self.append(entry)

    @property
    def last_index(self) -> Index:
        return Index(self.boundary.index + len(self._entries))

    @property
    def last_term(self) -> Term:
        return self._entries[-1].term if self._entries else self.boundary.term

    @property
    def last_time_ms(self) -> int:
        return self._entries[-1].time_ms if self._entries else self.boundary.time_ms

    def term_at(self, index: Index) -> Term | None:
        """The term of the entry at ``index``; None where this log has no entry and no boundary."""
        if index == self.boundary.index:
            return self.boundary.term
        position = index - self.boundary.index - 1
        return self._entries[position].term if 0 <= position < len(self._entries) else None

    def meta_at(self, index: Index) -> SnapshotMeta:
        """Where a snapshot ends that covers all up to the entry at ``index``, which is here."""
        if index == self.boundary.index:
            return self.boundary
        entry = self._entries[index - self.boundary.index - 1]
        return SnapshotMeta(entry.index, entry.term, entry.time_ms)

    def tail_within(self, max_bytes: int) -> Index:
        """Where the log may begin after so that at most the last ``max_bytes`` of entry data stay."""
        kept, size = len(self._entries), 0
        while kept and (size := size + len(self._entries[kept - 1].data)) <= max_bytes:
            kept -= 1
        return Index(self.boundary.index + kept)

    def matches(self, index: Index, term: Term) -> bool:
        """Whether this log agrees with one that has ``term`` at ``index``, so on all before (section 5.3)."""
        return self.term_at(index) == term

    def slice(self, start: Index, max_bytes: int, stop: Index | None = None) -> tuple[Entry, ...]:
        """Entries from ``start`` to ``stop`` (inclusive; default the last) whose data fits ``max_bytes``.

        The first is returned even if it is larger alone, so that whoever reads on always gets on.
        """
        position = start - self.boundary.index - 1
        if position < 0:
            raise InvariantBroken(
                f"entry {start} was asked for, but the log begins after {self.boundary.index}"
            )
        end = len(self._entries) if stop is None else min(stop - self.boundary.index, len(self._entries))
        taken, size = position, 0
        while taken < end:
            size += len(self._entries[taken].data)
            if size > max_bytes and taken > position:
                break
            taken += 1
        return tuple(self._entries[position:taken])

    def append(self, entry: Entry) -> None:
        """Add the next entry."""
        if entry.index != self.last_index + 1 or entry.term < self.last_term:
            raise InvariantBroken(
                f"entry {entry.index}@{entry.term} cannot follow {self.last_index}@{self.last_term}"
            )
        self._entries.append(entry)

    def splice(self, entries: Sequence[Entry], committed: Index) -> Sequence[Entry]:
        """Store a leader's entries, whose predecessor is known to match; return those that were new.

        A suffix is cut only at the first entry whose term really differs (section 5.3): a late or repeated
        message must not undo what a later one added. Cutting at or below ``committed`` would undo a decision:
        InvariantBroken.
        """
        for offset, entry in enumerate(entries):
            term = self.term_at(entry.index)
            if term == entry.term:
                continue
            if term is not None:
                if entry.index <= committed:
                    raise InvariantBroken(
                        f"a leader of term {entry.term} sent another entry for committed index {entry.index}"
                    )
                del self._entries[entry.index - self.boundary.index - 1 :]
            new = entries[offset:]
            for each in new:
                self.append(each)
            return new
        return ()

    def compact(self, index: Index) -> None:
        """Forget all up to ``index``, an entry that is here."""
        boundary = self.meta_at(index)
        del self._entries[: index - self.boundary.index]
        self.boundary = boundary

    def reset(self, boundary: SnapshotMeta) -> None:
        """Begin anew after a snapshot whose last entry this log doesn't have."""
        self.boundary = boundary
        self._entries = []

    def last_at_or_below(self, index: Index, term: Term) -> Index:
        """The highest position not above ``index`` whose term is not above ``term``; at least the boundary.

        Both sides of a refused AppendEntries use it to skip whole terms (end of section 5.3): nothing above
        it can match.
        """
        upto = max(0, min(index, self.last_index) - self.boundary.index)
        position = bisect_right(self._entries, term, 0, upto, key=lambda entry: entry.term)
        return Index(self.boundary.index + position)

    def is_up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Whether a log that ends so is at least as up to date as this one (section 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)
