"""What ``raftkv wal dump`` and ``raftkv wal verify`` show. Reads only; takes no lock, changes nothing.

A log whose older segments are gone is shown from the first one that is left on.

Rules: what a start would refuse, ``verify`` reports in the same words, since it runs recovery's own code;
``dump`` shows sound records up to the first damage, whether they make sense together or not. On a running
node's directory the end of the last segment may be in the middle of a write: it looks like a torn tail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from raftkv.consensus.types import GroupId, HardState, Index, SnapshotMeta, Term
from raftkv.errors import StartError
from raftkv.storage.files import Files, OsFiles
from raftkv.storage.record import (
    Record,
    RecordType,
    UnknownFormatError,
    decode_boot,
    decode_commit,
    decode_entry,
    decode_hard_state,
    decode_position,
)
from raftkv.storage.recovery import Replay, replay_segment, scans
from raftkv.storage.segment import Owner, disk_failed, newer
from raftkv.storage.snapshots import SnapshotFiles
from raftkv.storage.start import Choice, choose

_TYPES = frozenset(RecordType)


@dataclass(frozen=True, slots=True)
class RecordLine:
    """One record of a committed batch, COMMIT records included."""

    file: str  # the segment's name
    offset: int  # of the record's header in it
    size_bytes: int  # with header and padding
    batch: int
    group: int
    type: RecordType
    detail: Mapping[str, int | str | bytes | None]
    """BOOT: incarnation. HARD_STATE: term, voted_for. ENTRY: index, term, kind, time_ms, data.
    POSITION, BOUNDARY: index, term, time_ms. COMMIT: records, sparse_sectors."""


@dataclass(frozen=True, slots=True)
class GroupReport:
    group: GroupId
    hard_state: HardState
    boundary: SnapshotMeta  # what the log begins after
    entries: int
    first_index: Index  # 0 without entries
    last_index: Index
    last_term: Term


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    file: str
    meta: SnapshotMeta | None  # None: it can't be read, see ``damage``
    chunks: int  # sound ones
    size_bytes: int  # up to the damage
    damage: str | None  # file, offset, what is wrong


@dataclass(frozen=True, slots=True)
class WalReport:
    """What there is, up to the first damage."""

    owner: Owner | None  # None: no segment, or not even its header could be read
    incarnation: int
    segments: int  # with a sound header
    batches: int
    records: int  # without the COMMITs
    total_bytes: int  # of whole batches and headers
    groups: tuple[GroupReport, ...]
    snapshots: tuple[SnapshotReport, ...]  # newest first
    used_snapshot: SnapshotMeta | None  # that a start would restore; None: none is needed, or see ``damage``
    torn_tail_bytes: int  # of a batch that was never acknowledged; the next start drops it
    torn_tail: str | None  # where it is, and why it is taken for that
    damage: str | None
    """The first that keeps the node from starting: file, offset, what is wrong, what to do. A damaged
    snapshot doesn't, if an older one will do."""


def dump(directory: Path, files: Files | None = None) -> Iterator[RecordLine]:
    """Every record of every committed batch, in order. Raises ``StartError`` at the first damage."""
    try:
        for scan in scans(files or OsFiles(), directory, None):
            for batch in scan.batches():
                for record in batch.records:
                    yield _line(scan.path, batch.number, record)
                yield _line(scan.path, batch.number, batch.commit)
    except OSError as error:
        raise disk_failed(directory, "reading the log", error) from error


def _line(path: Path, batch: int, record: Record) -> RecordLine:
    try:
        if record.type not in _TYPES:
            raise UnknownFormatError(f"a record of type {record.type}")
        kind = RecordType(record.type)
        detail = _detail(kind, record)
    except UnknownFormatError as unknown:
        raise newer(path, record.offset, str(unknown)) from None
    size_bytes = record.end - record.offset
    return RecordLine(path.name, record.offset, size_bytes, batch, record.group, kind, detail)


def _detail(kind: RecordType, record: Record) -> Mapping[str, int | str | bytes | None]:
    match kind:
        case RecordType.BOOT:
            return {"incarnation": decode_boot(record)}
        case RecordType.HARD_STATE:
            hard_state = decode_hard_state(record)
            return {"term": hard_state.current_term, "voted_for": hard_state.voted_for}
        case RecordType.ENTRY:
            entry = decode_entry(record)
            return {
                "index": entry.index,
                "term": entry.term,
                "kind": entry.kind.name,
                "time_ms": entry.time_ms,
                "data": entry.data,
            }
        case RecordType.POSITION | RecordType.BOUNDARY:
            position = decode_position(record)
            return {"index": position.index, "term": position.term, "time_ms": position.time_ms}
        case RecordType.COMMIT:
            commit = decode_commit(record)
            return {"records": commit.records, "sparse_sectors": commit.sparse_sectors}


def verify(directory: Path, files: Files | None = None) -> WalReport:
    """Read everything as a start would. Damage is reported, not raised."""
    files = files or OsFiles()
    replay = Replay()
    owner: Owner | None = None
    first: Path | None = None
    choice: Choice | None = None
    total_bytes = torn_tail_bytes = 0
    torn_tail: str | None = None
    damage: str | None = None
    scan = None
    try:
        for scan in scans(files, directory, None):
            owner = scan.header.owner
            first = first or scan.path
            try:
                replay_segment(replay, scan)
            finally:
                total_bytes += scan.valid_bytes
        if scan is not None and scan.torn is not None:
            torn_tail_bytes = scan.torn_bytes
            torn_tail = f"{scan.path}: {scan.torn}"
        choice = choose(SnapshotFiles(files, directory, owner), replay.peek(), first)
    except StartError as error:
        damage = str(error)
    except OSError as error:
        damage = str(disk_failed(directory, "reading the log", error))
    return WalReport(
        owner=owner,
        incarnation=replay.incarnation,
        segments=replay.segments,
        batches=replay.batches,
        records=replay.records,
        total_bytes=total_bytes,
        groups=_groups(replay),
        snapshots=_snapshots(files, directory, owner),
        used_snapshot=choice.snapshot if choice else None,
        torn_tail_bytes=torn_tail_bytes,
        torn_tail=torn_tail,
        damage=damage,
    )


def _snapshots(files: Files, directory: Path, owner: Owner | None) -> tuple[SnapshotReport, ...]:
    found = SnapshotFiles(files, directory, owner)
    try:
        return tuple(_snapshot(found, path) for path in found.paths())
    except StartError:  # the directory itself can't be read, which the report says anyway
        return ()


def _snapshot(found: SnapshotFiles, path: Path) -> SnapshotReport:
    meta: SnapshotMeta | None = None
    chunks = size_bytes = 0
    damage: str | None = None
    try:
        with found.read(path) as reader:
            meta = reader.meta
            try:
                for _ in reader:
                    chunks += 1
            finally:
                size_bytes = reader.offset
    except StartError as error:
        damage = str(error)
    return SnapshotReport(path.name, meta, chunks, size_bytes, damage)


def _groups(replay: Replay) -> tuple[GroupReport, ...]:
    reports = []
    for group, one in sorted(replay.groups.items()):
        last = one.entries[-1] if one.entries else None
        reports.append(
            GroupReport(
                group=group,
                hard_state=one.hard_state,
                boundary=one.boundary,
                entries=len(one.entries),
                first_index=one.entries[0].index if one.entries else Index(0),
                last_index=last.index if last else Index(0),
                last_term=last.term if last else Term(0),
            )
        )
    return tuple(reports)
