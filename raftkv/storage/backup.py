"""A backup file: read, checked and told apart from others. Its bytes are a snapshot's, its name is anyone's.

Rules: nobody uses a backup that wasn't read to its end before. What is wrong with it is said with the byte at
which that begins. What its chunks mean is the machine's: whoever checks them is handed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from raftkv.consensus.types import SnapshotMeta
from raftkv.errors import StartError
from raftkv.kv.snapshot import UnknownVersion
from raftkv.storage.files import Files, ReadFile
from raftkv.storage.segment import EXIT_DAMAGED, Owner, disk_failed, newer
from raftkv.storage.snapshot import DamagedSnapshotError, SnapshotReader


class BadBackup(StartError):
    """The file is no whole backup: ``what`` is wrong at byte ``offset``."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        super().__init__(f"{path}: damaged at byte {offset}: {what}. Take another backup", EXIT_DAMAGED)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """What a whole backup says of itself."""

    source: Owner  # the node that it was taken from, and its cluster
    meta: SnapshotMeta  # of the last entry that it covers
    size_bytes: int
    digest: str  # SHA-256 of the whole file, hexadecimal


def check_backup(path: Path, file: ReadFile, feed: Callable[[bytes], None]) -> BackupSummary:
    """Read ``file`` (``path`` is for messages) to its end, which closes it, and ``feed`` each chunk; what
    that raises as ValueError is damage, too.

    Raises ``BadBackup``; ``StartError``: 74 where the disk fails, 78 for a newer format.
    """
    hashed = _Hashed(file)
    try:
        with SnapshotReader.of(hashed, path) as reader:
            if not reader.meta.index:
                raise BadBackup(path, 0, "it covers no entry")
            offset = reader.offset
            for chunk in reader:
                try:
                    feed(chunk)
                except UnknownVersion as error:
                    raise newer(path, offset, str(error)) from error
                except ValueError as error:
                    raise BadBackup(path, offset, str(error)) from error
                offset = reader.offset
            return BackupSummary(reader.owner, reader.meta, hashed.size_bytes, hashed.digest)
    except DamagedSnapshotError as error:
        raise BadBackup(path, error.offset, error.what) from error


def backup_chunks(files: Files, path: Path, digest: str) -> Iterator[bytes]:
    """The chunks of a file that was checked before. Raises as ``check_backup`` does, and ``BadBackup`` where
    it isn't the one any more that had ``digest``.
    """
    hashed = _Hashed(open_backup(files, path))
    try:
        with SnapshotReader.of(hashed, path) as reader:
            yield from reader
    except DamagedSnapshotError as error:
        raise BadBackup(path, error.offset, error.what) from error
    if hashed.digest != digest:
        raise BadBackup(path, 0, "the file was changed while it was read")


def open_backup(files: Files, path: Path) -> ReadFile:
    """Raises ``StartError`` (73, 74)."""
    try:
        return files.open(path)
    except OSError as error:
        raise disk_failed(path, "reading a backup", error) from error


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: ReadFile) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def read(self, size_bytes: int) -> bytes:
        data = self._file.read(size_bytes)
        self._hash.update(data)
        self.size_bytes += len(data)
        return data

    def close(self) -> None:
        self._file.close()
