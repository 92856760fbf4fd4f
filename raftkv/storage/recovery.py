"""From the files of a directory to the state they hold. Reads only; what to do about it is the WAL's.

Rules: segments follow each other without a hole, and so do batches, across segments; every entry follows the
one before it in its group, or replaces it and all after it (a conflicting suffix was cut, section 5.3); terms
never go down along a log. Older segments may be gone: the first that is left says where each log stood when
it was begun. Whatever breaks a rule raises ``StartError`` (65) naming file and offset: it never guesses.
Whether a log that doesn't begin at the start of time has a snapshot before it is not known here, but in
``start``.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from raftkv.consensus.types import NO_SNAPSHOT, Entry, GroupId, HardState, Index, SnapshotMeta, Term
from raftkv.storage.files import Files
from raftkv.storage.record import (
    Record,
    RecordType,
    UnknownFormatError,
    decode_boot,
    decode_entry,
    decode_hard_state,
    decode_position,
)
from raftkv.storage.scan import SegmentScan
from raftkv.storage.segment import (
    Owner,
    check_owner,
    damaged,
    decode_header,
    disk_failed,
    newer,
    segment_paths,
)

NO_HARD_STATE = HardState(Term(0), None)
MAX_INCARNATION = (1 << 31) - 1  # with 32 bits more it numbers reads, in a signed 64-bit number


@dataclass(slots=True)
class GroupReplay:
    """One group as far as it was read."""

    hard_state: HardState = NO_HARD_STATE
    boundary: SnapshotMeta = NO_SNAPSHOT  # the entry before the first of ``entries``
    entries: list[Entry] = field(default_factory=list)  # consecutive
    floor: Index = Index(0)  # a snapshot up to here was installed: nothing at or below it is replaced

    @property
    def last(self) -> SnapshotMeta:
        """The position of the last entry; the boundary where there is none."""
        return _position_of(self.entries[-1]) if self.entries else self.boundary

    @property
    def last_index(self) -> Index:
        return Index(self.boundary.index + len(self.entries))

    def term_at(self, index: Index) -> Term | None:
        """The term of the entry at ``index``, or of the boundary; None where there is neither."""
        at = index - self.boundary.index
        if at == 0:
            return self.boundary.term
        return self.entries[at - 1].term if 0 < at <= len(self.entries) else None

    @property
    def term_before_last(self) -> Term:
        """That of the last entry but one, or of the boundary before the only one."""
        return self.entries[-2].term if len(self.entries) > 1 else self.boundary.term

    def put(self, entry: Entry) -> bool:
        """Append ``entry``, or replace from its index on; False where it would leave a gap, or is final."""
        entries = self.entries
        at = entry.index - self.boundary.index - 1
        if at != len(entries):
            if not self.floor < entry.index <= self.last_index:
                return False
            if at < 0:
                # What stood at the boundary when the first segment was begun is replaced. The entries between
                # were in a segment that is gone, so a snapshot covers them, and this one too.
                self.boundary = _position_of(entry)
                entries.clear()
                return True
            del entries[at:]
        entries.append(entry)
        return True

    def begin_after(self, boundary: SnapshotMeta) -> bool:
        """Forget up to ``boundary``, and all after it too unless that entry was there; False where what is
        final would go.
        """
        was_there = self.term_at(boundary.index) == boundary.term
        if boundary.index < max(1, self.floor) or (boundary.index == self.floor and not was_there):
            return False
        del self.entries[: boundary.index - self.boundary.index if was_there else None]
        self.boundary = boundary
        self.floor = boundary.index
        return True


def _position_of(entry: Entry) -> SnapshotMeta:
    return SnapshotMeta(entry.index, entry.term, entry.time_ms)


@dataclass(slots=True)
class Extent:
    """What a segment holds, as far as it matters for when it may go."""

    path: Path
    position: SnapshotMeta | None  # of group 0's log at its beginning; None: not said, so it can't be first
    has_others: bool  # it holds entries of other groups


@dataclass(slots=True)
class Replay:
    """What the records read so far amount to."""

    incarnation: int = 0
    groups: dict[GroupId, GroupReplay] = field(default_factory=dict)
    segments: int = 0
    batches: int = 0
    records: int = 0  # without the COMMITs
    begins: bool = False  # within the first batch of a log whose beginning is gone
    has_position: bool = False  # the segment that is read says where group 0's log stood
    has_others: bool = False  # the segment that is read holds entries of other groups

    def group(self, number: int) -> GroupReplay:
        group = self.groups.get(GroupId(number))
        if group is None:
            group = self.groups[GroupId(number)] = GroupReplay()
        return group

    def peek(self, number: int = 0) -> GroupReplay:
        """As ``group``, but one of which nothing was read is not noted."""
        return self.groups.get(GroupId(number)) or GroupReplay()

    def next_index(self, group: int = 0) -> int:
        return self.peek(group).last_index + 1

    def apply(self, path: Path, record: Record) -> None:
        """Raises ``StartError`` for a record that is sound but cannot follow what came before."""
        try:
            if record.type == RecordType.ENTRY:
                entry = decode_entry(record)
                group = self.group(record.group)
                if not group.put(entry):
                    last = self.next_index(record.group) - 1
                    what = f"entry {entry.index} of group {record.group} follows entry {last}"
                    raise damaged(path, record.offset, what)
                before = group.term_before_last
                if entry.term < before:
                    what = f"entry {entry.index} of group {record.group} has term {entry.term}, and the one "
                    raise damaged(path, record.offset, f"{what}before it {before}")
                if record.group:
                    self.has_others = True
            elif record.type == RecordType.HARD_STATE:
                self.group(record.group).hard_state = decode_hard_state(record)
            elif record.type == RecordType.BOOT:
                incarnation = decode_boot(record)
                if incarnation < self.incarnation:
                    what = f"incarnation {incarnation} follows {self.incarnation}"
                    raise damaged(path, record.offset, what)
                if incarnation >= MAX_INCARNATION:
                    what = f"incarnation {incarnation} is more than a node can have"
                    raise damaged(path, record.offset, what)
                self.incarnation = incarnation
            elif record.type == RecordType.POSITION:
                self._position(path, record, decode_position(record))
            elif record.type == RecordType.BOUNDARY:
                boundary, group = decode_position(record), self.group(record.group)
                if not group.begin_after(boundary):
                    what = f"a boundary at {boundary.index}@{boundary.term} of group {record.group} follows "
                    raise damaged(path, record.offset, what + f"one at {group.floor}")
                if record.group:
                    self.has_others = True
            else:
                raise UnknownFormatError(f"a record of type {record.type}")
        except UnknownFormatError as unknown:
            raise newer(path, record.offset, str(unknown)) from None

    def _position(self, path: Path, record: Record, position: SnapshotMeta) -> None:
        group = self.group(record.group)
        if self.begins:
            group.boundary = position
        elif group.last != position:
            last = group.last
            what = (
                f"the log of group {record.group} stands at {position.index}@{position.term} here, and ends "
                f"at {last.index}@{last.term} before"
            )
            raise damaged(path, record.offset, what)
        if not record.group:
            self.has_position = True


def scans(files: Files, directory: Path, owner: Owner | None) -> Iterator[SegmentScan]:
    """A scan for each segment, in order; each must be read to its end before the next is asked for.

    With ``owner`` None, whose they are is taken from the first segment.
    """
    paths = segment_paths(directory, files.names(directory))
    next_batch: int | None = None
    for path in paths:
        data = files.read(path)
        header = decode_header(data, path)
        owner = owner or header.owner
        check_owner(path, header.owner, owner)
        if next_batch is not None and header.first_batch != next_batch:
            what = (
                f"begins with batch {header.first_batch}, and the segment before it ends at {next_batch - 1}"
            )
            raise damaged(path, 0, what)
        scan = SegmentScan(path, data, header, is_last=path == paths[-1])
        yield scan
        next_batch = scan.next_batch


@dataclass(frozen=True, slots=True)
class Recovery:
    """Everything a WAL needs to go on: the state, and the last segment."""

    replay: Replay
    extents: list[Extent]  # of all segments, in order
    total_bytes: int  # of all segments, without the torn tail
    last: SegmentScan | None  # None: there was no segment


def recover(files: Files, directory: Path, owner: Owner) -> Recovery:
    """Read all segments. Raises ``StartError``: 65 for damage, 73 or 74 where the disk refuses, 78 for
    another node's directory or a newer format.
    """
    replay = Replay()
    total_bytes = 0
    extents: list[Extent] = []
    last: SegmentScan | None = None
    collects_garbage = gc.isenabled()
    gc.disable()  # a million entries and not one cycle: looking for them costs a fifth of the time
    try:
        for scan in scans(files, directory, owner):
            extents.append(replay_segment(replay, scan))
            total_bytes += scan.valid_bytes
            last = scan
    except OSError as error:
        raise disk_failed(directory, "reading the log", error) from error
    finally:
        if collects_garbage:
            gc.enable()
    return Recovery(replay, extents, total_bytes, last)


def replay_segment(replay: Replay, scan: SegmentScan) -> Extent:
    """Apply a segment's batches. With the first one the log begins wherever that says."""
    header, path = scan.header, scan.path
    replay.begins = replay.segments == 0 and header.number > 1
    if not replay.begins:
        _check_first_index(replay, scan)
    replay.segments += 1
    replay.has_position = replay.has_others = False
    position: SnapshotMeta | None = None
    apply = replay.apply
    for batch in scan.batches():
        for record in batch.records:
            apply(path, record)
        replay.batches += 1
        replay.records += len(batch.records)
        if batch.number == header.first_batch:
            if replay.begins:
                _check_first_index(replay, scan)
            replay.begins = False
            position = replay.peek().last if replay.has_position or header.first_index == 1 else None
    return Extent(path, position, replay.has_others)


def _check_first_index(replay: Replay, scan: SegmentScan) -> None:
    if scan.header.first_index != replay.next_index():
        what = f"begins at index {scan.header.first_index}, and the log before it ends at "
        raise damaged(scan.path, 0, what + str(replay.next_index() - 1))
