"""The file-system seam: everything the log and the snapshots do to a disk goes through ``Files``.

Rules: nothing here knows what is in a file. A name is durable only after ``sync_directory``, appended bytes
only after ``sync``; whoever needs an order asks for it. Errors are ``OSError`` as the system gives them; a
failed ``append`` or ``sync`` leaves the file in an unknown condition, and is never tried again (ATC'20,
"Can applications recover from fsync failures?": after a failed fsync the page cache says one thing and the
disk another).
"""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class AppendFile(Protocol):
    """An open file that only grows."""

    def append(self, data: bytes) -> None:
        """Write all of ``data`` at the end. NB: after an error any part of it may be there."""
        ...

    def sync(self) -> None:
        """Return once every byte appended so far, and the file's size, survives a loss of power."""
        ...

    def close(self) -> None:
        """Gives back what the file was made larger in advance."""
        ...


class ReadFile(Protocol):
    """An open file that is read from its beginning on."""

    def read(self, size_bytes: int) -> bytes:
        """The next ``size_bytes``; fewer only at the end of the file."""
        ...

    def close(self) -> None: ...


class Lock(Protocol):
    """A held lock; released by ``release`` or by the death of the process."""

    def release(self) -> None: ...


class LockHeldError(Exception):
    """Another process holds the lock. ``owner`` is what it wrote into the file: its pid, or ""."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


class Files(Protocol):
    """What the log and the snapshots ask of a file system."""

    def make_directory(self, path: Path) -> None:
        """Make ``path`` and its missing parents, durably; nothing if it is there."""
        ...

    def names(self, directory: Path) -> list[str]:
        """The names in ``directory``, sorted."""
        ...

    def read(self, path: Path) -> bytes:
        """The whole file."""
        ...

    def open(self, path: Path) -> ReadFile:
        """For files that may be larger than what anyone wants in memory."""
        ...

    def create(self, path: Path, *, ahead_bytes: int = 0) -> AppendFile:
        """A new empty file (an old one is emptied). It stays the same file when it is renamed.

        ``ahead_bytes``: it may be made larger than what was appended, by up to that much. NB: who opens it
        before it is closed, or after a crash, reads zeros there.
        """
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Atomic; replaces ``new``. Durable after ``sync_directory``."""
        ...

    def unlink(self, path: Path) -> None: ...

    def sync_directory(self, path: Path) -> None:
        """Return once the names made, renamed and removed in ``path`` so far survive a loss of power."""
        ...

    def lock(self, path: Path) -> Lock:
        """Take the exclusive lock on ``path``, without waiting; raises ``LockHeldError``."""
        ...

    def random_bytes(self, size_bytes: int) -> bytes:
        """Unpredictable bytes. Here, because a simulator must be able to choose them."""
        ...


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        # NB: macOS's fsync stops at the drive's own cache; this goes through it.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)  # flushes the size too where it changed, but no timestamps


class OsAppendFile:
    """A file descriptor. Not buffered: what ``append`` took, the kernel has.

    With ``ahead_bytes`` the file has its blocks and its size before the bytes come: a sync that need not make
    those durable too takes half the time.
    """

    __slots__ = ("_ahead_bytes", "_fd", "_file_bytes", "_size_bytes")

    def __init__(self, path: Path, ahead_bytes: int = 0) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._ahead_bytes = ahead_bytes if hasattr(os, "posix_fallocate") else 0
        self._size_bytes = 0  # of what was appended
        self._file_bytes = 0

    def append(self, data: bytes) -> None:
        end = self._size_bytes + len(data)
        if self._ahead_bytes and end > self._file_bytes:
            self._reserve(end + self._ahead_bytes)
        written = os.write(self._fd, data)
        while written < len(data):  # a short write: Linux stops at 2 GiB, and where the disk gets full
            written += os.write(self._fd, memoryview(data)[written:])
        self._size_bytes = end

    def sync(self) -> None:
        _sync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if self._file_bytes > self._size_bytes:
                with suppress(OSError):  # zeros stay
                    os.ftruncate(fd, self._size_bytes)
            os.close(fd)

    def _reserve(self, file_bytes: int) -> None:
        try:
            os.posix_fallocate(self._fd, self._size_bytes, file_bytes - self._size_bytes)
            self._file_bytes = file_bytes
        except OSError:  # no file system that can, or hardly any room left: the write will tell
            self._ahead_bytes = 0


class OsLock:
    """A ``flock``: the kernel drops it when the process dies, however it dies."""

    __slots__ = ("_fd",)

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            owner = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            self.release()
            raise LockHeldError(owner) from None
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        # NB: the file stays. Unlinking it would let two processes lock two files of one name.
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class OsFiles:
    """The real file system."""

    def make_directory(self, path: Path) -> None:
        missing = [p for p in (path, *path.parents) if not p.exists()]
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            self.sync_directory(directory.parent)
        if not path.is_dir():
            raise NotADirectoryError(20, "Not a directory", str(path))

    def names(self, directory: Path) -> list[str]:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names are wanted, not paths

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def open(self, path: Path) -> ReadFile:
        return path.open("rb")

    def create(self, path: Path, *, ahead_bytes: int = 0) -> OsAppendFile:
        return OsAppendFile(path, ahead_bytes)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: Path) -> OsLock:
        return OsLock(path)

    def random_bytes(self, size_bytes: int) -> bytes:
        return os.urandom(size_bytes)
