"""``ports.Storage`` over a real ``Wal`` in virtual time: what ``storage/disk.py`` does with a thread.

What waits when the disk is free becomes one batch; its bytes are written at once, its sync takes a while, and
only then are its promises kept. ``Durable`` is what the disk is known to hold, from above: the checks measure
the node's promises by it, and what the WAL recovers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from raftkv.consensus.types import Entry, HardState, Term, Write
from raftkv.sim.world import Call, World
from raftkv.storage.wal import Wal

THREAD_MS = 0.02  # for one thread to wake the other


@dataclass(slots=True)
class Durable:
    """What one node has on its disk, confirmed by a sync. Outlives its processes."""

    hard_state: HardState = HardState(Term(0), None)
    entries: list[Entry] = field(default_factory=list)  # from index 1
    incarnation: int = 0
    unconfirmed: list[Write] = field(default_factory=list)  # of the batch that was being written

    def confirm(self, writes: list[Write]) -> bool:
        """``writes`` are durable. Returns whether a suffix of entries was replaced by them."""
        was_cut = False
        for write in writes:
            self.hard_state = write.hard_state or self.hard_state
            if write.entries:
                keep = write.entries[0].index - 1
                was_cut = was_cut or keep < len(self.entries)
                self.entries[keep:] = write.entries
        return was_cut

    def with_unconfirmed(self) -> tuple[HardState, list[Entry]]:
        """What there is if the batch that was being written got through whole."""
        other = Durable(self.hard_state, list(self.entries))
        other.confirm(self.unconfirmed)
        return other.hard_state, other.entries


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
        self._queue: list[tuple[Write, Call]] = []
        self._busy = False
        self._path = wal.path

    def write(self, write: Write, then: Call) -> None:
        """See ``ports.Storage``."""
        self._queue.append((write, then))
        if not self._busy:
            self._busy = True
            self._run(THREAD_MS, self._begin)

    def _begin(self) -> None:
        group, self._queue = self._queue, []
        self._durable.unconfirmed = [write for write, _ in group]
        self._wal.append(self._durable.unconfirmed)
        if self._wal.path != self._path:
            self._path = self._wal.path
            self._world.probes["segment begun"] += 1
        self._run(self._sync_ms(), lambda: self._finish([then for _, then in group]))

    def _finish(self, thens: list[Call]) -> None:
        self._wal.sync()
        writes, self._durable.unconfirmed = self._durable.unconfirmed, []
        self._on_confirmed(self._durable.confirm(writes))
        self._run(THREAD_MS, lambda: _all(thens))
        self._busy = bool(self._queue)
        if self._busy:
            self._begin()


def _all(thens: list[Call]) -> None:
    for then in thens:
        then()
