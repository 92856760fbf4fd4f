"""A snapshot of the machine: one file, whole or not there, its writer and its reader.

A file ``snapshot-<index>-<term>.snap`` holds the bytes that ``snapshot_bytes`` describes.

Rules:

- A file gets its name only when it is durable (temporary file, fsync, rename, fsync of the directory), so
  nothing in it can be torn: whatever is wrong is damage.
- What is in the chunks and in ``extra`` is the caller's. Nobody may rely on a chunk before the END was read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import google_crc32c

from raftkv.consensus.types import Index, NodeId, SnapshotMeta, Term
from raftkv.errors import StartError
from raftkv.storage.files import AppendFile, Files, ReadFile
from raftkv.storage.segment import (
    EXIT_DAMAGED,
    HEADER_BYTES,
    Owner,
    check_owner,
    damaged,
    disk_failed,
    newer,
)
from raftkv.storage.snapshot_bytes import (
    CRC_AT,
    END,
    FIELDS,
    MAGIC,
    MAX_CHUNK_BYTES,
    U32,
    VERSION,
    RecordType,
    SnapshotEncoder,
)

__all__ = ["MAX_CHUNK_BYTES", "DamagedSnapshotError", "SnapshotReader", "SnapshotWriter", "snapshot_name"]

SYNC_BYTES = (
    4 << 20
)  # written between two syncs: so is the last one short, and the page cache never full of it

_NAME_AT = 44
_CHECKED_RECORD = struct.Struct("<III")

_crc = google_crc32c.value
_extend = google_crc32c.extend


class DamagedSnapshotError(StartError):
    """A snapshot file that isn't what was written. An older one may do."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        super().__init__(str(damaged(path, offset, what)), EXIT_DAMAGED)
        self.path = path
        self.offset = offset  # of the header (0) or record that is bad
        self.what = what


def snapshot_name(meta: SnapshotMeta) -> str:
    return f"snapshot-{meta.index:020}-{meta.term:020}.snap"


class SnapshotWriter:
    """A snapshot that is being written. The first failure is the last: then only ``abort`` does anything."""

    def __init__(self, files: Files, owner: Owner, temporary: Path, meta: SnapshotMeta, extra: bytes) -> None:
        """``temporary`` is where it is written; ``finish`` renames it.

        Raises ``StartError`` (73, 74) where the disk fails.
        """
        self.meta = meta
        self._files = files
        self._path = temporary.with_name(snapshot_name(meta))
        self._temporary = temporary
        self._encoder = SnapshotEncoder(owner, meta)
        self._unsynced_bytes = 0
        self._size_bytes = 0
        self._file: AppendFile | None = None  # None: finished, aborted or failed
        try:
            beginning = self._encoder.begin(extra)
            try:
                self._file = files.create(temporary)
            except OSError as error:
                raise self._failed(error) from error
            self._write(beginning)
        except Exception:
            self.abort()
            raise

    @property
    def size_bytes(self) -> int:
        """Of the file so far."""
        return self._size_bytes

    def append(self, chunk: bytes) -> None:
        """Add a chunk, at most ``MAX_CHUNK_BYTES``. Raises ``StartError`` (73, 74) where the disk fails.

        Every few MiB it waits until the disk has them.
        """
        self._open_file()
        self._write(self._encoder.chunk(chunk))
        if self._unsynced_bytes >= SYNC_BYTES:
            self._sync()

    def finish(self) -> Path:
        """Make the file durable and give it its name. Raises ``StartError`` (73, 74) where the disk fails."""
        self._open_file()
        self._write(self._encoder.end())
        self._sync()
        try:
            self._close()
            self._files.rename(self._temporary, self._path)
            self._files.sync_directory(self._path.parent)
        except OSError as error:
            raise self._failed(error) from error
        return self._path

    def abort(self) -> None:
        """Give up: the temporary file goes, if the disk lets it. Idempotent; nothing after ``finish``."""
        self._close()
        with suppress(OSError):  # the next start removes what is left
            if self._temporary.name in self._files.names(self._temporary.parent):
                self._files.unlink(self._temporary)

    def _write(self, data: bytes) -> None:
        try:
            self._open_file().append(data)
        except OSError as error:
            raise self._failed(error) from error
        self._size_bytes += len(data)
        self._unsynced_bytes += len(data)

    def _sync(self) -> None:
        try:
            self._open_file().sync()
        except OSError as error:
            raise self._failed(error) from error
        self._unsynced_bytes = 0

    def _open_file(self) -> AppendFile:
        if self._file is None:
            raise ValueError(f"{self._temporary}: the snapshot is finished, given up, or failed before")
        return self._file

    def _failed(self, error: OSError) -> StartError:
        self._close()
        return disk_failed(self._temporary, "writing a snapshot", error, "it is given up")

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


class SnapshotReader:
    """A snapshot file from its beginning: ``meta``, ``extra``, and by iteration, once, its chunks.

    The iteration ends normally only if the file is whole to its last byte; whatever is wrong raises
    ``DamagedSnapshotError`` as soon as it is met, and ``StartError``: 74 where the disk fails, 78 for a newer
    format or another node's file. Close it, or use it as a context manager.
    """

    def __init__(self, files: Files, owner: Owner | None, path: Path) -> None:
        try:
            file = files.open(path)
        except OSError as error:
            raise disk_failed(path, "reading a snapshot", error) from error
        self._begin(file, owner, path, snapshot_name)

    @classmethod
    def of(cls, file: ReadFile, path: Path) -> SnapshotReader:
        """Read one from ``file``, whoever's it is; ``path``, which may be any, is for messages. ``file`` is
        closed with the reader, or where this raises.
        """
        reader = cls.__new__(cls)
        reader._begin(file, None, path, lambda _: path.name)
        return reader

    def _begin(
        self, file: ReadFile, owner: Owner | None, path: Path, name_of: Callable[[SnapshotMeta], str]
    ) -> None:
        self.path = path
        self._file = file
        self._offset = 0
        self._chunks = 0
        self._is_done = False
        try:
            header = self._read(HEADER_BYTES)
            self.owner, self.meta = _decode_header(header, path)
            if (name := name_of(self.meta)) != path.name:
                raise DamagedSnapshotError(path, 0, f"the file's header says that its name is {name}")
            self._offset = HEADER_BYTES
            if owner is not None:
                check_owner(path, self.owner, owner)
            self._chain: int = U32.unpack_from(header, CRC_AT)[0]
            kind, self.extra = self._record()
            if kind != RecordType.EXTRA:
                raise DamagedSnapshotError(path, HEADER_BYTES, f"begins with a record of type {kind}")
        except BaseException:
            self.close()
            raise

    @property
    def offset(self) -> int:
        """How many bytes of the file were read and found sound."""
        return self._offset

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next chunk."""
        if self._is_done:
            raise StopIteration
        start = self._offset
        kind, payload = self._record()
        if kind == RecordType.CHUNK:
            self._chunks += 1
            return payload
        if kind != RecordType.END:
            raise DamagedSnapshotError(self.path, start, f"a record of type {kind} in the middle")
        if payload != END.pack(self._chunks, start):
            raise DamagedSnapshotError(self.path, start, f"{self._chunks} chunks, but its end says otherwise")
        if self._read(1):
            raise DamagedSnapshotError(self.path, self._offset, "the file goes on after its end")
        self._is_done = True
        raise StopIteration

    def _record(self) -> tuple[int, bytes]:
        start = self._offset
        head = self._read(_CHECKED_RECORD.size)
        if len(head) < _CHECKED_RECORD.size:
            raise DamagedSnapshotError(self.path, start, "the file ends without its end record")
        length, kind, checksum = _CHECKED_RECORD.unpack(head)  # reserved bytes in use make another type
        if length > MAX_CHUNK_BYTES:
            raise DamagedSnapshotError(self.path, start, f"a record of {length} bytes")
        payload = self._read(length)
        if len(payload) < length:
            raise DamagedSnapshotError(self.path, start, "the file ends within a record")
        self._chain = _extend(_extend(self._chain, head[:8]), payload)
        if self._chain != checksum:
            raise DamagedSnapshotError(self.path, start, "a record doesn't match its checksum")
        if kind not in _TYPES:
            raise newer(self.path, start, f"a record of type {kind}")
        self._offset = start + len(head) + length
        return kind, payload

    def _read(self, size_bytes: int) -> bytes:
        try:
            return self._file.read(size_bytes)
        except OSError as error:
            raise disk_failed(self.path, "reading a snapshot", error) from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_TYPES = frozenset(map(int, RecordType))


def _decode_header(data: bytes, path: Path) -> tuple[Owner, SnapshotMeta]:
    if len(data) < HEADER_BYTES:
        raise DamagedSnapshotError(path, len(data), "the file ends within its header")
    if _crc(data[:CRC_AT]) != U32.unpack_from(data, CRC_AT)[0]:
        raise DamagedSnapshotError(path, 0, "the file's header doesn't match its checksum")
    magic, version, cluster, index, term, time_ms, length, node_id = FIELDS.unpack_from(data)
    if magic != MAGIC:
        raise DamagedSnapshotError(path, 0, "this is no snapshot of raftkv")
    if version != VERSION:
        raise newer(path, 8, f"format version {version}")
    try:
        if length > len(node_id):
            raise ValueError(length)
        owner = Owner(cluster.hex(), NodeId(node_id[:length].decode()))
    except ValueError:  # bytes that aren't UTF-8, too
        raise DamagedSnapshotError(path, _NAME_AT, "the node id is not a name") from None
    return owner, SnapshotMeta(Index(index), Term(term), time_ms)
