"""A snapshot's file as the loop writes it: by way of the thread that may wait for the disk."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.consensus.types import SnapshotMeta
from raftkv.server.worker import Worker
from raftkv.storage.snapshot import SnapshotWriter
from raftkv.storage.snapshots import SnapshotFiles


class SnapshotFile:
    """Every method raises ``StartError`` where the disk fails; then, or when it isn't wanted, ``abort``."""

    def __init__(self, worker: Worker, files: SnapshotFiles, meta: SnapshotMeta, extra: bytes) -> None:
        self._worker = worker
        self._files = files
        self._meta = meta
        self._extra = extra
        self._writer: SnapshotWriter | None = None  # the thread's

    async def append(self, chunks: Sequence[bytes]) -> None:
        def append() -> None:
            writer = self._begun()
            for chunk in chunks:
                writer.append(chunk)

        await self._worker.do(append)

    async def finish(self) -> int:
        """Make it durable under its name; its size in bytes."""

        def finish() -> int:
            writer = self._begun()
            writer.finish()
            return writer.size_bytes

        return await self._worker.do(finish)

    def abort(self) -> None:
        """Whatever was asked before is done, then it goes; nothing if it was finished. Doesn't wait."""

        def abort() -> None:
            if self._writer is not None:
                self._writer.abort()

        self._worker.later(abort)

    def _begun(self) -> SnapshotWriter:
        """On the thread. So whoever is cancelled meanwhile leaves nothing that ``abort`` doesn't know."""
        if self._writer is None:
            self._writer = self._files.begin(self._meta, self._extra)
        return self._writer
