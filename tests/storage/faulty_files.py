"""The simulator's file system, with faults at a given call, counters, and files put there from outside."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from random import Random

from raftkv.sim.files import SimFiles, Tear, split

__all__ = ["FaultyFiles", "Tear", "split"]


class FaultyFiles(SimFiles):
    """Counters start at 1, anew in each life; -1 never fails."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(Random(seed))
        self.writes = self.syncs = 0
        self.fail_write_at = self.fail_sync_at = -1
        self.write_errno = errno.ENOSPC
        self.sync_errno = errno.EIO

    @property
    def paths(self) -> Iterable[Path]:
        return self._names

    def kill(self) -> None:
        super().kill()
        self.writes = self.syncs = 0
        self.fail_write_at = self.fail_sync_at = -1

    def copy(self) -> FaultyFiles:
        """The same files, all durable."""
        other = FaultyFiles()
        for path in self.paths:
            other.put(path, self.read(path))
        return other

    def write_error(self) -> int:
        self.writes += 1
        return self.write_errno if self.writes == self.fail_write_at else super().write_error()

    def sync_error(self) -> int:
        self.syncs += 1
        return self.sync_errno if self.syncs == self.fail_sync_at else super().sync_error()
