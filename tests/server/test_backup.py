"""A node's backup: of what it has applied, said rightly, and slowly enough."""

from __future__ import annotations

import io
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftkv.consensus.types import EntryKind, Index, NodeId
from raftkv.errors import NoQuorum, TooManyRequests
from raftkv.kv.machine import KvMachine
from raftkv.kv.store import MAX_IMAGES
from raftkv.server import backup as backup_module
from raftkv.server.backup import MachineBackup, backup_of
from raftkv.storage.backup import BackupSummary, check_backup
from raftkv.storage.segment import Owner
from tests.server.lone import Lone, lone

OWNER = Owner("0123456789abcdef", NodeId("n1"))


def backup(node: Lone) -> MachineBackup:
    return backup_of(OWNER, node.replica, node.machine)


def read_back(pieces: MachineBackup) -> tuple[BackupSummary, KvMachine]:
    restore = KvMachine().restorer()
    summary = check_backup(Path("backup"), io.BytesIO(b"".join(pieces)), restore.feed)
    return summary, restore.finish()


async def test_it_says_which_entry_it_covers_last(tmp_path: Path) -> None:
    """With what the log holds after that entry it becomes the machine that the node has now."""
    async with lone(tmp_path) as node:
        await node.fill(1, 20)
        taken, applied = backup(node), node.replica.last_applied
        await node.fill(11, 40)
        summary, machine = read_back(taken)
        log = node.replica.node.log
        assert summary.source == OWNER
        assert summary.meta == log.meta_at(applied)
        assert machine.store.revision == taken.revision == taken.keys == 20
        for entry in log.slice(Index(summary.meta.index + 1), 1 << 30):
            if entry.kind is EntryKind.BATCH:
                machine.apply(entry.time_ms, entry.data)
        assert list(machine.export()) == node.chunks()


async def test_there_are_not_too_many(tmp_path: Path) -> None:
    async with lone(tmp_path) as node:
        await node.fill(1, 3)
        held = [backup(node) for _ in range(MAX_IMAGES)]
        with pytest.raises(TooManyRequests):
            backup(node)
        for one in held:
            one.close()
        assert next(backup(node))


def test_a_node_that_has_applied_nothing_has_none() -> None:
    replica: Any = SimpleNamespace(last_applied=Index(0))
    with pytest.raises(NoQuorum):
        backup_of(OWNER, replica, KvMachine())


async def test_it_has_its_share_of_the_loop_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that took a second has to rest for four."""
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    async with lone(tmp_path) as node:
        await node.fill(1, 3)
        pieces = backup(node)
        ticks = count()
        with monkeypatch.context() as patch:
            patch.setattr("raftkv.server.pace.perf_counter", lambda: float(next(ticks)))
            patch.setattr("raftkv.server.pace.asyncio", SimpleNamespace(sleep=sleep))
            for _ in range(3):
                next(pieces)
                await pieces.rest()
        assert rests == [pytest.approx(1 / backup_module._SHARE - 1)] * 3
        pieces.close()
