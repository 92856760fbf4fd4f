"""The snapshots in a node's data directory: begun, found, opened, checked, removed.

Rules: a snapshot is known by its name, and its name by (index, term). It shares nothing with the log but the
directory: a thread of its own may write here while the log's does there, so that a snapshot's fsync never
holds up the log's. One thread at a time. Which snapshot a start may use is ``start``'s to say.
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

from raftkv.consensus.types import SnapshotMeta
from raftkv.storage.files import Files
from raftkv.storage.segment import TEMPORARY_SUFFIX, Owner, disk_failed
from raftkv.storage.snapshot import DamagedSnapshotError, SnapshotReader, SnapshotWriter, snapshot_name

SET_ASIDE_SUFFIX = ".damaged"

_NAME = re.compile(r"snapshot-\d{20}-\d{20}\.snap")
_SET_ASIDE_NAME = re.compile(_NAME.pattern + re.escape(SET_ASIDE_SUFFIX))
_TEMPORARY_NAME = re.compile(rf"{_NAME.pattern}\.\d+{re.escape(TEMPORARY_SUFFIX)}")


class SnapshotFiles:
    """``owner`` None: whoever's they are, for looking at them only.

    Every method raises ``StartError`` (73, 74) where the disk refuses.
    """

    def __init__(self, files: Files, directory: Path, owner: Owner | None) -> None:
        self._files = files
        self._directory = directory
        self._owner = owner
        self._numbers = count(1)  # of temporary files: two snapshots of one position don't meet in one

    def begin(self, meta: SnapshotMeta, extra: bytes) -> SnapshotWriter:
        """A new snapshot, up to and including the entry ``meta``; ``extra`` is kept in it as it is.

        When finished it replaces one of the same position.
        """
        if self._owner is None:
            raise ValueError("a snapshot needs an owner")
        temporary = f"{snapshot_name(meta)}.{next(self._numbers)}{TEMPORARY_SUFFIX}"
        return SnapshotWriter(self._files, self._owner, self._directory / temporary, meta, extra)

    def paths(self) -> list[Path]:
        """The files, newest first, whatever their condition."""
        names = sorted(filter(_NAME.fullmatch, self._names()), reverse=True)
        return [self._directory / name for name in names]

    def metas(self) -> list[SnapshotMeta]:
        """The snapshots, newest first; one that is damaged from its beginning isn't among them."""
        metas = []
        for path in self.paths():
            try:
                with self.read(path) as reader:
                    metas.append(reader.meta)
            except DamagedSnapshotError:
                continue
        return metas

    def open(self, meta: SnapshotMeta) -> SnapshotReader:
        """The snapshot of that index and term. Raises as ``SnapshotReader`` does."""
        return self.read(self._path(meta))

    def read(self, path: Path) -> SnapshotReader:
        """One of ``paths``. Raises as ``SnapshotReader`` does."""
        return SnapshotReader(self._files, self._owner, path)

    def check(self, meta: SnapshotMeta) -> None:
        """Read it to its end. Raises ``DamagedSnapshotError`` with file and offset."""
        self.check_path(self._path(meta))

    def check_path(self, path: Path) -> SnapshotMeta:
        """As ``check``, for one of ``paths``; what it says that it covers."""
        with self.read(path) as reader:
            for _ in reader:
                pass
            return reader.meta

    def keep_newest(self, number: int) -> int:
        """Remove all but the ``number`` newest; how many went. Damaged ones that were set aside go with those
        of their age.
        """
        kept = [path.name for path in self.paths()[:number]]
        old = [
            name for name in self._names() if _is_snapshot(name) and len(kept) == number and name < kept[-1]
        ]
        return self._remove(old)

    def remove_temporary(self) -> int:
        """Remove what a crash left half-written, when nothing is being written; how many."""
        return self._remove([name for name in self._names() if _TEMPORARY_NAME.fullmatch(name)])

    def set_aside(self, path: Path) -> Path:
        """Rename a damaged one, so that it is neither used nor counted as one that is kept; its new path."""
        aside = path.with_name(path.name + SET_ASIDE_SUFFIX)
        try:
            self._files.rename(path, aside)
            self._files.sync_directory(self._directory)
        except OSError as error:
            raise disk_failed(path, "renaming a damaged snapshot", error) from error
        return aside

    def _path(self, meta: SnapshotMeta) -> Path:
        return self._directory / snapshot_name(meta)

    def _names(self) -> list[str]:
        try:
            return self._files.names(self._directory)
        except OSError as error:
            raise disk_failed(self._directory, "looking for snapshots", error) from error

    def _remove(self, names: list[str]) -> int:
        try:
            for name in names:
                self._files.unlink(self._directory / name)
            if names:
                self._files.sync_directory(self._directory)
        except OSError as error:
            raise disk_failed(self._directory, "removing a snapshot", error) from error
        return len(names)


def _is_snapshot(name: str) -> bool:
    return bool(_NAME.fullmatch(name) or _SET_ASIDE_NAME.fullmatch(name))
