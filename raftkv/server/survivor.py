"""What one node that is left holds, where the majority is lost for good: read as it is, without changing it.

All of its log is applied, also what it never heard to be committed: some of that may have been acknowledged,
and nobody is left to say which. What other nodes acknowledged after its last entry isn't here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raftkv.consensus.types import NO_SNAPSHOT, Entry, EntryKind, SnapshotMeta, Term
from raftkv.errors import StartError
from raftkv.kv.machine import KvMachine
from raftkv.server.start import restore_machine
from raftkv.storage.charter import CHARTER_NAME, read_charter
from raftkv.storage.files import Files
from raftkv.storage.recovery import GroupReplay, recover
from raftkv.storage.segment import EXIT_DAMAGED, Owner
from raftkv.storage.snapshots import SnapshotFiles
from raftkv.storage.start import choose


@dataclass(frozen=True, slots=True)
class Survivor:
    owner: Owner
    machine: KvMachine  # with every entry applied
    last: SnapshotMeta  # the last entry
    current_term: Term  # of its hard state: where it is above ``last.term``, there were elections after it


def read_survivor(files: Files, directory: Path) -> Survivor:
    """The node whose data ``directory`` (locked by the caller) is. Changes nothing there.

    Raises ``StartError``: 65 for what is no data directory, or damaged; 73 or 74 where the disk fails.
    """
    charter = read_charter(files, directory)
    if charter is None:
        raise StartError(f"{directory}: no {CHARTER_NAME} here: no node has used it", EXIT_DAMAGED)
    recovery = recover(files, directory, charter.owner)
    snapshots = SnapshotFiles(files, directory, charter.owner)
    log = recovery.replay.peek()
    first = recovery.extents[0].path if recovery.extents else None
    choice = choose(snapshots, log, first)
    machine, applied = KvMachine(), NO_SNAPSHOT
    if choice.snapshot is not None:
        applied = choice.snapshot
        restore_machine(machine, snapshots, applied)
    for entry in _after(log, applied):
        applied = SnapshotMeta(entry.index, entry.term, entry.time_ms)
        if entry.kind is EntryKind.BATCH:
            machine.apply(entry.time_ms, entry.data)
    current_term = max(log.hard_state.current_term, applied.term)
    return Survivor(charter.owner, machine, applied, current_term)


def _after(log: GroupReplay, applied: SnapshotMeta) -> Sequence[Entry]:
    """As a start would find the log: one that doesn't hold the snapshot's last entry is empty after it."""
    if log.term_at(applied.index) != applied.term:
        return ()
    return log.entries[applied.index - log.boundary.index :]
