"""``ports.Storage`` over a real ``Wal`` in virtual time: what ``storage/disk.py`` does with a thread.

What waits when the disk is free becomes one batch; its bytes are written at once, its sync takes a while, and
only then are its promises kept. ``Durable`` is what the disk is known to hold, from above: the checks measure
the node's promises by it, and what the WAL recovers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.types import Entry, HardState, Index, SnapshotMeta, Term, Write
from raftkv.sim.world import Call, World
from raftkv.storage.snapshot import snapshot_name
from raftkv.storage.wal import Wal

THREAD_MS = 0.02  # for one thread to wake the other


@dataclass(slots=True)
class Durable:
    """What one node has on its disk, confirmed by a sync. Outlives its processes."""

    committed: list[Entry]  # by anyone, from index 1; shared
    hard_state: HardState = HardState(Term(0), None)
    entries: list[Entry] = field(default_factory=list)  # from index 1; where a snapshot was installed, its
    incarnation: int = 0
    unconfirmed: list[Write] = field(default_factory=list)  # of the batch that was being written
    snapshots: set[str] = field(default_factory=set)  # names of files
    covered: Index = Index(0)  # by the newest of them
    floor: Index = Index(0)  # the last snapshot that was installed ends here: older ones don't join the log
    dropped: Index = Index(0)  # segments up to here may be gone
    has_installed: bool = False  # a snapshot of another node's

    def add_snapshot(self, meta: SnapshotMeta) -> None:
        """It has its name, durably."""
        self.snapshots.add(snapshot_name(meta))
        self.covered = max(self.covered, meta.index)

    def begin_after(self, boundary: SnapshotMeta) -> None:
        """The log is what a snapshot covers, and nothing after it unless it holds that entry."""
        if not self.holds(boundary):
            self.entries = self.committed[: boundary.index]
        self.floor = max(self.floor, boundary.index)
        self.has_installed = True

    def holds(self, position: SnapshotMeta) -> bool:
        index, term = position.index, position.term
        return len(self.entries) >= index and self.entries[index - 1].term == term

    def is_backed(self, write: Write) -> bool:
        """Whether the snapshot that ``write`` rests on, or a later one, is durable before it."""
        return write.boundary is None or write.boundary.index <= self.covered

    def kept(self, names: set[str]) -> None:
        """Of the snapshots these are left: the newest two at least."""
        gone = set(sorted(self.snapshots)[-2:]) - names
        if gone:
            raise InvariantBroken(f"durability: {sorted(gone)} removed, of the newest two")
        self.snapshots = names

    def needs_log_from(self) -> Index:
        """A start must be able to use either of the newest two snapshots, so the log behind the older one
        stays. One from before an installed one doesn't join the log, and isn't counted.
        """
        newest = [index_of(name) for name in sorted(self.snapshots)[-2:]]
        return min((index for index in newest if index >= self.floor), default=Index(0))

    def can_start(self, names: Sequence[str], damaged: Sequence[str]) -> bool:
        """Whether a start must succeed with the files ``names``, of which some are ``damaged``."""
        floor = max([self.floor, *(write.boundary.index for write in self.unconfirmed if write.boundary)])
        sound = [index_of(name) for name in names if name.endswith(".snap") and name not in damaged]
        log_is_sound = not any(name.endswith(".log") for name in damaged)
        log_is_whole = not (floor or self.dropped)
        return log_is_sound and (log_is_whole or any(index >= floor for index in sound))

    def start_interrupted(self, names: Sequence[str], damaged: Sequence[str]) -> None:
        """It may have made the log begin after the newest snapshot, and set aside those that are damaged."""
        self.snapshots.difference_update(damaged)
        snapshots = [index_of(name) for name in names if name.endswith(".snap")]
        self.floor = max([self.floor, *snapshots])

    def found(self, names: Sequence[str], damaged: Sequence[str], used: SnapshotMeta | None) -> None:
        """A start has used a snapshot: not an older one than was confirmed, unless that is damaged."""
        newest = max((index_of(name) for name in self.snapshots if name not in damaged), default=0)
        if newest > (used.index if used else 0):
            raise InvariantBroken(f"durability: a start uses snapshot {used}; one at {newest} was durable")
        self.snapshots = {name for name in names if name.endswith(".snap")}

    def confirm(self, writes: list[Write]) -> bool:
        """``writes`` are durable. Returns whether a suffix of entries was replaced by them."""
        was_cut = False
        for write in writes:
            self.hard_state = write.hard_state or self.hard_state
            if write.boundary is not None:
                self.begin_after(write.boundary)
            if write.entries:
                keep = write.entries[0].index - 1
                was_cut = was_cut or keep < len(self.entries)
                self.entries[keep:] = write.entries
        return was_cut

    def with_unconfirmed(self) -> Durable:
        """What there is if the batch that was being written got through whole."""
        other = Durable(self.committed, self.hard_state, list(self.entries), floor=self.floor)
        other.confirm(self.unconfirmed)
        return other

    def joined(self, snapshot: SnapshotMeta | None) -> tuple[HardState, list[Entry]]:
        """What a start makes of it that uses ``snapshot``."""
        state, entries = self.hard_state, self.entries
        if snapshot is not None:
            if state.current_term < snapshot.term:
                state = HardState(snapshot.term, None)
            if not self.holds(snapshot):
                entries = self.committed[: snapshot.index]
        return state, entries


def index_of(snapshot: str) -> Index:
    """By the name of its file."""
    return Index(int(snapshot.split("-")[1]))


class SimDisk:
    """One life of a node's disk. ``run`` runs a call in the node's process, if that still lives, after a
    delay; what the WAL raises there ends the node.
    """

    def __init__(
        self,
        world: World,
        wal: Wal,
        durable: Durable,
        *,
        run: Callable[[float, Call], None],
        sync_ms: Callable[[], float],
        on_confirmed: Callable[[bool], None],
    ) -> None:
        self._world = world
        self._wal = wal
        self._durable = durable
        self._run = run
        self._sync_ms = sync_ms
        self._on_confirmed = on_confirmed
        self._queue: deque[tuple[Write | Index, Call]] = deque()
        self._busy = False
        self._path = wal.path

    def write(self, write: Write, then: Call) -> None:
        """See ``ports.Storage``."""
        self._put(write, then)

    def drop_before(self, index: Index, then: Call) -> None:
        """See ``storage.disk.Disk``."""
        self._put(index, then)

    def _put(self, item: Write | Index, then: Call) -> None:
        self._queue.append((item, then))
        if not self._busy:
            self._busy = True
            self._run(THREAD_MS, self._begin)

    def _begin(self) -> None:
        """With all that waits, or up to a removal."""
        writes, thens, drop = self._take()
        if not all(map(self._durable.is_backed, writes)):
            raise InvariantBroken("durability: a log begins after a snapshot that isn't durable yet")
        self._durable.unconfirmed = writes
        self._wal.append(writes)
        if self._wal.path != self._path:
            self._path = self._wal.path
            self._world.probes["segment begun"] += 1
        self._run(self._sync_ms(), lambda: self._finish(thens, drop))

    def _take(self) -> tuple[list[Write], list[Call], Index | None]:
        writes: list[Write] = []
        thens: list[Call] = []
        while self._queue:
            item, then = self._queue.popleft()
            thens.append(then)
            if not isinstance(item, Write):
                return writes, thens, item
            writes.append(item)
        return writes, thens, None

    def _finish(self, thens: list[Call], drop: Index | None) -> None:
        self._wal.sync()
        writes, self._durable.unconfirmed = self._durable.unconfirmed, []
        self._on_confirmed(self._durable.confirm(writes))
        if drop is not None:
            self._drop_before(drop)
        self._run(THREAD_MS, lambda: _all(thens))
        self._busy = bool(self._queue)
        if self._busy:
            self._begin()

    def _drop_before(self, index: Index) -> None:
        if index > self._durable.needs_log_from():
            raise InvariantBroken(
                f"durability: the log goes up to {index}; a start from a snapshot that is kept needs what "
                f"follows {self._durable.needs_log_from()}"
            )
        self._durable.dropped = max(self._durable.dropped, index)
        if self._wal.drop_before(index):
            self._world.probes["segment dropped"] += 1


def _all(thens: list[Call]) -> None:
    for then in thens:
        then()
