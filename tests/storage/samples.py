"""Small logs to damage, and short ways to say what is in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from raftkv.consensus.types import Entry, EntryKind, GroupId, HardState, Index, NodeId, Term, Write
from raftkv.storage.files import Files
from raftkv.storage.wal import Recovered, Wal

DIRECTORY = Path("/data")
CLUSTER = "0123456789abcdef"
NODE = NodeId("n1")
G0 = GroupId(0)

Groups = Mapping[GroupId, tuple[HardState, tuple[Entry, ...]]]


def entry(index: int, data: bytes = b"value", term: int = 1) -> Entry:
    return Entry(Index(index), Term(term), EntryKind.BATCH, index * 10, data)


def write(*entries: Entry, term: int | None = None, vote: str | None = None, group: GroupId = G0) -> Write:
    hard_state = None if term is None else HardState(Term(term), NodeId(vote) if vote else None)
    return Write(group, hard_state, entries)


def open_wal(
    files: Files, directory: Path = DIRECTORY, segment_bytes: int = 1 << 20
) -> tuple[Wal, Recovered]:
    return Wal.open(files, directory, CLUSTER, NODE, segment_bytes=segment_bytes)


def apply(groups: Groups, writes: Sequence[Write]) -> dict[GroupId, tuple[HardState, tuple[Entry, ...]]]:
    """The model: what ``groups`` become by ``writes``, said in the plainest way."""
    result = dict(groups)
    for one in writes:
        hard_state, entries = result.get(one.group, (HardState(Term(0), None), ()))
        for new in one.entries:
            entries = (*(old for old in entries if old.index < new.index), new)
        result[one.group] = (one.hard_state or hard_state, entries)
    return {group: kept for group, kept in result.items() if kept != (HardState(Term(0), None), ())}


def indexes(recovered: Recovered, group: GroupId = G0) -> list[int]:
    return [e.index for e in recovered.groups.get(group, (None, ()))[1]]
