"""A node's durable state as a whole: the newest snapshot that is whole, and the log that joins it.

Rules:

- A snapshot joins the log if the log begins at or before the entry that it covers last. One that is damaged
  is passed over, and the older one used, or a log that begins at the start of time, if that joins; else the
  node refuses to start (65), naming the damaged file. What begins after the first entry with no snapshot
  before it is damaged, and so is a directory of snapshots whose log is gone: with it went the promises.
- A log that doesn't hold the snapshot's last entry is taken as empty after it. It ends before, for the
  machine may apply what is committed before this node's own disk has it; or it holds another entry there,
  which was never committed, nor was what follows it. Either way no promise of this node's is lost.
- A snapshot that was installed is durable before the log says so. So the log never begins after a snapshot
  that isn't there, wherever a crash comes between.
- Until all is known to be sound nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raftkv.consensus.types import GroupId, HardState, NodeId, SnapshotMeta, Write
from raftkv.storage.files import Files
from raftkv.storage.recovery import GroupReplay, recover
from raftkv.storage.segment import Owner, damaged
from raftkv.storage.snapshot import DamagedSnapshotError
from raftkv.storage.snapshots import SnapshotFiles
from raftkv.storage.wal import SEGMENT_BYTES, GroupState, Recovered, Wal

_GROUP = GroupId(0)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which snapshot a start uses."""

    snapshot: SnapshotMeta | None  # None: the log begins at the start of time
    damaged: tuple[DamagedSnapshotError, ...]  # newer ones, which can't be used and aren't needed


@dataclass(frozen=True, slots=True)
class Opened:
    """What a node starts from."""

    wal: Wal
    recovered: Recovered
    """Group 0's log joins ``snapshot``: its boundary is at or before it, and it holds that entry or has it
    for its boundary. Entries up to the snapshot are there for slow followers, and needn't be applied."""
    snapshots: SnapshotFiles
    snapshot: SnapshotMeta | None  # what the machine is restored from; None: it starts empty
    set_aside: tuple[str, ...]  # snapshots found damaged and not needed: where, and what is wrong


def open_storage(
    files: Files, directory: Path, cluster_id: str, node_id: NodeId, *, segment_bytes: int = SEGMENT_BYTES
) -> Opened:
    """Recover what ``directory`` (it must exist, and be locked by the caller) holds, and go on from it.

    When this returns, everything in it and the incarnation itself are durable. Raises ``StartError``: 65 for
    damage, 73 or 74 where the disk refuses, 78 for another node's directory.
    """
    owner = Owner(cluster_id, node_id)
    recovery = recover(files, directory, owner)
    snapshots = SnapshotFiles(files, directory, owner)
    log = recovery.replay.peek()
    first = recovery.extents[0].path if recovery.extents else None
    choice = choose(snapshots, log, first)
    wal, recovered = Wal.go_on(files, directory, owner, recovery, segment_bytes)
    if choice.snapshot is not None:
        recovered = _join(wal, recovered, log, choice.snapshot)
    for bad in choice.damaged:
        snapshots.set_aside(bad.path)
    snapshots.remove_temporary()
    set_aside = tuple(f"{bad.path}: byte {bad.offset}: {bad.what}" for bad in choice.damaged)
    return Opened(wal, recovered, snapshots, choice.snapshot, set_aside)


def choose(snapshots: SnapshotFiles, log: GroupReplay, first: Path | None) -> Choice:
    """The newest whole snapshot, if the log, whose first segment is ``first``, joins it. Reads only; raises
    ``StartError`` where there is none and one is needed.
    """
    paths = snapshots.paths()
    if paths and first is None:
        raise damaged(paths[0], 0, "this snapshot's log is missing, and the votes in it")
    bad: list[DamagedSnapshotError] = []
    for path in paths:
        try:
            meta = snapshots.check_path(path)
        except DamagedSnapshotError as error:
            bad.append(error)
            continue
        if _joins(log, meta):
            return Choice(meta, tuple(bad))
        raise _gap(bad, first, log, f"the snapshot before it ends at {meta.index}@{meta.term}")
    if log.boundary.index:
        raise _gap(bad, first, log, "there is no snapshot before it")
    return Choice(None, tuple(bad))


def _joins(log: GroupReplay, snapshot: SnapshotMeta) -> bool:
    if snapshot.index <= log.floor:  # one installed here before: only that very snapshot joins
        return log.term_at(snapshot.index) == snapshot.term
    return log.boundary.index <= snapshot.index


def _gap(bad: Sequence[DamagedSnapshotError], first: Path | None, log: GroupReplay, why: str) -> Exception:
    begins = f"the log begins after entry {log.boundary.index}@{log.boundary.term}, and {why}"
    if bad:
        return damaged(bad[0].path, bad[0].offset, f"{bad[0].what}; without it {begins}")
    assert first is not None
    return damaged(first, 0, begins)


def _join(wal: Wal, recovered: Recovered, log: GroupReplay, snapshot: SnapshotMeta) -> Recovered:
    """Make the log hold ``snapshot``'s last entry, or begin after it; and the term not less than its."""
    state = recovered.groups.get(_GROUP, GroupState())
    hard_state = None
    if state.hard_state.current_term < snapshot.term:
        # The machine was ahead of this disk. No vote was given in that term: it would have been durable.
        hard_state = HardState(snapshot.term, None)
    boundary = None if log.term_at(snapshot.index) == snapshot.term else snapshot
    if hard_state is None and boundary is None:
        return recovered
    wal.commit([Write(_GROUP, hard_state, (), boundary)])
    joined = state._replace(hard_state=hard_state or state.hard_state)
    if boundary is not None:
        joined = joined._replace(boundary=boundary, entries=())
    return replace(recovered, groups={**recovered.groups, _GROUP: joined})
