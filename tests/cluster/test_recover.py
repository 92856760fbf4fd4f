"""The majority is lost for good: a new cluster begins with what one survivor holds."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from raftkv.testing.cluster import free_ports
from tests.cluster.harness import Cluster, Node, running
from tests.cluster.load import Book, Load
from tests.cluster.test_members import add, all_vote, newcomer

pytestmark = pytest.mark.cluster

BUMP_REVISION = 1_000_000
OPTIONS = ("--snapshot-bytes", "20000", "--snapshot-margin-bytes", "1000")


async def recover(survivor: Node, heir: Node, *options: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, what it says, and its complaints."""
    arguments = ("--data-dir", survivor.data_dir, "--new-data-dir", heir.data_dir, "--id", heir.name)
    command = ("recover", *map(str, arguments), "--cluster", heir.cluster, "--output", "json", *options)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "raftkv", *command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, json.loads(out) if out else {}, err.decode()


def heir_of(cluster: Cluster, name: str) -> Node:
    port, peer_port = free_ports(2)
    path = cluster.directory
    own = f"{name}=127.0.0.1:{peer_port}"
    return Node(name, port, peer_port, path / f"new-{name}", path / f"new-{name}.log", own)


def contents(directory: Path) -> dict[str, bytes]:
    """But for the lock, which says who used it last."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "LOCK"}


async def test_a_survivor_of_a_lost_majority_begins_a_new_cluster(tmp_path: Path) -> None:
    async with running(tmp_path, options=OPTIONS) as cluster:
        book = Book()
        async with Load(cluster.nodes, "load/", book=book) as load:
            await load.acknowledged(1_000)
        assert not book.failures
        n1, n2, n3 = cluster.nodes
        for node in cluster.nodes:
            await cluster.caught_up(node)
        held = await cluster.items(n1, "")
        for node in cluster.nodes:
            node.kill()
            await node.exit_code()
        assert list(n1.data_dir.glob("snapshot-*.snap")), "all that it holds is in the log"
        for lost in (n2, n3):
            cluster.nodes.remove(lost)
        shutil.rmtree(n2.data_dir)
        cluster.nodes.remove(n1)
        heir = heir_of(cluster, "n1")

        before = contents(n1.data_dir)
        code, said, complaint = await recover(n1, heir)
        assert (code, said["cluster_id"]) == (1, None)
        assert "--force-new-cluster" in complaint
        assert "May be lost" in said["warning"]
        assert not heir.data_dir.exists()

        bump = ("--bump-revision", str(BUMP_REVISION))
        code, said, complaint = await recover(n1, heir, "--force-new-cluster", *bump)
        assert code == 0, complaint
        assert said["keys"] == len(held)
        assert contents(n1.data_dir) == before, "the survivor's own is as it was"
        code, _, complaint = await recover(n1, heir, "--force-new-cluster")
        assert code == 1
        assert "isn't empty" in complaint

        cluster.nodes.append(heir)
        heir.start()
        assert await cluster.leader() is heir
        assert await cluster.items(heir, "") == held
        reply = await cluster.put(heir, "after", "v")
        assert reply.status == 201
        assert reply.body["revision"] > BUMP_REVISION + max(item["mod_revision"] for item in held.values())

        n4 = newcomer(cluster, "n4", heir)
        await cluster.serves_or_ended(n4)
        assert (await add(cluster, n4, heir)).status == 200
        await all_vote(cluster, heir, "n1", "n4")
        assert (await cluster.items(n4, "")).keys() == {*held, "after"}


async def test_a_node_that_runs_is_not_recovered_from(tmp_path: Path) -> None:
    async with running(tmp_path, size=1) as cluster:
        (n1,) = cluster.nodes
        heir = heir_of(cluster, "n1")
        code, _, complaint = await recover(n1, heir, "--force-new-cluster")
        assert code == 1
        assert "in use by process" in complaint
        assert not heir.data_dir.exists()
