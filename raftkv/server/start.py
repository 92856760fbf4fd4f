"""What a node starts from: its disk, read and made safe to go on with, and the machine that its newest
snapshot holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog

from raftkv import __version__
from raftkv.config import Config
from raftkv.consensus.log import Log
from raftkv.consensus.membership import decode_membership
from raftkv.consensus.types import NO_SNAPSHOT, GroupId, HardState, Membership, SnapshotMeta
from raftkv.kv.machine import KvMachine
from raftkv.kv.snapshot import UnknownVersion
from raftkv.storage.charter import Charter
from raftkv.storage.files import Files
from raftkv.storage.segment import damaged, newer
from raftkv.storage.snapshots import SnapshotFiles
from raftkv.storage.start import Opened, open_storage
from raftkv.storage.wal import GroupState, Wal

logger = structlog.get_logger(__name__)

_GROUP = GroupId(0)


@dataclass(frozen=True, slots=True)
class Start:
    """All that was durable, ready to be used."""

    wal: Wal
    incarnation: int
    hard_state: HardState
    log: Log  # no more than there is a use for
    machine: KvMachine
    snapshots: SnapshotFiles
    applied: SnapshotMeta  # what ``machine`` holds; NO_SNAPSHOT: it is empty
    membership: Membership  # in force at ``applied``
    snapshot_bytes: int  # the size of that snapshot's file; 0 for none


def read(
    config: Config, files: Files, directory: Path, charter: Charter, machine: KvMachine | None = None
) -> Start:
    """Recover what ``directory`` (it must exist, and be locked by the caller) holds, into ``machine``, which
    is empty, or a new one. Takes seconds for a million keys, and no loop must wait meanwhile.

    Raises ``StartError`` as ``open_storage`` does.
    """
    owner = charter.owner
    opened = open_storage(
        files, directory, owner.cluster_id, owner.node_id, segment_bytes=config.segment_bytes
    )
    for where in opened.set_aside:
        logger.error("a snapshot is damaged: it was set aside, and an older one used", where=where)
    machine = KvMachine() if machine is None else machine
    applied = opened.snapshot or NO_SNAPSHOT
    membership, size_bytes = _founding(charter), 0
    if opened.snapshot is not None:
        later, size_bytes = restore_machine(machine, opened.snapshots, opened.snapshot)
        membership = later or membership
    _report(config, opened, applied)
    durable = opened.recovered.groups.get(_GROUP, GroupState())
    log = Log(durable.entries, durable.boundary)
    begin = min(applied.index, log.tail_within(config.snapshot_margin_bytes))
    if begin > log.boundary.index:
        log.compact(begin)
    return Start(
        wal=opened.wal,
        incarnation=opened.recovered.incarnation,
        hard_state=durable.hard_state,
        log=log,
        machine=machine,
        snapshots=opened.snapshots,
        applied=applied,
        membership=membership,
        snapshot_bytes=size_bytes,
    )


def _founding(charter: Charter) -> Membership:
    """The membership in force before the log's first entry; nobody where this node joins."""
    return Membership.of(
        *charter.founders, addresses={str(node): address for node, address in charter.founders.items()}
    )


def restore_machine(
    machine: KvMachine, snapshots: SnapshotFiles, meta: SnapshotMeta
) -> tuple[Membership | None, int]:
    """Make ``machine`` what the snapshot holds. The membership in force at its end, None where the release
    that wrote it didn't say: then there was only the founding one. And the file's bytes.
    """
    restoring = machine.restorer()
    with snapshots.open(meta) as reader:
        offset = reader.offset
        try:
            membership = decode_membership(reader.extra) if reader.extra else None
            for chunk in reader:
                restoring.feed(chunk)
                offset = reader.offset
            restoring.finish()
        except UnknownVersion as error:
            raise newer(reader.path, offset, str(error)) from error
        except ValueError as error:  # its checksums are right: it was written so
            raise damaged(reader.path, offset, str(error)) from error
        return membership, reader.offset


def _report(config: Config, opened: Opened, applied: SnapshotMeta) -> None:
    recovered = opened.recovered
    logger.info(
        "recovered",
        version=__version__,
        data_dir=str(config.data_dir),
        incarnation=recovered.incarnation,
        snapshot_index=applied.index,
        entries=sum(len(group.entries) for group in recovered.groups.values()),
        log_bytes=recovered.total_bytes,
    )
    if recovered.dropped_tail_bytes:
        logger.warning(
            "dropped a torn tail: it was never acknowledged",
            dropped_bytes=recovered.dropped_tail_bytes,
            where=recovered.dropped_tail,
        )
