"""A backup as ``ports.Service`` offers it: the machine's export in the form of a snapshot file."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from raftkv.consensus.types import SnapshotMeta
from raftkv.kv.snapshot import Export
from raftkv.server.pace import Pace
from raftkv.storage.segment import Owner
from raftkv.storage.snapshot_bytes import SnapshotEncoder

_SHARE = 0.2  # of the loop's time, each


class MachineBackup(Iterator[bytes]):
    """``ports.Backup`` of the node ``owner``. ``export`` is of its machine, which had applied all up to
    ``meta`` when it was made.
    """

    def __init__(self, owner: Owner, meta: SnapshotMeta, export: Export) -> None:
        self.name = f"raftkv-{owner.cluster_id}-{export.revision}.snap"
        self._export = export
        self._pace = Pace(_SHARE)
        self._pieces = _encoded(SnapshotEncoder(owner, meta), export)

    @property
    def revision(self) -> int:
        return self._export.revision

    @property
    def keys(self) -> int:
        return self._export.keys

    @property
    def kept_bytes(self) -> int:
        return self._export.kept_bytes

    def __next__(self) -> bytes:
        with self._pace.work():
            return next(self._pieces)

    async def rest(self) -> None:
        await self._pace.rest()

    def close(self) -> None:
        self._export.close()
        self._pieces.close()


def _encoded(encoder: SnapshotEncoder, export: Export) -> Generator[bytes, None, None]:
    yield encoder.begin(b"")
    for chunk in export:
        yield encoder.chunk(chunk) if chunk else b""
    yield encoder.end()
