"""Snapshots of real nodes: taken, started from, and sent to who is behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, Node, running
from tests.cluster.load import Book, Load

pytestmark = pytest.mark.cluster

OFTEN = ("--segment-bytes", "16384", "--snapshot-bytes", "100000", "--snapshot-margin-bytes", "20000")


async def has_taken(cluster: Cluster, node: Node) -> bool:
    status = await cluster.status(node)
    return status is not None and status["snapshot"]["index"] is not None


async def test_kill_9_of_all_under_load_with_snapshots_all_the_time(tmp_path: Path) -> None:
    async with running(tmp_path, options=OFTEN) as cluster:
        book = Book()
        for number in range(3):
            async with Load(cluster.nodes, f"load/{number}/", book=book, writers=12) as load:
                await load.acknowledged(1_000)
                for node in cluster.nodes:
                    node.kill()
                for node in cluster.nodes:
                    await node.exit_code()
                    node.start()
                await cluster.leader()
        for node in cluster.nodes:
            await book.check(cluster, node, "load/")
            events = [event["event"] for event in node.events()]
            assert events.count("snapshot taken") > 3
            starts = [event for event in node.events() if event["event"] == "recovered"]
            assert starts[-1]["snapshot_index"] > starts[1]["snapshot_index"] > 0
            segments = sorted(path.name for path in node.data_dir.glob("wal-*.log"))
            assert not segments[0].startswith("wal-0000000001-"), "the log's beginning never went"
            assert len(list(node.data_dir.glob("snapshot-*"))) <= 3  # two, and one under way


async def test_on_request(tmp_path: Path) -> None:
    async with running(tmp_path, size=1) as cluster:
        (node,) = cluster.nodes
        assert (await cluster.put(node, "key", "value")).status == 201
        taken = await cluster.request("POST", node, "/v1/snapshot")
        assert taken.status == 200
        status = await cluster.status(node)
        assert status is not None
        assert taken.body["index"] == status["last_applied"] == status["snapshot"]["index"]
        assert taken.body["bytes"] == status["snapshot"]["bytes"]
        assert status["log"]["begins_after"] == 0, "the margin is larger than all of it"
        (path,) = node.data_dir.glob("snapshot-*")
        assert path.stat().st_size == taken.body["bytes"]
        node.kill()
        await node.exit_code()
        node.start()
        await cluster.leader()
        assert (await cluster.get(node, "key")).raw == b"value"
        assert [e["snapshot_index"] for e in node.events() if e["event"] == "recovered"][-1] == taken.body[
            "index"
        ]
