"""A machine whose state is the list of the entries applied to it: right if it is all of them, in order."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.consensus.types import Entry, EntryKind, Index, SnapshotMeta, Term
from raftkv.storage.files import Files
from raftkv.storage.snapshots import SnapshotFiles
from raftkv.storage.start import Opened, open_storage
from tests.storage.samples import CLUSTER, DIRECTORY, G0, NODE

ONE_EACH = 600  # bytes a segment, so that a batch of one large entry fills it


def start(files: Files, segment_bytes: int = ONE_EACH) -> Opened:
    return open_storage(files, DIRECTORY, CLUSTER, NODE, segment_bytes=segment_bytes)


def take(snapshots: SnapshotFiles, meta: SnapshotMeta, entries: Sequence[Entry]) -> None:
    """A snapshot of the machine that was given ``entries``, a chunk each."""
    writer = snapshots.begin(meta, b"")
    for each in entries:
        writer.append(b"%d %d %d %d " % (each.index, each.term, each.kind, each.time_ms) + each.data)
    writer.finish()


def restored(snapshots: SnapshotFiles, meta: SnapshotMeta) -> list[Entry]:
    entries = []
    with snapshots.open(meta) as reader:
        for chunk in reader:
            index, term, kind, time_ms, data = chunk.split(b" ", 4)
            entries.append(
                Entry(Index(int(index)), Term(int(term)), EntryKind(int(kind)), int(time_ms), data)
            )
    return entries


def all_of(opened: Opened) -> list[Entry]:
    """What a machine holds that was restored from the snapshot and given the log after it."""
    log = opened.recovered.groups.get(G0)
    entries = [] if opened.snapshot is None else restored(opened.snapshots, opened.snapshot)
    if log is not None:
        assert log.boundary.index <= len(entries), "a gap"
        for each in log.entries[: len(entries) - log.boundary.index]:
            assert each == entries[each.index - 1], "the log contradicts the snapshot"
        entries += log.entries[len(entries) - log.boundary.index :]
    return entries
