"""A file system in memory that fails, loses and tears as real ones may; below the real WAL code.

What it models: appended bytes are only in the page cache until ``sync``; names only until
``sync_directory``. ``kill`` ends the process: the page cache stays. ``crash`` cuts the power: of what wasn't
synced, each 512-byte sector is there or reads as zeros, and the file may end anywhere. A failed ``sync``
marks its pages clean (ext4, XFS): readable until the power goes, but no later sync writes them.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random

from raftkv.storage.files import LockHeldError

SECTOR_BYTES = 512


class Tear(Enum):
    """What a crash leaves of unsynced bytes."""

    LOST = "lost"
    KEPT = "kept"
    SECTORS = "sectors"  # each sector there or zeros, full length
    CUT = "cut"  # the beginning, up to any byte
    BOTH = "both"


@dataclass(eq=False)
class Inode:
    cached: bytearray = field(default_factory=bytearray)  # what a read sees
    durable: bytearray = field(default_factory=bytearray)
    dirty: list[tuple[int, int]] = field(default_factory=list)  # ranges that the next sync writes

    def write_back(self, ranges: list[tuple[int, int]]) -> None:
        for start, end in ranges:
            self.durable.extend(bytes(max(0, end - len(self.durable))))
            self.durable[start:end] = self.cached[start:end]

    def crash(self, tear: Tear, random: Random) -> None:
        before = len(self.durable)
        if tear is Tear.KEPT:
            self.write_back(self.dirty)
        elif tear is not Tear.LOST:
            sectors = [s for start, end in self.dirty for s in split(start, end)]
            if tear is not Tear.CUT:
                sectors = [s for s in sectors if random.random() < 0.5]
            self.write_back(sectors)
            if tear is Tear.SECTORS:
                self.durable.extend(bytes(len(self.cached) - len(self.durable)))
            else:
                del self.durable[random.randint(before, max(before, len(self.durable))) :]
        self.cached = bytearray(self.durable)
        self.dirty = []


def split(start: int, end: int) -> list[tuple[int, int]]:
    """[start, end) by sectors of the file."""
    starts = [start, *range(start - start % SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES)]
    return list(zip(starts, [*starts[1:], end], strict=True))


class FaultyFile:
    def __init__(self, files: FaultyFiles, inode: Inode) -> None:
        self._files = files
        self._inode = inode
        self._life = files.life
        self.closed = False

    def append(self, data: bytes) -> None:
        self._check_alive()
        error = self._files.next_write()
        if error:
            data = data[: len(data) // 2]  # what still fitted
        start = len(self._inode.cached)
        self._inode.cached += data
        self._inode.dirty.append((start, start + len(data)))
        if error:
            raise OSError(error, os.strerror(error))

    def sync(self) -> None:
        self._check_alive()
        error = self._files.next_sync()
        if error:
            self._inode.dirty = []  # clean pages now, and not on the disk
            raise OSError(error, os.strerror(error))
        self._inode.write_back(self._inode.dirty)
        self._inode.dirty = []

    def close(self) -> None:
        self.closed = True

    def _check_alive(self) -> None:
        if self.closed or self._life != self._files.life:
            raise OSError(errno.EBADF, "used after close, or by a process that is dead")


class FaultyReadFile:
    def __init__(self, inode: Inode) -> None:
        self._inode = inode
        self._at = 0

    def read(self, size_bytes: int) -> bytes:
        data = bytes(self._inode.cached[self._at : self._at + size_bytes])
        self._at += len(data)
        return data

    def close(self) -> None:
        pass


class FaultyLock:
    def __init__(self, files: FaultyFiles, path: Path) -> None:
        self._files = files
        self._path = path

    def release(self) -> None:
        self._files.locked.discard(self._path)


class FaultyFiles:
    """``raftkv.storage.files.Files`` in memory. Counters start at 1; -1 never fails."""

    def __init__(self, seed: int = 0) -> None:
        self.names_now: dict[Path, Inode] = {}
        self.names_durable: dict[Path, Inode] = {}
        self.name_changes: list[dict[Path, Inode]] = []  # the directory after each change not yet synced
        self.locked: set[Path] = set()
        self.life = 0  # handles of earlier lives are dead
        self.random = Random(seed)
        self.writes = self.syncs = self.directory_syncs = 0
        self.fail_write_at = self.fail_sync_at = -1
        self.write_errno = errno.ENOSPC
        self.sync_errno = errno.EIO

    # what a test does

    def kill(self) -> None:
        """kill -9: the kernel keeps all it was given."""
        self.life += 1
        self.locked.clear()
        self.writes = self.syncs = self.directory_syncs = 0
        self.fail_write_at = self.fail_sync_at = -1

    def crash(self, tear: Tear) -> None:
        """The power goes."""
        self.names_now = dict(self.random.choice([self.names_durable, *self.name_changes]))
        self.names_durable = dict(self.names_now)
        self.name_changes = []
        for inode in self.names_now.values():
            inode.crash(tear, self.random)
        self.kill()

    def copy(self) -> FaultyFiles:
        """The same files, all durable."""
        other = FaultyFiles()
        for path, inode in self.names_now.items():
            other.put(path, bytes(inode.cached))
        return other

    def put(self, path: Path, content: bytes) -> None:
        inode = Inode(bytearray(content), bytearray(content))
        self.names_now[path] = self.names_durable[path] = inode

    def next_write(self) -> int:
        self.writes += 1
        return self.write_errno if self.writes == self.fail_write_at else 0

    def next_sync(self) -> int:
        self.syncs += 1
        return self.sync_errno if self.syncs == self.fail_sync_at else 0

    # what the WAL does

    def make_directory(self, path: Path) -> None:
        pass

    def names(self, directory: Path) -> list[str]:
        return sorted(path.name for path in self.names_now if path.parent == directory)

    def read(self, path: Path) -> bytes:
        return bytes(self.names_now[path].cached)

    def open(self, path: Path) -> FaultyReadFile:
        return FaultyReadFile(self.names_now[path])

    def create(self, path: Path) -> FaultyFile:
        inode = Inode()
        self._change({**self.names_now, path: inode})
        return FaultyFile(self, inode)

    def rename(self, old: Path, new: Path) -> None:
        names = dict(self.names_now)
        names[new] = names.pop(old)
        self._change(names)

    def unlink(self, path: Path) -> None:
        self._change({p: inode for p, inode in self.names_now.items() if p != path})

    def sync_directory(self, path: Path) -> None:
        self.directory_syncs += 1
        self.names_durable = dict(self.names_now)
        self.name_changes = []

    def lock(self, path: Path) -> FaultyLock:
        if path in self.locked:
            raise LockHeldError("1")
        self.locked.add(path)
        return FaultyLock(self, path)

    def random_bytes(self, size_bytes: int) -> bytes:
        return self.random.randbytes(size_bytes)

    def _change(self, names: dict[Path, Inode]) -> None:
        self.names_now = names
        self.name_changes.append(names)
