"""A server's disk in the tests of the core: what is durable, and the writes under way to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from raftkv.consensus import Envelope
from raftkv.consensus.types import (
    NO_SNAPSHOT,
    Entry,
    EntryKind,
    HardState,
    Index,
    Mark,
    SnapshotMeta,
    Term,
    Write,
)


def entry(index: int, term: int, data: bytes = b"") -> Entry:
    return Entry(Index(index), Term(term), EntryKind.BATCH, 0, data)


def entries(*terms: int, first: int = 1) -> list[Entry]:
    """A log whose entries have these terms, as the paper draws them."""
    return [entry(first + i, term) for i, term in enumerate(terms)]


@dataclass
class Disk:
    """What one server has durably, and the writes under way to it, oldest first.

    A snapshot is the list of the entries that it covers, and so is the log: it always begins at 1 here, with
    those of the snapshot where it was begun after one.
    """

    hard_state: HardState = HardState(Term(0), None)
    log: list[Entry] = field(default_factory=list)
    snapshot: list[Entry] = field(default_factory=list)  # the newest
    slow: bool = False
    queue: deque[tuple[Write | None, tuple[Envelope, ...], Mark]] = field(default_factory=deque)

    def complete(self) -> None:
        """Make the oldest write durable."""
        write, _, _ = self.queue.popleft()
        if write is not None:
            self.hard_state = write.hard_state or self.hard_state
            if write.boundary is not None:
                index = write.boundary.index
                assert len(self.snapshot) >= index, "a log that begins after a snapshot that isn't durable"
                self.log[:] = self.snapshot[:index]
            if write.entries:
                first = write.entries[0].index
                assert first <= len(self.log) + 1, f"a write from {first} leaves a gap after {len(self.log)}"
                self.log[first - 1 :] = write.entries
                assert [each.index for each in self.log[first - 1 :]] == list(range(first, len(self.log) + 1))

    @property
    def entries(self) -> list[Entry]:
        """What a start finds: the log, or the snapshot alone where the log doesn't have its end."""
        covered = len(self.snapshot)
        has_end = covered == 0 or (len(self.log) >= covered and self.log[covered - 1] == self.snapshot[-1])
        return self.log if has_end else self.snapshot

    @property
    def boundary(self) -> SnapshotMeta:
        return boundary_of(self.snapshot)


def boundary_of(covered: Sequence[Entry]) -> SnapshotMeta:
    """The meta of a snapshot of these entries."""
    return SnapshotMeta(covered[-1].index, covered[-1].term, covered[-1].time_ms) if covered else NO_SNAPSHOT
