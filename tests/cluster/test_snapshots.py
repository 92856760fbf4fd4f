"""Snapshots of real nodes: taken, started from, and sent to who is behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.disks import limit_files
from tests.cluster.harness import Cluster, Node, running
from tests.cluster.load import Book, Load

pytestmark = pytest.mark.cluster

OFTEN = ("--segment-bytes", "16384", "--snapshot-bytes", "100000", "--snapshot-margin-bytes", "20000")


SLOWLY = (*OFTEN, "--snapshot-send-bytes-per-s", "150000")
GROWS = "; the log grows on until the next is tried"


async def test_kill_9_of_all_under_load_with_snapshots_all_the_time(tmp_path: Path) -> None:
    async with running(tmp_path, options=(*OFTEN, "--snapshot-bytes", "25000")) as cluster:
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


async def far_ahead_of(cluster: Cluster, away: Sequence[Node], book: Book, prefix: str, values: int) -> None:
    """With ``away`` dead, write on until the others' logs begin far after what those have."""
    living = cluster.others(*away)
    before = await cluster.status(await cluster.leader(living))
    assert before is not None
    async with Load(living, prefix, book=book, writers=12, value_bytes=1_000) as load:
        await load.acknowledged(values)

        async def beyond() -> bool:
            statuses = [await cluster.status(node) for node in living]
            return all(s and s["log"]["begins_after"] > before["last_index"] for s in statuses)

        await cluster.until(beyond, "the log begins after what the others have")


def told(node: Node, event: str) -> list[dict[str, Any]]:
    return [each for each in node.events() if each["event"] == event]


async def test_one_that_was_away_gets_a_snapshot_and_then_entries(tmp_path: Path) -> None:
    async with running(tmp_path, options=OFTEN) as cluster:
        book = Book()
        away = cluster.others(await cluster.leader())[0]
        for number in range(2):  # the second time it has a snapshot of its own
            away.kill()
            await away.exit_code()
            await far_ahead_of(cluster, [away], book, f"load/{number}/", 500)
            async with Load(cluster.others(away), f"more/{number}/", book=book) as load:
                away.start()
                await cluster.caught_up(away)
                await load.acknowledged(50)
            assert len(told(away, "snapshot installed")) == number + 1
        assert not book.failures
        away.kill()
        await away.exit_code()
        away.start()
        await cluster.caught_up(away)
        await book.check(cluster, away, "")
        cluster.others(away)[0].kill()
        assert (await cluster.put(away, "after", "all")).status == 201


async def being_sent(cluster: Cluster, away: Node) -> None:
    """Wait until ``away`` has a part of a snapshot, and not all."""

    async def begun() -> bool:
        status = await cluster.status(away)
        coming = status and status["snapshot"]["receiving"]
        return bool(coming and coming["received_bytes"])

    await cluster.until(begun, f"{away.name} has a part of a snapshot")
    assert not told(away, "snapshot installed")


async def ready_to_send(cluster: Cluster, book: Book, away: int = 1) -> list[Node]:
    """As many followers were killed, and started again when they needed a snapshot."""
    nodes = cluster.others(await cluster.leader())[:away]
    for node in nodes:
        node.kill()
        await node.exit_code()
    await far_ahead_of(cluster, nodes, book, "load/", 400)
    for node in nodes:
        node.start()
    return nodes


async def test_the_leader_dies_in_the_middle(tmp_path: Path) -> None:
    async with running(tmp_path, options=SLOWLY) as cluster:
        book = Book()
        (away,) = await ready_to_send(cluster, book)
        leader = await cluster.leader()
        await being_sent(cluster, away)
        leader.kill()
        await leader.exit_code()
        await cluster.leader()
        await cluster.caught_up(away)
        (installed,) = told(away, "snapshot installed")
        assert installed["sender"] not in (leader.name, away.name)
        assert not list(away.data_dir.glob("*.tmp"))
        await book.check(cluster, away, "")


async def test_another_leads_in_the_middle(tmp_path: Path) -> None:
    async with running(tmp_path, options=SLOWLY) as cluster:
        book = Book()
        (away,) = await ready_to_send(cluster, book)
        leader = await cluster.leader()
        (other,) = cluster.others(leader, away)
        await being_sent(cluster, away)
        handed = await cluster.request("POST", leader, "/v1/cluster/leader", json={"id": other.name})
        assert handed.status == 200
        await cluster.caught_up(away)
        (installed,) = told(away, "snapshot installed")
        assert installed["sender"] == other.name
        status = await cluster.status(leader)
        assert status is not None
        assert status["snapshot"]["sending"] == {}
        await book.check(cluster, away, "")


async def test_the_follower_dies_in_the_middle(tmp_path: Path) -> None:
    async with running(tmp_path, options=SLOWLY) as cluster:
        book = Book()
        (away,) = await ready_to_send(cluster, book)
        await being_sent(cluster, away)
        away.kill()
        await away.exit_code()
        assert list(away.data_dir.glob("snapshot-*.tmp"))
        away.start()
        await cluster.caught_up(away)
        assert not list(away.data_dir.glob("*.tmp"))
        await book.check(cluster, away, "")


async def test_several_at_once_and_no_heartbeat_waits(tmp_path: Path) -> None:
    async with running(tmp_path, size=5, options=SLOWLY) as cluster:
        book = Book()
        away = await ready_to_send(cluster, book, away=2)
        leader = await cluster.leader()
        before = await cluster.status(leader)
        assert before is not None

        async def both() -> bool:
            status = await cluster.status(leader)
            ways = status["snapshot"]["sending"] if status else {}
            return len(ways) == 2 and all(way["sent_bytes"] for way in ways.values())

        await cluster.until(both, "both are sent a snapshot")
        for node in away:
            await cluster.caught_up(node)
            assert len(told(node, "snapshot installed")) == 1
        after = await cluster.status(leader)
        assert after is not None
        assert (after["role"], after["term"]) == ("leader", before["term"])
        await book.check(cluster, away[0], "")


async def test_a_disk_that_is_full_for_a_snapshot(tmp_path: Path) -> None:
    """The node goes on without its own, and refuses a leader's, until there is room."""
    async with running(tmp_path, options=SLOWLY) as cluster:
        book = Book()
        away = cluster.others(await cluster.leader())[0]
        limit_files(away, 200_000)
        async with Load(cluster.nodes, "load/", book=book, writers=12, value_bytes=1_000) as load:
            await load.acknowledged(400)
            await cluster.until(lambda: bool(told(away, "snapshot failed" + GROWS)), "a snapshot failed")
            await load.acknowledged(50)
        assert not book.failures
        away.kill()
        await away.exit_code()
        await far_ahead_of(cluster, [away], book, "more/", 300)
        away.start()
        await being_sent(cluster, away)
        lift = limit_files(away, 50_000)
        await cluster.until(lambda: bool(told(away, "a snapshot can't be received")), "it is refused")
        assert not told(away, "snapshot installed")
        lift()
        await cluster.caught_up(away)
        assert len(told(away, "recovered")) == 2, "it never stopped by itself"
        await book.check(cluster, away, "")
