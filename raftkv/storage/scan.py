"""From a segment's bytes to its batches, and the judgement of where they end: torn, or damaged.

A batch is records and one COMMIT record, written together and made durable together before anything in it is
acknowledged, and before the next batch is written. So a batch that isn't whole was either never acknowledged
(the power went while it was written: *torn*, drop it) or was and went bad later (*damaged*: refuse to start,
for dropping it could undo what a majority counted on). Telling them apart, at the first bad record, at X, of
a batch that starts at B in the last segment:

1. A sound COMMIT of a later batch stands after X: this batch was durable before that one was written. So
   damaged.
2. The record is cut by the end of the file, or whole records end there without a COMMIT: torn.
3. The header at X is bad. It lies within one sector, and sectors are written whole, so if the power did it,
   the batch's whole share of that sector is missing, that is, reads as zeros. If so torn, else damaged.
4. The payload at X is bad. If the power did it, one of the record's sectors reads as zeros, which no sector
   does by nature, since payloads are masked (record.py): if so torn, else damaged. Should a value have
   defeated the mask, the batch's own COMMIT, if sound, says how many sectors had at most one byte that isn't
   zero when it was written, and only if more than those are all zeros now, which no single bad byte can do,
   is it torn.

Files are made larger before they are filled (files.py), so zeros alone after a whole batch are the end, in
any segment: what should stand there, the next segment's first batch number tells.

In a segment that isn't the last, or in a segment's first batch, nothing can be torn: both were durable before
anything else happened. Everything here is read-only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from raftkv.errors import StartError
from raftkv.storage.record import (
    SECTOR_BYTES,
    BadRecordError,
    Commit,
    Problem,
    Record,
    RecordType,
    UnknownFormatError,
    decode_commit,
    find_commits,
    read_record,
    zero_sectors,
)
from raftkv.storage.segment import HEADER_BYTES, SegmentHeader, damaged, newer

_CUT = (Problem.NO_COMMIT, Problem.HEADER_CUT, Problem.PAYLOAD_CUT)


class Batch(NamedTuple):
    """A whole batch: its records without the COMMIT, which is ``commit``."""

    number: int
    records: list[Record]
    commit: Record


class SegmentScan:
    """One pass over a segment. ``batches`` first, then ``valid_bytes`` and ``torn``."""

    def __init__(self, path: Path, data: bytes, header: SegmentHeader, *, is_last: bool) -> None:
        self.path = path
        self.data = data
        self.header = header
        self.is_last = is_last
        self.valid_bytes = HEADER_BYTES  # the end of the last whole batch so far
        self.next_batch = header.first_batch
        self.torn: BadRecordError | None = None  # why the bytes after ``valid_bytes`` are dropped

    @property
    def torn_bytes(self) -> int:
        return len(self.data) - self.valid_bytes if self.torn else 0

    def batches(self) -> Iterator[Batch]:
        """The whole batches in order. Raises ``StartError`` at damage, ends at a torn one."""
        data, salt, size = self.data, self.header.salt, len(self.data)
        while self.valid_bytes < size or self.next_batch == self.header.first_batch:
            records: list[Record] = []
            offset = self.valid_bytes
            try:
                while (record := read_record(data, offset, salt)).type != RecordType.COMMIT:
                    records.append(record)
                    offset = record.end
            except BadRecordError as bad:
                if self._is_end(bad):
                    return
                if not self._is_torn(bad):
                    raise damaged(self.path, bad.offset, bad.problem.value) from None
                self.torn = bad
                return
            self._check_commit(record, len(records))
            yield Batch(self.next_batch, records, record)
            self.valid_bytes = record.end
            self.next_batch += 1

    def _check_commit(self, record: Record, records: int) -> None:
        commit = self._commit_of(record)
        if commit.batch != self.next_batch:
            what = f"batch {self.next_batch} expected, found {commit.batch}"
            raise damaged(self.path, record.offset, what)
        if commit.records != records:
            what = f"a batch of {records} records whose commit record says {commit.records}"
            raise damaged(self.path, record.offset, what)

    def _commit_of(self, record: Record) -> Commit:
        try:
            return decode_commit(record)
        except UnknownFormatError as unknown:
            raise newer(self.path, record.offset, str(unknown)) from None

    def _is_end(self, bad: BadRecordError) -> bool:
        """Does nothing but zeros stand after the last whole batch?"""
        return (
            bad.offset == self.valid_bytes
            and self.next_batch != self.header.first_batch
            and self.data.count(b"\0", bad.offset) == len(self.data) - bad.offset
        )

    def _is_torn(self, bad: BadRecordError) -> bool:
        """The rules above. Raises ``StartError`` where what comes after X proves damage."""
        start, batch = self.valid_bytes, self.next_batch
        if not self.is_last or batch == self.header.first_batch:
            return False
        own: tuple[Record, Commit] | None = None
        for record, commit in find_commits(self.data, bad.offset, self.header.salt):
            if commit.batch > batch:
                raise self._refuted(bad, record, commit)
            if commit.batch == batch:
                own = record, commit
            # An earlier one stands in a value: someone keeps a copy of this segment in the store.
        if bad.problem in _CUT:
            return True
        if bad.problem is Problem.HEADER_DAMAGED:
            return self._is_lost(bad.offset, start)
        if not any(self._is_lost(at, start) for at in range(bad.offset, bad.end, SECTOR_BYTES)) and (
            not self._is_lost(bad.end - 1, start)
        ):
            return False
        if own is None:
            return True
        record, commit = own
        return zero_sectors(self.data, start, record.end) > commit.sparse_sectors

    def _is_lost(self, offset: int, start: int) -> bool:
        """Does the share that a batch starting at ``start`` has of ``offset``'s sector read as zeros?"""
        sector = offset - offset % SECTOR_BYTES
        return not any(self.data[max(sector, start) : sector + SECTOR_BYTES])

    def _refuted(self, bad: BadRecordError, record: Record, commit: Commit) -> StartError:
        what = (
            f"{bad.problem.value}, and batch {commit.batch} was committed after it, at byte {record.offset}"
        )
        return damaged(self.path, bad.offset, what)
