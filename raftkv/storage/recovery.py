"""From the files of a directory to the state they hold. Reads only; what to do about it is the WAL's.

Rules: segments follow each other without a hole, and so do batches, across segments; every entry follows the
one before it in its group, or replaces it and all after it (a conflicting suffix was cut, section 5.3); terms
never go down along a log.
Whatever breaks a rule raises ``StartError`` (65) naming file and offset: it never guesses.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from raftkv.consensus.types import Entry, GroupId, HardState, Term
from raftkv.storage.files import Files
from raftkv.storage.record import (
    Record,
    RecordType,
    UnknownFormatError,
    decode_boot,
    decode_entry,
    decode_hard_state,
)
from raftkv.storage.scan import SegmentScan
from raftkv.storage.segment import Owner, check_owner, damaged, decode_header, newer, segment_paths

NO_HARD_STATE = HardState(Term(0), None)
MAX_INCARNATION = (1 << 31) - 1  # with 32 bits more it numbers reads, in a signed 64-bit number


@dataclass(slots=True)
class GroupReplay:
    """One group as far as it was read."""

    hard_state: HardState = NO_HARD_STATE
    entries: list[Entry] = field(default_factory=list)  # consecutive, from index 1

    @property
    def term_before_last(self) -> Term:
        """That of the last entry but one; 0 where there is none."""
        return self.entries[-2].term if len(self.entries) > 1 else Term(0)

    def put(self, entry: Entry) -> bool:
        """Append ``entry``, or replace from its index on; False where it would leave a gap."""
        entries = self.entries
        next_index = len(entries) + 1
        if entry.index != next_index:
            if not 0 < entry.index < next_index:
                return False
            del entries[entry.index - 1 :]
        entries.append(entry)
        return True


@dataclass(slots=True)
class Replay:
    """What the records read so far amount to."""

    incarnation: int = 0
    groups: dict[GroupId, GroupReplay] = field(default_factory=dict)
    batches: int = 0
    records: int = 0  # without the COMMITs

    def group(self, number: int) -> GroupReplay:
        group = self.groups.get(GroupId(number))
        if group is None:
            group = self.groups[GroupId(number)] = GroupReplay()
        return group

    def next_index(self, group: int = 0) -> int:
        replay = self.groups.get(GroupId(group))
        return len(replay.entries) + 1 if replay else 1

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
            else:
                raise UnknownFormatError(f"a record of type {record.type}")
        except UnknownFormatError as unknown:
            raise newer(path, record.offset, str(unknown)) from None


def scans(files: Files, directory: Path, owner: Owner | None) -> Iterator[SegmentScan]:
    """A scan for each segment, in order; each must be read to its end before the next is asked for.

    With ``owner`` None, whose they are is taken from the first segment.
    """
    paths = segment_paths(directory, files.names(directory))
    next_batch = 1
    for path in paths:
        data = files.read(path)
        header = decode_header(data, path)
        owner = owner or header.owner
        check_owner(path, header.owner, owner)
        if header.first_batch != next_batch:
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
    segments: int
    total_bytes: int  # of all segments, without the torn tail
    last: SegmentScan | None  # None: there was no segment


def recover(files: Files, directory: Path, owner: Owner) -> Recovery:
    """Read all segments. Raises ``StartError``: 65 for damage, 78 for another node's or a newer format."""
    replay = Replay()
    segments = total_bytes = 0
    last: SegmentScan | None = None
    collects_garbage = gc.isenabled()
    gc.disable()  # a million entries and not one cycle: looking for them costs a fifth of the time
    try:
        for scan in scans(files, directory, owner):
            replay_segment(replay, scan)
            segments += 1
            total_bytes += scan.valid_bytes
            last = scan
    finally:
        if collects_garbage:
            gc.enable()
    return Recovery(replay, segments, total_bytes, last)


def replay_segment(replay: Replay, scan: SegmentScan) -> None:
    if scan.header.first_index != replay.next_index():
        what = f"begins at index {scan.header.first_index}, and the log before it ends at "
        raise damaged(scan.path, 0, what + str(replay.next_index() - 1))
    apply, path = replay.apply, scan.path
    for batch in scan.batches():
        for record in batch.records:
            apply(path, record)
        replay.batches += 1
        replay.records += len(batch.records)
