"""A backup as ``ports.Service`` offers it: the machine's export in the form of a snapshot file."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from raftkv.consensus.types import SnapshotMeta
from raftkv.errors import NoQuorum, TooManyRequests
from raftkv.kv.machine import KvMachine
from raftkv.kv.snapshot import Export
from raftkv.replica import Replica
from raftkv.server.pace import Pace
from raftkv.storage.segment import Owner
from raftkv.storage.snapshot_bytes import SnapshotEncoder

_RETRY_AFTER_MS = 1000
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


def backup_of(owner: Owner, replica: Replica, machine: KvMachine) -> MachineBackup:
    """``machine``, which is ``replica``'s, as it is now. Raises as ``ports.Service.backup``."""
    applied = replica.last_applied
    if not applied:
        raise NoQuorum(
            "this node holds nothing yet: it has heard of no leader", retry_after_ms=_RETRY_AFTER_MS
        )
    meta = replica.node.log.meta_at(applied)
    try:
        export = machine.export()
    except RuntimeError as error:
        raise TooManyRequests(str(error), retry_after_ms=_RETRY_AFTER_MS) from None
    return MachineBackup(owner, meta, export)


def _encoded(encoder: SnapshotEncoder, export: Export) -> Generator[bytes, None, None]:
    yield encoder.begin(b"")
    for chunk in export:
        yield encoder.chunk(chunk) if chunk else b""
    yield encoder.end()
