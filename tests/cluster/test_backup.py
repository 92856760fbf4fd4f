"""A backup of a cluster at work, and the new cluster that is made from it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import Cluster, Node, running
from tests.cluster.load import Book, Load

pytestmark = pytest.mark.cluster

KEYS = 10_000
WRITERS = 48
LOAD_DEADLINE_S = 240.0  # five seconds on a quiet machine
BUMP_REVISION = 1_000_000


async def raftkv(*arguments: object) -> dict[str, Any]:
    """What the command says; it must do what it is told."""
    command = (sys.executable, "-m", "raftkv", *map(str, arguments), "--output", "json")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    done: dict[str, Any] = json.loads(out)
    return done


async def backup(cluster: Cluster, path: Path) -> dict[str, Any]:
    endpoints = ",".join(node.url for node in cluster.nodes)
    return await raftkv("backup", path, "--endpoints", endpoints)


async def restore(path: Path, node: Node, *options: object) -> dict[str, Any]:
    named = ("--data-dir", node.data_dir, "--id", node.name, "--cluster", node.cluster)
    return await raftkv("restore", path, *named, *options)


async def test_a_cluster_restored_from_a_backup_under_load_has_all_of_it(tmp_path: Path) -> None:
    path, book = tmp_path / "backup.snap", Book()
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    async with running(tmp_path / "old") as old:
        first, *_ = old.nodes
        for value in ("one", "two"):  # versions, deletions and types are to come through too
            for number in range(20):
                await old.put(first, f"mine/{number:02}", value)
        for number in range(5):
            await old.request("DELETE", first, f"/v1/kv/mine/{number:02}")
        async with Load(old.nodes, "load/", book=book, writers=WRITERS) as load:
            await load.acknowledged(KEYS, deadline_s=LOAD_DEADLINE_S)
            before = list(book.acknowledged)
            done = await backup(old, path)
            await load.acknowledged(100)
        assert not book.failures
        held = await old.items(first, "")
        old_id = ((await old.status(first)) or {})["cluster_id"]
    expected = {key: item for key, item in held.items() if item["mod_revision"] <= done["revision"]}
    assert KEYS < done["keys"] == len(expected) < len(held), "of one moment, and the load went on"
    assert set(before) <= expected.keys(), "what was acknowledged before is in it"
    async with running(tmp_path / "new", start=False) as new:
        made = [await restore(path, node, "--bump-revision", BUMP_REVISION) for node in new.nodes]
        assert len({one["cluster_id"] for one in made}) == 1
        for node in new.nodes:
            node.start()
        leader = await new.leader()
        for node in new.nodes:
            assert await new.items(node, "") == expected
        status = await new.status(leader)
        assert status is not None
        assert status["cluster_id"] == made[0]["cluster_id"] != old_id
        reply = await new.put(leader, "mine/07", "three")
        assert (reply.body["version"], reply.body["created"]) == (3, False)
        assert reply.body["revision"] == done["revision"] + BUMP_REVISION + 1
        for node in new.nodes:  # an old cluster's sessions would swallow these
            assert (await new.put(node, f"new/{node.name}", "x")).status == 201
        for node in new.nodes:
            node.kill()
            await node.exit_code()
            node.start()
        await new.leader()
        assert (await new.get(leader, "mine/07")).raw == b"three"


async def test_the_old_clusters_nodes_are_strangers_even_with_their_names_and_addresses(
    tmp_path: Path,
) -> None:
    path = tmp_path / "backup.snap"
    async with running(tmp_path) as cluster:
        one, two, three = cluster.nodes
        await cluster.put(one, "key", "old")
        await backup(cluster, path)
        await cluster.put(one, "key", "after the backup")
        for node in cluster.nodes:
            node.kill()
            await node.exit_code()
        for node in (one, two):
            node.data_dir = tmp_path / "new" / node.name
            await restore(path, node)
        for node in cluster.nodes:  # the third with its old directory
            node.start()
        await cluster.leader(among=[one, two])

        def refused() -> bool:
            return any("cluster" in str(event.get("reason", "")) for event in three.events())

        await cluster.until(refused, "the old n3 is told that this is another cluster")
        assert (await cluster.get(one, "key")).raw == b"old"
        status = await cluster.status(three)
        assert status is not None
        assert status["leader"] is None
