"""The records of the write-ahead log, as bytes. Pure: no files, no policy on what damage means.

A record is a header of 20 bytes, a payload, and zeros up to a multiple of 32 bytes (little-endian)::

    0  length       u32  of the payload, without its padding
    4  payload_crc  u32  CRC-32C of payload and padding
    8  group        u32
    12 type         u8
    13 mask         u8   what every byte of the payload is XORed with
    14              two zero bytes
    16 header_crc   u32  CRC-32C of the 16 bytes before it, continued from the segment's salt

Rules:

- Every record starts at a multiple of 32 bytes, so no header straddles a 512-byte sector, and a COMMIT
  record (exactly 32 bytes) doesn't either: a disk that writes whole sectors leaves it whole or absent.
- NB: the salt, a secret of the segment, is why no client's value can be taken for a record. Recovery looks
  for COMMIT records in the middle of damaged bytes, and values may hold anything, a copy of a WAL included.
- No sector of a record is nearly all zeros: where a payload has a long run of them, it is masked with a byte
  that has no such run. So a sector that reads as zeros was lost, and no single bad byte makes one look so.
- Numbers of types are on disk: never renumber, never reuse. A reader refuses a type it doesn't know.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum, IntEnum
from functools import cache
from typing import NamedTuple

import google_crc32c

from raftkv.consensus.types import Entry, EntryKind, GroupId, HardState, Index, NodeId, SnapshotMeta, Term

ALIGNMENT_BYTES = 32
HEADER_BYTES = 20
SECTOR_BYTES = 512
COMMIT_RECORD_BYTES = 32
MAX_PAYLOAD_BYTES = 1 << 30

_HEADER = struct.Struct("<IIIBB2x")
_CHECKED_HEADER = struct.Struct("<IIIBBHI")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_ENTRY = struct.Struct("<QQBQ")
_POSITION = struct.Struct("<QQQ")
_PADDING = tuple(bytes(n) for n in range(ALIGNMENT_BYTES))

if google_crc32c.implementation != "c":  # pragma: no cover
    raise ImportError("google-crc32c has no C implementation on this platform; in Python it is too slow")
_crc = google_crc32c.value
_extend = google_crc32c.extend


class RecordType(IntEnum):
    BOOT = 1  # incarnation u64: how often this node has started
    HARD_STATE = 2  # term u64, then voted_for as UTF-8; nothing for no vote
    ENTRY = 3  # index u64, term u64, kind u8, time_ms u64, then the data
    COMMIT = 4  # ends a batch: batch u48, records u24, sparse_sectors u24
    POSITION = 5  # where the group's log stands when a segment begins: index u64, term u64, time_ms u64
    BOUNDARY = 6  # a snapshot was installed, the log begins after it: index u64, term u64, time_ms u64


class Problem(Enum):
    """Why there is no record at an offset."""

    NO_COMMIT = "the file ends after whole records, without a commit record"
    HEADER_CUT = "the file ends within a record's header"
    HEADER_DAMAGED = "a record's header doesn't match its checksum"
    PAYLOAD_CUT = "the file ends within a record"
    PAYLOAD_DAMAGED = "a record's payload doesn't match its checksum"


class BadRecordError(Exception):
    """There is no whole record at ``offset``; ``end`` is where it would end, if its header is sound."""

    def __init__(self, problem: Problem, offset: int, end: int = -1) -> None:
        super().__init__(f"byte {offset}: {problem.value}")
        self.problem = problem
        self.offset = offset
        self.end = end


class UnknownFormatError(Exception):
    """A sound record that says something this version doesn't know."""


class Record(NamedTuple):
    """A whole record of a file. ``body`` is payload, unmasked, and padding; ``length`` the payload's."""

    type: int  # may be one that ``RecordType`` doesn't have
    group: int
    length: int
    body: bytes
    offset: int
    end: int

    @property
    def payload(self) -> bytes:
        return self.body[: self.length]


class Commit(NamedTuple):
    """The payload of a COMMIT record."""

    batch: int  # one more than the batch before, across segments; below 2**48 (at 10,000 a second: 890 years)
    records: int  # in the batch, without this one; below 2**24
    sparse_sectors: int
    """Sectors wholly within the batch with at most one byte that isn't zero; below 2**24. Masking leaves
    none, but where a value was made to have a run of every byte there is."""


def encode(salt: int, record_type: RecordType, group: int, fixed: bytes, data: bytes = b"") -> bytes:
    """One record; its payload is ``fixed`` and ``data``, together 1 byte to ``MAX_PAYLOAD_BYTES``."""
    length = len(fixed) + len(data)
    if not 0 < length <= MAX_PAYLOAD_BYTES:
        raise ValueError(f"a record's payload must be 1-{MAX_PAYLOAD_BYTES} bytes, got {length}")
    payload = fixed + data
    padding = _PADDING[-(HEADER_BYTES + length) % ALIGNMENT_BYTES]
    mask = 0
    if length >= _LONG_RUN_BYTES and bytes(_LONG_RUN_BYTES) in payload:
        mask = _mask_for(payload)
        payload = payload.translate(_mask_table(mask))
    header = _HEADER.pack(length, _extend(_crc(payload), padding), group, record_type, mask)
    return b"".join((header, _U32.pack(_extend(salt, header)), payload, padding))


# A quarter of a sector: 512 bytes without such a run, and even 481 of them before the padding, have three
# bytes or more that aren't zero.
_LONG_RUN_BYTES = SECTOR_BYTES // 4


def _mask_for(payload: bytes) -> int:
    """A byte of which ``payload`` has no long run; 0, no mask, where it has one of each."""
    return next((mask for mask in range(1, 256) if bytes((mask,)) * _LONG_RUN_BYTES not in payload), 0)


@cache
def _mask_table(mask: int) -> bytes:
    """For ``bytes.translate``: XOR with ``mask``, which is its own inverse."""
    return bytes(byte ^ mask for byte in range(256))


def encode_entry(salt: int, group: GroupId, entry: Entry) -> bytes:
    fixed = _ENTRY.pack(entry.index, entry.term, entry.kind, entry.time_ms)
    return encode(salt, RecordType.ENTRY, group, fixed, entry.data)


def encode_hard_state(salt: int, group: GroupId, hard_state: HardState) -> bytes:
    fixed = _U64.pack(hard_state.current_term)
    return encode(salt, RecordType.HARD_STATE, group, fixed, (hard_state.voted_for or "").encode())


def encode_boot(salt: int, incarnation: int) -> bytes:
    return encode(salt, RecordType.BOOT, 0, _U64.pack(incarnation))


def encode_position(salt: int, group: GroupId, position: SnapshotMeta) -> bytes:
    fixed = _POSITION.pack(position.index, position.term, position.time_ms)
    return encode(salt, RecordType.POSITION, group, fixed)


def encode_boundary(salt: int, group: GroupId, boundary: SnapshotMeta) -> bytes:
    fixed = _POSITION.pack(boundary.index, boundary.term, boundary.time_ms)
    return encode(salt, RecordType.BOUNDARY, group, fixed)


def encode_commit(salt: int, commit: Commit) -> bytes:
    payload = (
        commit.batch.to_bytes(6, "little")
        + commit.records.to_bytes(3, "little")
        + commit.sparse_sectors.to_bytes(3, "little")
    )
    return encode(salt, RecordType.COMMIT, 0, payload)


def read_record(data: bytes, offset: int, salt: int) -> Record:
    """The record at ``offset``, checked. Raises ``BadRecordError``."""
    body_at = offset + HEADER_BYTES
    if body_at > len(data):
        if offset >= len(data):
            raise BadRecordError(Problem.NO_COMMIT, offset)
        raise BadRecordError(Problem.HEADER_CUT, offset)
    length, payload_crc, group, kind, mask, reserved, header_crc = _CHECKED_HEADER.unpack_from(data, offset)
    if _extend(salt, data[offset : offset + 16]) != header_crc:
        raise BadRecordError(Problem.HEADER_DAMAGED, offset)
    end = (body_at + length + ALIGNMENT_BYTES - 1) & -ALIGNMENT_BYTES
    body = data[body_at:end]
    if end > len(data):
        raise BadRecordError(Problem.PAYLOAD_CUT, offset, end)
    if _crc(body) != payload_crc:
        raise BadRecordError(Problem.PAYLOAD_DAMAGED, offset, end)
    if mask:
        body = body.translate(_mask_table(mask))
    # A header that uses the reserved bytes is a newer version's: so is then the number of its type.
    return Record(kind | reserved << 8, group, length, body, offset, end)


_KINDS = {int(kind): kind for kind in EntryKind}  # four times faster than EntryKind(number)


def decode_entry(record: Record) -> Entry:
    if record.length < _ENTRY.size:
        raise UnknownFormatError(f"an ENTRY record of {record.length} bytes")
    index, term, number, time_ms = _ENTRY.unpack_from(record.body)
    kind = _KINDS.get(number)
    if kind is None:
        raise UnknownFormatError(f"an entry of kind {number}")
    return Entry(Index(index), Term(term), kind, time_ms, record.body[_ENTRY.size : record.length])


def decode_hard_state(record: Record) -> HardState:
    if record.length < _U64.size:
        raise UnknownFormatError(f"a HARD_STATE record of {record.length} bytes")
    voted_for = record.payload[_U64.size :]
    try:
        name = voted_for.decode()
    except UnicodeDecodeError:
        raise UnknownFormatError(f"a vote for {voted_for[:40]!r}") from None
    return HardState(Term(_U64.unpack_from(record.body)[0]), NodeId(name) if name else None)


def decode_boot(record: Record) -> int:
    if record.length != _U64.size:
        raise UnknownFormatError(f"a BOOT record of {record.length} bytes")
    return int(_U64.unpack_from(record.body)[0])


def decode_position(record: Record) -> SnapshotMeta:
    """Of a POSITION or a BOUNDARY record."""
    if record.length != _POSITION.size:
        raise UnknownFormatError(f"a {RecordType(record.type).name} record of {record.length} bytes")
    index, term, time_ms = _POSITION.unpack_from(record.body)
    return SnapshotMeta(Index(index), Term(term), time_ms)


def decode_commit(record: Record) -> Commit:
    if record.length != 12:
        raise UnknownFormatError(f"a COMMIT record of {record.length} bytes")
    number = int.from_bytes(record.body, "little")
    return Commit(number & 0xFFFF_FFFF_FFFF, number >> 48 & 0xFF_FFFF, number >> 72)


# Where a COMMIT header has its group (0), its type and the three zero bytes: offset 8 of the record.
_COMMIT_MARK = bytes(4) + bytes((RecordType.COMMIT, 0, 0, 0))


def find_commits(data: bytes, start: int, salt: int) -> Iterator[tuple[Record, Commit]]:
    """Every sound COMMIT record at a multiple of 32 bytes from ``start`` on, whatever lies between."""
    at = data.find(_COMMIT_MARK, start + 8)
    while at >= 0:
        offset = at - 8
        if offset % ALIGNMENT_BYTES == 0:
            try:
                record = read_record(data, offset, salt)
                yield record, decode_commit(record)
            except (BadRecordError, UnknownFormatError):
                pass
        at = data.find(_COMMIT_MARK, at + 1)


_HALF_SECTOR_OF_ZEROS = bytes(SECTOR_BYTES // 2)
_SECTOR_OF_ZEROS = bytes(SECTOR_BYTES)


def sparse_sectors(batch: bytes, offset: int) -> int:
    """How many sectors wholly within ``batch``, which starts at ``offset`` of its file, have at most one byte
    that isn't zero: those that one damaged byte could make look lost.

    The sectors at its edges are not counted: each holds a header, so it has more such bytes than one.
    Masking makes this 0 but for a value made to defeat it; then it is what keeps recovery safe (scan.py).
    """
    if len(batch) < SECTOR_BYTES or _HALF_SECTOR_OF_ZEROS not in batch:
        return 0  # nearly always: 511 zeros and one other byte hold a run of 256
    starts = range(-offset % SECTOR_BYTES, len(batch) - SECTOR_BYTES + 1, SECTOR_BYTES)
    return sum(batch.count(0, at, at + SECTOR_BYTES) >= SECTOR_BYTES - 1 for at in starts)


def zero_sectors(data: bytes, start: int, end: int) -> int:
    """How many sectors of the file ``data`` that lie wholly within [start, end) are all zeros."""
    first = start + -start % SECTOR_BYTES
    return sum(
        data.startswith(_SECTOR_OF_ZEROS, at) for at in range(first, end - SECTOR_BYTES + 1, SECTOR_BYTES)
    )
