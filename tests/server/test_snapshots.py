"""A node's own snapshots: taken when the log has grown and on request, kept, and started from."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from raftkv.consensus.types import NO_SNAPSHOT, Index
from raftkv.errors import SnapshotFailed
from raftkv.server.pace import Pace, TokenBucket
from tests.server.lone import Reluctant, lone, until
from tests.server.virtual_time import in_virtual_time


async def test_a_restart_begins_with_the_snapshot_and_applies_what_follows(tmp_path: Path) -> None:
    async with lone(tmp_path) as node:
        await node.fill(1, 20)
        taken = await node.snapshots.take()
        assert taken.meta.index == node.replica.last_applied
        assert node.replica.node.log.boundary == taken.meta
        await node.fill(15, 30)
        before = node.chunks()
    async with lone(tmp_path) as node:
        assert node.snapshots.newest == taken
        await until(lambda: node.replica.last_applied == node.replica.node.log.last_index)
        # Sessions differ by nothing: no command was sent in this life.
        assert node.chunks() == before
        assert node.machine.store.revision == 36


async def test_one_is_taken_each_time_the_log_has_grown_by_the_bound(tmp_path: Path) -> None:
    files = Reluctant()
    async with lone(tmp_path, files, snapshot_bytes=15_000) as node:
        for number in range(1, 4):
            await node.fill(1, 100)
            await until(lambda: not node.snapshots.status()["taking"])
            assert len(files.begun) == number
            assert len(node.names()) == min(number, 2)
        assert len(files.begun) == 3
        entries = node.replica.node.log.last_index - node.replica.node.log.boundary.index
        assert entries < 200


@pytest.mark.parametrize("keys", [25, 50])
async def test_a_large_machine_is_not_written_over_and_over(tmp_path: Path, keys: int) -> None:
    files = Reluctant()
    async with lone(tmp_path, files, snapshot_bytes=10_000) as node:
        await node.fill(1, keys, value_bytes=1_000)
        await until(lambda: not node.snapshots.status()["taking"])
        taken = await node.snapshots.take()
        assert keys * 1_000 < taken.size_bytes
        begun = files.begun.copy()
        due_bytes = min(taken.size_bytes, 40_000)
        while node.snapshots.status()["log_grown_bytes"] < due_bytes - 2_000:
            await node.fill(1, 1, value_bytes=1_000)
            assert files.begun == begun, "the log has not grown by what the last one took"
        await node.fill(1, 3, value_bytes=1_000)
        await until(lambda: len(files.begun) > len(begun))


async def test_growth_counts_across_a_restart(tmp_path: Path) -> None:
    for _ in range(3):
        async with lone(tmp_path, snapshot_bytes=20_000) as node:
            assert node.names() == []
            await node.fill(1, 30)
    async with lone(tmp_path, snapshot_bytes=20_000) as node:
        await node.fill(1, 30)
        await until(lambda: len(node.names("*.snap")) == 1)


async def test_what_was_applied_before_a_snapshot_does_not_count_after_a_restart(tmp_path: Path) -> None:
    async with lone(tmp_path) as node:
        await node.fill(1, 100)
        await node.snapshots.take()
    files = Reluctant()
    async with lone(tmp_path, files, snapshot_bytes=10_000) as node:
        await node.fill(1, 10)
        assert node.snapshots.status()["log_grown_bytes"] < 4_000
    assert files.begun == []


async def test_the_segments_that_both_snapshots_cover_go(tmp_path: Path) -> None:
    async with lone(tmp_path) as node:
        await node.fill(1, 100)
        segments = node.names("wal-*")
        await node.snapshots.take()
        assert node.names("wal-*") == segments, "one snapshot alone must not be relied on"
        await node.fill(1, 100)
        before = node.names("wal-*")
        await node.snapshots.take()
        await until(lambda: len(node.names("wal-*")) < len(before))
        await node.fill(1, 100)
        await node.snapshots.take()
        assert len(node.names()) == 2


@pytest.mark.parametrize("rounds", [1, 2, 4])
async def test_a_damaged_newest_snapshot_costs_nothing(tmp_path: Path, rounds: int) -> None:
    async with lone(tmp_path) as node:
        for _ in range(rounds):
            await node.fill(1, 60)
            await node.snapshots.take()
        await until(lambda: not node.disk.statistics().waiting)
        before, names = node.chunks(), node.names()
    newest = tmp_path / names[-1]
    data = bytearray(newest.read_bytes())
    data[600] ^= 1
    newest.write_bytes(data)
    async with lone(tmp_path) as node:
        await until(lambda: node.replica.last_applied == node.replica.node.log.last_index)
        assert node.chunks() == before
        assert node.names() == [*names[:-1], names[-1] + ".damaged"]


async def test_a_margin_stays_in_the_log(tmp_path: Path) -> None:
    async with lone(tmp_path, snapshot_margin_bytes=2_000) as node:
        await node.fill(1, 100)
        taken = await node.snapshots.take()
        log = node.replica.node.log
        margin = log.slice(Index(log.boundary.index + 1), 1 << 30, taken.meta.index)
        assert 1_700 < sum(len(entry.data) for entry in margin) <= 2_000
        kept = log.last_index - log.boundary.index
    async with lone(tmp_path, snapshot_margin_bytes=2_000) as node:
        log = node.replica.node.log
        assert 0 <= log.last_index - log.boundary.index - kept <= 2


async def test_what_a_follower_needs_after_the_one_on_its_way_stays(tmp_path: Path) -> None:
    async with lone(tmp_path) as node:
        await node.fill(1, 50)
        sent = await node.snapshots.take()
        with node.snapshots.hold(sent.meta):
            await node.fill(1, 50)
            await node.snapshots.take()
            assert node.replica.node.log.boundary == sent.meta
        await node.fill(1, 50)
        newest = await node.snapshots.take()
        assert node.replica.node.log.boundary == newest.meta


async def test_a_log_that_grew_far_beyond_the_bound_does_not_wait_for_a_follower(tmp_path: Path) -> None:
    async with lone(tmp_path, snapshot_bytes=4_000) as node:
        await node.fill(1, 10)
        with node.snapshots.hold(NO_SNAPSHOT):
            await node.fill(1, 400)
            await until(lambda: node.replica.node.log.boundary.index > 0)


async def test_who_asks_while_one_is_taken_gets_that_one(tmp_path: Path) -> None:
    files = Reluctant()
    async with lone(tmp_path, files) as node:
        await node.fill(1, 5)
        one, other = await asyncio.gather(node.snapshots.take(), node.snapshots.take())
        assert one is other
        again = await node.snapshots.take()
        assert again is one
        assert len(files.begun) == 1


async def test_a_full_disk_stops_no_node(tmp_path: Path) -> None:
    files = Reluctant()
    files.is_full = True
    async with lone(tmp_path, files, snapshot_bytes=8_000) as node:
        await node.fill(1, 5)
        with pytest.raises(SnapshotFailed, match="No space left"):
            await node.snapshots.take()
        await node.fill(1, 200)
        attempts = len(files.begun)
        assert 2 < attempts < 20, "tried again, but not with each entry"
        assert node.replica.node.log.boundary == NO_SNAPSHOT
        files.is_full = False
        await node.fill(1, 50)
        await until(lambda: len(node.names("*.snap")) >= 1)
        await until(lambda: node.replica.node.log.boundary.index > 0)


async def test_with_too_many_backups_under_way_it_is_tried_later(tmp_path: Path) -> None:
    async with lone(tmp_path, snapshot_bytes=8_000) as node:
        await node.fill(1, 5)
        backups = []
        with suppress(RuntimeError):
            while True:
                backups.append(node.machine.export())
        with pytest.raises(SnapshotFailed, match="read"):
            await node.snapshots.take()
        await node.fill(1, 100)
        assert node.names() == []
        for backup in backups:
            backup.close()
        await node.fill(1, 50)
        await until(node.names)


async def test_one_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    files = Reluctant()
    files.goes_on.clear()
    async with lone(tmp_path, files) as node:
        await node.fill(1, 5)
        taking = asyncio.create_task(node.snapshots.take())
        await until(lambda: files.begun)
        node.snapshots.abort()
        with pytest.raises(SnapshotFailed, match="given up"):
            await taking
        files.goes_on.set()
        await node.worker.do(lambda: None)
        assert node.names() == []
        taken = await node.snapshots.take()  # the machine can be exported again
        assert node.names() == [f"snapshot-{taken.meta.index:020}-{taken.meta.term:020}.snap"]


async def test_one_that_is_given_up_at_once(tmp_path: Path) -> None:
    async with lone(tmp_path) as node:
        await node.fill(1, 5)
        taking = asyncio.create_task(node.snapshots.take())
        await asyncio.sleep(0)
        node.snapshots.abort()
        with pytest.raises(SnapshotFailed, match="given up"):
            await taking
        await node.snapshots.take()


async def test_a_node_that_stops_takes_none(tmp_path: Path) -> None:
    async with lone(tmp_path) as node:
        node.snapshots.stop()
        await node.fill(1, 5)
        with pytest.raises(SnapshotFailed, match="stopping"):
            await node.snapshots.take()


@in_virtual_time
async def test_a_long_job_leaves_the_rest_of_the_time_to_others() -> None:
    loop, pace = asyncio.get_running_loop(), Pace(0.2)
    start_s = loop.time()
    for _ in range(5):
        with pace.work():
            sum(range(20_000))
        await pace.rest()
    assert loop.time() - start_s >= 4 * pace.longest_s


@in_virtual_time
async def test_what_is_sent_stays_below_its_rate_for_all_together() -> None:
    loop, bucket = asyncio.get_running_loop(), TokenBucket(1_000_000)
    start_s = loop.time()

    async def send(pieces: int) -> None:
        for _ in range(pieces):
            await bucket.take(10_000)

    await asyncio.gather(send(50), send(50), send(100))
    assert 1.8 < loop.time() - start_s < 2.1
