"""A file system in memory that fails, loses and tears as real ones may; below the real WAL code.

What it models: appended bytes are only in the page cache until ``sync``; names only until
``sync_directory``. ``kill`` ends the process: the page cache stays. ``crash`` cuts the power: of what wasn't
synced, each 512-byte sector is there or reads as zeros, and the file may end anywhere; either way, zeros may
follow where a file is made larger than what is appended. A failed ``sync`` marks its pages clean (ext4, XFS):
readable until the power goes, but no later sync writes them.
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
MAX_AHEAD_BYTES = 3 * SECTOR_BYTES + 100  # enough to be seen, and cheap


class PowerCut(BaseException):
    """The power goes before this call has any effect. No ``Exception``: nobody below the simulator handles
    it.
    """


class Tear(Enum):
    """What a power cut leaves of unsynced bytes."""

    LOST = "lost"
    KEPT = "kept"
    SECTORS = "sectors"  # each sector there or zeros, full length
    CUT = "cut"  # the beginning, up to any byte
    BOTH = "both"


@dataclass(eq=False, slots=True)
class Inode:
    cached: bytearray = field(default_factory=bytearray)  # what a read sees
    durable: bytearray = field(default_factory=bytearray)
    dirty: list[tuple[int, int]] = field(default_factory=list)  # ranges that the next sync writes
    synced_bytes: int = 0  # how much of it a sync confirmed
    ahead_bytes: int = 0  # it is larger than what was appended, by zeros that are seen when nobody appends
    is_flipped: bool = False  # a bit of that was

    def write_back(self, ranges: list[tuple[int, int]]) -> None:
        for start, end in ranges:
            self.durable.extend(bytes(max(0, end - len(self.durable))))
            self.durable[start:end] = self.cached[start:end]

    def crash(self, tear: Tear, random: Random) -> None:
        before = len(self.durable)
        if tear is Tear.KEPT:
            self.write_back(self.dirty)
        elif tear is not Tear.LOST:
            sectors = [sector for start, end in self.dirty for sector in split(start, end)]
            if tear is not Tear.CUT:
                sectors = [sector for sector in sectors if random.random() < 0.5]
            self.write_back(sectors)
            if tear is Tear.SECTORS:
                self.durable.extend(bytes(max(0, len(self.cached) - len(self.durable))))
            else:
                cut = random.randint(before, max(before, len(self.durable)))
                if self.ahead_bytes:  # its size was durable before: no sector is cut
                    cut = max(before, cut - cut % SECTOR_BYTES)
                del self.durable[cut:]
        self.cached = bytearray(self.durable)
        self.dirty = []

    def abandon(self) -> None:
        """Who appended to it is dead."""
        self.cached.extend(bytes(self.ahead_bytes))
        self.ahead_bytes = 0


def split(start: int, end: int) -> list[tuple[int, int]]:
    """[start, end) by sectors of the file."""
    starts = [start, *range(start - start % SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES)]
    return list(zip(starts, [*starts[1:], end], strict=True))


def flipped(names: dict[Path, Inode]) -> list[str]:
    """Of segments and snapshots. What was set aside as damaged is none any more."""
    return sorted(
        path.name for path, inode in names.items() if inode.is_flipped and path.suffix in (".log", ".snap")
    )


class SimFile:
    """``raftkv.storage.files.AppendFile``. A handle dies with its process."""

    def __init__(self, files: SimFiles, inode: Inode) -> None:
        self._files = files
        self._inode = inode
        self._life = files.life
        self._closed = False

    def append(self, data: bytes) -> None:
        self._use()
        inode = self._inode
        error = self._files.write_error()
        if error:
            data = data[: self._files.random.randint(0, len(data))]  # what still fitted
        start = len(inode.cached)
        inode.cached += data
        if data:
            inode.dirty.append((start, start + len(data)))
        if error:
            inode.ahead_bytes = 0  # nor could it be made larger
            raise OSError(error, os.strerror(error))

    def sync(self) -> None:
        self._use()
        inode = self._inode
        error = self._files.sync_error()
        if error:
            inode.dirty = []  # clean pages now, and not on the disk
            raise OSError(error, os.strerror(error))
        inode.write_back(inode.dirty)
        inode.dirty = []
        inode.synced_bytes = len(inode.durable)

    def close(self) -> None:
        self._closed = (
            True  # NB: what was ahead is given back, but not durably: after a crash it is there again
        )

    def _use(self) -> None:
        if self._closed or self._life != self._files.life:
            raise AssertionError("a file used after close, or by a process that is dead")
        self._files.step()


class SimReadFile:
    """``raftkv.storage.files.ReadFile``. It sees what is appended while it is open, as a real one does."""

    def __init__(self, files: SimFiles, inode: Inode) -> None:
        self._files = files
        self._inode = inode
        self._at = 0

    def read(self, size_bytes: int) -> bytes:
        self._files.check_read()
        data = bytes(self._inode.cached[self._at : self._at + size_bytes])
        self._at += len(data)
        return data

    def close(self) -> None:
        pass


class SimLock:
    def __init__(self, locked: set[Path], path: Path) -> None:
        self._locked = locked
        self._path = path

    def release(self) -> None:
        self._locked.discard(self._path)


class SimFiles:
    """``raftkv.storage.files.Files`` of one node."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.life = 0  # handles of earlier lives are dead
        self.fuse = -1  # the power goes at this many calls from now; -1 never
        self.fail_syncs = 0  # how many syncs fail from now on
        self.fail_writes = 0
        self.fail_reads = 0
        self.is_full = False
        self._locked: set[Path] = set()
        self._names: dict[Path, Inode] = {}
        self._durable_names: dict[Path, Inode] = {}
        self._changes: list[dict[Path, Inode]] = []  # the directory after each change not yet synced

    # -- faults --------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """The process ends: the kernel keeps all it was given."""
        self.life += 1
        self.fuse = -1
        self._locked.clear()
        for inode in self._inodes():
            inode.abandon()

    def crash(self, tear: Tear) -> None:
        """The power goes. Names are as after any of the changes since they were last synced."""
        self._names = dict(self.random.choice([self._durable_names, *self._changes]))
        self._durable_names = dict(self._names)
        self._changes = []
        for inode in self._names.values():
            inode.crash(tear, self.random)
        self.kill()

    def put(self, path: Path, content: bytes) -> None:
        """Another file at ``path``, durable: what someone with a copy of the disk may do."""
        inode = Inode(bytearray(content), bytearray(content), synced_bytes=len(content))
        for names in (self._names, self._durable_names, *self._changes):
            names[path] = inode

    def flip_bit(self, suffix: str | None = None) -> str:
        """Flip a bit of what is in a segment or snapshot (those with ``suffix``, where there are) and was
        confirmed as durable; says where.
        """
        suffix = suffix or self.random.choice((".log", ".snap"))
        durable = [path for path, inode in self._durable_names.items() if inode.synced_bytes]
        paths = sorted(path for path in durable if path.suffix == suffix)
        if suffix == ".snap" and self.random.random() < 0.8:
            paths = paths[-1:]  # the newest: the other is hardly ever read
        path = self.random.choice(paths or [path for path in durable if path.suffix == ".log"])
        inode = self._durable_names[path]
        inode.is_flipped = True
        at, bit = self.random.randrange(inode.synced_bytes), self.random.randrange(8)
        inode.durable[at] ^= 1 << bit
        inode.cached[at] ^= 1 << bit
        return f"bit {bit} of byte {at} of {path.name}"

    @property
    def has_damage(self) -> bool:
        """Whether a bit was flipped in a file that is there, or may be there again after a crash."""
        return any(map(flipped, (self._names, self._durable_names, *self._changes)))

    def damaged_names(self) -> list[str]:
        """The segments and snapshots that a process finds damaged if it starts now."""
        return flipped(self._names)

    def mend(self) -> None:
        """No more faults from here on."""
        self.fail_syncs = self.fail_writes = self.fail_reads = 0
        self.fuse = -1
        self.is_full = False

    def step(self) -> None:
        """A call that changes something is about to be made."""
        if self.fuse > 0:
            self.fuse -= 1
        elif self.fuse == 0:
            self.fuse = -1
            raise PowerCut

    def check_read(self) -> None:
        if self.fail_reads:
            self.fail_reads -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write_error(self) -> int:
        if self.is_full:
            return errno.ENOSPC
        if self.fail_writes:
            self.fail_writes -= 1
            return errno.EIO
        return 0

    def sync_error(self) -> int:
        if self.fail_syncs:
            self.fail_syncs -= 1
            return errno.EIO
        return 0

    # -- raftkv.storage.files.Files ------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        pass

    def names(self, directory: Path) -> list[str]:
        return sorted(path.name for path in self._names if path.parent == directory)

    def read(self, path: Path) -> bytes:
        self.check_read()
        return bytes(self._inode(path).cached)

    def open(self, path: Path) -> SimReadFile:
        return SimReadFile(self, self._inode(path))

    def create(self, path: Path, *, ahead_bytes: int = 0) -> SimFile:
        self.step()
        inode = Inode(ahead_bytes=min(ahead_bytes, MAX_AHEAD_BYTES))
        self._change({**self._names, path: inode})
        return SimFile(self, inode)

    def rename(self, old: Path, new: Path) -> None:
        self.step()
        names = dict(self._names)
        names[new] = names.pop(old)
        self._change(names)

    def unlink(self, path: Path) -> None:
        self.step()
        self._change({p: inode for p, inode in self._names.items() if p != path})

    def sync_directory(self, path: Path) -> None:
        self.step()
        self._durable_names = dict(self._names)
        self._changes = []

    def lock(self, path: Path) -> SimLock:
        if path in self._locked:
            raise LockHeldError("1")
        self._locked.add(path)
        return SimLock(self._locked, path)

    def random_bytes(self, size_bytes: int) -> bytes:
        return self.random.randbytes(size_bytes)

    def _inode(self, path: Path) -> Inode:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self._names[path]

    def _inodes(self) -> set[Inode]:
        """Of all names that are there, or may be there again after a crash."""
        return {
            inode for names in (self._names, self._durable_names, *self._changes) for inode in names.values()
        }

    def _change(self, names: dict[Path, Inode]) -> None:
        self._names = names
        self._changes.append(names)
