"""Nodes that die and come back: all at once, and one that was away for long."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, running
from tests.cluster.load import Book, Load

pytestmark = pytest.mark.cluster


async def crash_all(cluster: Cluster, chance: random.Random) -> None:
    for node in chance.sample(cluster.nodes, len(cluster.nodes)):
        node.kill()
    for node in cluster.nodes:
        assert await node.exit_code() == -signal.SIGKILL
        node.start()
    await cluster.leader()


async def test_kill_9_of_all_at_once_under_load(tmp_path: Path) -> None:
    """NB: this spares the page cache; that fsync is called, and waited for, is test_disk.py's."""
    chance = random.Random(4)
    async with running(tmp_path, options=("--segment-bytes", "16384")) as cluster:
        book = Book()
        for number in range(4):
            async with Load(cluster.nodes, f"load/{number}/", book=book, writers=12) as load:
                await load.acknowledged(chance.randint(50, 300))
                await crash_all(cluster, chance)
            await book.check(cluster, cluster.nodes[number % 3], "load/")
        for node in cluster.nodes:
            await book.check(cluster, node, "load/")
        assert len(list(cluster.nodes[0].data_dir.glob("*.log"))) > 3, "nothing was kept in several segments"


async def test_a_node_that_was_away_for_long(tmp_path: Path) -> None:
    """It catches up while the load goes on, and then counts: it is half of the majority."""
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        away, other = cluster.others(leader)
        away.kill()
        await away.exit_code()
        book = Book()
        async with Load([leader, other], "large/", book=book, writers=6, value_bytes=32_000) as load:
            await load.acknowledged(250)
        async with Load([leader, other], "small/", book=book, writers=12) as load:
            await load.acknowledged(2_000)
            away.start()
            await cluster.caught_up(away)
            await load.acknowledged(100)
        assert not book.failures
        other.kill()
        await book.check(cluster, away, "")
        assert (await cluster.put(away, "after", "all")).status == 201


@pytest.mark.parametrize("leads", [True, False], ids=["the leader is left", "a follower is left"])
async def test_a_minority_says_so(tmp_path: Path, leads: bool) -> None:
    """With two of three dead: no write, no linearizable read, within the request's own timeout."""
    async with running(tmp_path) as cluster:
        assert (await cluster.put(cluster.nodes[0], "key", "value")).status == 201
        leader = await cluster.leader()
        left = leader if leads else cluster.others(leader)[0]
        await cluster.caught_up(left)
        for node in cluster.others(left):
            node.kill()
            await node.exit_code()
        # NB: the first request may still meet a leader that hasn't noticed; all must answer in time.
        async with asyncio.timeout(2.5):
            written, read = await asyncio.gather(
                cluster.put(left, "minority", "?", "?timeout=1s"), cluster.get(left, "key", "?timeout=1s")
            )
        assert written.status == read.status == 503
        assert read.body["outcome"] == "not_applied"
        assert written.body["outcome"] in ("unknown", "not_applied")
        stale = await cluster.get(left, "key", "?consistency=stale")
        assert (stale.status, stale.raw) == (200, b"value")
        assert int(stale.headers["Raftkv-Staleness-Ms"]) > 0
        assert (await cluster.request("GET", left, "/livez")).status == 200
        assert (await cluster.request("GET", left, "/readyz")).status == 503
        back = cluster.others(left)[0]
        back.start()
        await cluster.leader()
        assert (await cluster.put(left, "key", "again")).status == 200
        assert (await cluster.get(back, "key")).raw == b"again"
        later = await cluster.get(back, "minority")
        if written.body["outcome"] == "not_applied":
            assert later.status == 404
        assert (await cluster.request("GET", left, "/readyz")).status == 200
