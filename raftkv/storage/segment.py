"""A segment: one file of the write-ahead log, its name and its header.

Rules:

- A segment gets its name, ``wal-<segment>-<first index>.log``, only once its header and its first batch are
  durable (write a temporary file, fsync, rename, fsync the directory). So neither can be torn: a bad header
  or first batch is damage.
- Its first batch repeats the incarnation and every group's hard state, and says where every group's log
  stands: older segments can go once a snapshot covers their entries.
- The header is 512 bytes with its checksum in the last four, in every version to come, so that an older
  version can tell "newer" from "damaged".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from raftkv.consensus.types import NodeId
from raftkv.errors import StartError

HEADER_BYTES = 512
TEMPORARY_SUFFIX = ".tmp"
EXIT_DAMAGED, EXIT_INVARIANT, EXIT_UNUSABLE, EXIT_DISK, EXIT_CONFIG = 65, 70, 73, 74, 78

_MAGIC = b"raftkvWL"
_VERSION = 1
# magic, version, cluster id, segment number, first index, first batch, salt, length of the node id, node id
_FIELDS = struct.Struct("<8sI8sQQQIB64s")
_NAME_AT = 48
_CRC_AT = HEADER_BYTES - 4
_NAME = re.compile(r"wal-(\d{10})-(\d{20})\.log")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose WAL it is."""

    cluster_id: str  # 16 lower-case hexadecimal digits
    node_id: NodeId

    def __post_init__(self) -> None:
        if re.fullmatch(r"[0-9a-f]{16}", self.cluster_id) is None:
            raise ValueError(f"a cluster id is 16 hexadecimal digits, got {self.cluster_id!r}")
        if not 0 < len(self.node_id.encode()) <= 64:
            raise ValueError(f"a node id has 1-64 bytes, got {self.node_id!r}")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    owner: Owner
    number: int  # 1 for a node's first segment, then one more each
    first_index: int  # what group 0's next entry would have been numbered when the segment was begun
    first_batch: int  # of the batch that follows the header
    salt: int  # secret u32 from which the records' header checksums continue; see record.py

    @property
    def name(self) -> str:
        return f"wal-{self.number:010}-{self.first_index:020}.log"


def encode_header(header: SegmentHeader) -> bytes:
    node_id = header.owner.node_id.encode()
    fields = _FIELDS.pack(
        _MAGIC,
        _VERSION,
        bytes.fromhex(header.owner.cluster_id),
        header.number,
        header.first_index,
        header.first_batch,
        header.salt,
        len(node_id),
        node_id,
    ).ljust(_CRC_AT, b"\0")
    return fields + struct.pack("<I", google_crc32c.value(fields))


def decode_header(data: bytes, path: Path) -> SegmentHeader:
    """The header of the file ``path`` that starts with ``data``. Raises ``StartError``: a header that was
    ever named is whole."""
    if len(data) < HEADER_BYTES:
        raise damaged(path, len(data), "the file ends within its header")
    if google_crc32c.value(data[:_CRC_AT]) != struct.unpack_from("<I", data, _CRC_AT)[0]:
        raise damaged(path, 0, "the file's header doesn't match its checksum")
    magic, version, cluster, number, index, batch, salt, length, node_id = _FIELDS.unpack_from(data)
    if magic != _MAGIC:
        raise damaged(path, 0, "this is no WAL segment of raftkv")
    if version != _VERSION:
        raise newer(path, 8, f"format version {version}")
    try:
        if length > len(node_id):
            raise ValueError(length)
        owner = Owner(cluster.hex(), NodeId(node_id[:length].decode()))
    except ValueError:  # bytes that aren't UTF-8, too
        raise damaged(path, _NAME_AT, "the node id is not a name") from None
    header = SegmentHeader(owner, number, index, batch, salt)
    if header.name != path.name:
        raise damaged(path, 0, f"the file's header says that its name is {header.name}")
    return header


def check_owner(path: Path, found: Owner, wanted: Owner) -> None:
    """Raises ``StartError`` (78) where the file belongs to another node or cluster."""
    if found.node_id != wanted.node_id:
        raise StartError(
            f"{path.parent}: this data directory belongs to node {found.node_id!r}, and this is node "
            f"{wanted.node_id!r}; give each node its own --data-dir",
            EXIT_CONFIG,
        )
    if found.cluster_id != wanted.cluster_id:
        raise StartError(
            f"{path.parent}: this data directory belongs to cluster {found.cluster_id}, and this node was "
            f"told cluster {wanted.cluster_id}; check --cluster and --data-dir",
            EXIT_CONFIG,
        )


def segment_paths(directory: Path, names: Sequence[str]) -> list[Path]:
    """The segments among ``names``, in order. Raises ``StartError`` where one is missing or there twice."""
    found = sorted((int(m[1]), name) for name in names if (m := _NAME.fullmatch(name)))
    # The first ones may be gone: what they held is in a snapshot (``start`` knows whether it is).
    for expected, (number, name) in enumerate(found, start=found[0][0] if found else 1):
        if number != expected:
            problem = f"segment {expected} is missing" if number > expected else "is there twice"
            raise damaged(directory / name, 0, f"segment {number}: {problem}")
    return [directory / name for _, name in found]


def temporary_names(names: Sequence[str]) -> list[str]:
    """Files that a crash left half-made: never named, so nothing in them was promised."""
    return [n for n in names if _NAME.fullmatch(n.removesuffix(TEMPORARY_SUFFIX)) and not _NAME.fullmatch(n)]


def damaged(path: Path, offset: int, what: str) -> StartError:
    return StartError(
        f"{path}: damaged at byte {offset}: {what}. Nothing was changed. Restore the file from a copy of "
        "this disk, or replace this member; never restart it empty under the same id, it has made promises",
        EXIT_DAMAGED,
    )


def newer(path: Path, offset: int, what: str) -> StartError:
    return StartError(
        f"{path}: byte {offset}: {what} was written by a newer version of raftkv; start that one",
        EXIT_CONFIG,
    )


_STOPS = "stopping, nothing that depended on it was acknowledged"


def disk_failed(path: Path, doing: str, error: OSError, then: str = _STOPS) -> StartError:
    return StartError(
        f"{path}: {doing} failed: {error.strerror or error}; {then}",
        EXIT_UNUSABLE if isinstance(error, PermissionError) else EXIT_DISK,
    )
