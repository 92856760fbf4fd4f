"""The bytes of a snapshot: what a file of it holds, and what a backup sends. Knows no files.

A snapshot is a header of 512 bytes and records (little-endian)::

    header   0 magic `raftkvSN`, 8 version u32, 12 cluster id, 20 index u64, 28 term u64, 36 time_ms u64,
             44 length of the node id u8, 45 node id, zeros, 508 CRC-32C of the 508 bytes before it
    record   0 length u32, 4 type u8, 5 three zero bytes, 8 CRC-32C of these 8 bytes and the payload,
             continued from the record before (from the header's for the first), 12 the payload

The records are one EXTRA, any number of CHUNKs, one END, which says how many chunks and bytes came before it.
The checksums are chained, so that a record that is missing, there twice or from another place is found too.

Numbers of types are on disk: never renumber, never reuse.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import google_crc32c

from raftkv.consensus.types import SnapshotMeta
from raftkv.storage.segment import HEADER_BYTES, Owner

MAX_CHUNK_BYTES = 64 << 20
MAGIC = b"raftkvSN"
VERSION = 1
# magic, version, cluster id, index, term, time_ms, length of the node id, node id
FIELDS = struct.Struct("<8sI8sQQQB64s")
CRC_AT = HEADER_BYTES - 4
END = struct.Struct("<QQ")
U32 = struct.Struct("<I")

_RECORD = struct.Struct("<IB3x")

_crc = google_crc32c.value
_extend = google_crc32c.extend


class RecordType(IntEnum):
    EXTRA = 1  # what the caller keeps beside the machine
    CHUNK = 2
    END = 3  # chunks u64, bytes before this record u64


class SnapshotEncoder:
    """A snapshot's bytes in order: those of ``begin``, of a ``chunk`` for each chunk, of ``end``."""

    def __init__(self, owner: Owner, meta: SnapshotMeta) -> None:
        self._owner = owner
        self._meta = meta
        self._chain = 0
        self._chunks = 0
        self._size_bytes = 0  # that were given

    def begin(self, extra: bytes) -> bytes:
        """The header, and ``extra``. Raises ValueError where that is too large."""
        header = _encode_header(self._owner, self._meta)
        self._chain = U32.unpack_from(header, CRC_AT)[0]
        self._size_bytes = len(header)
        return header + self._record(RecordType.EXTRA, extra)

    def chunk(self, chunk: bytes) -> bytes:
        """Raises ValueError for one of more than ``MAX_CHUNK_BYTES``."""
        record = self._record(RecordType.CHUNK, chunk)
        self._chunks += 1
        return record

    def end(self) -> bytes:
        return self._record(RecordType.END, END.pack(self._chunks, self._size_bytes))

    def _record(self, kind: RecordType, payload: bytes) -> bytes:
        if len(payload) > MAX_CHUNK_BYTES:
            raise ValueError(f"a chunk has at most {MAX_CHUNK_BYTES} bytes, got {len(payload)}")
        head = _RECORD.pack(len(payload), kind)
        self._chain = _extend(_extend(self._chain, head), payload)
        record = b"".join((head, U32.pack(self._chain), payload))
        self._size_bytes += len(record)
        return record


def _encode_header(owner: Owner, meta: SnapshotMeta) -> bytes:
    node_id = owner.node_id.encode()
    cluster_id = bytes.fromhex(owner.cluster_id)
    fields = FIELDS.pack(
        MAGIC, VERSION, cluster_id, meta.index, meta.term, meta.time_ms, len(node_id), node_id
    ).ljust(CRC_AT, b"\0")
    return fields + U32.pack(_crc(fields))
