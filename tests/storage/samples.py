"""Small logs to damage, and short ways to say what is in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from raftkv.consensus.types import (
    NO_SNAPSHOT,
    Entry,
    EntryKind,
    GroupId,
    HardState,
    Index,
    NodeId,
    SnapshotMeta,
    Term,
    Write,
)
from raftkv.storage.files import Files
from raftkv.storage.wal import GroupState, Recovered, Wal

DIRECTORY = Path("/data")
CLUSTER = "0123456789abcdef"
NODE = NodeId("n1")
G0 = GroupId(0)

Groups = Mapping[GroupId, GroupState]


def entry(index: int, data: bytes = b"value", term: int = 1) -> Entry:
    return Entry(Index(index), Term(term), EntryKind.BATCH, index * 10, data)


def position(index: int, term: int = 1) -> SnapshotMeta:
    """Of ``entry(index, term=term)``."""
    return SnapshotMeta(Index(index), Term(term), index * 10)


def write(
    *entries: Entry,
    term: int | None = None,
    vote: str | None = None,
    group: GroupId = G0,
    boundary: SnapshotMeta | None = None,
) -> Write:
    hard_state = None if term is None else HardState(Term(term), NodeId(vote) if vote else None)
    return Write(group, hard_state, entries, boundary)


def open_wal(
    files: Files, directory: Path = DIRECTORY, segment_bytes: int = 1 << 20
) -> tuple[Wal, Recovered]:
    return Wal.open(files, directory, CLUSTER, NODE, segment_bytes=segment_bytes)


def apply(groups: Groups, writes: Sequence[Write]) -> dict[GroupId, GroupState]:
    """The model: what ``groups`` become by ``writes``, said in the plainest way."""
    result = dict(groups)
    for one in writes:
        hard_state, boundary, entries = result.get(one.group, GroupState())
        if one.boundary is not None:
            ends = [boundary, *(SnapshotMeta(e.index, e.term, e.time_ms) for e in entries)]
            if all((e.index, e.term) != (one.boundary.index, one.boundary.term) for e in ends):
                boundary, entries = one.boundary, ()
        for new in one.entries:
            entries = (*(old for old in entries if old.index < new.index), new)
        result[one.group] = GroupState(one.hard_state or hard_state, boundary, entries)
    return {
        group: kept for group, kept in result.items() if kept != (HardState(Term(0), None), NO_SNAPSHOT, ())
    }


def indexes(recovered: Recovered, group: GroupId = G0) -> list[int]:
    return [e.index for e in recovered.groups.get(group, GroupState()).entries]
