"""The lead goes where it is told to, and before a node stops: restarting all nodes loses no request."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, Node, running
from tests.cluster.load import Book, Load
from tests.cluster.roaming import Roaming

pytestmark = pytest.mark.cluster


async def hand_over(cluster: Cluster, through: Node, to: Node | None) -> str:
    body = json.dumps({} if to is None else {"id": to.name}).encode()
    reply = await cluster.request("POST", through, "/v1/cluster/leader", data=body)
    assert reply.status == 200, reply
    leader: str = reply.body["leader"]
    return leader


async def test_a_rolling_restart_loses_no_request(tmp_path: Path) -> None:
    """Each node in turn, the leader's turn whenever it comes; clients move on when they are told to."""
    async with running(tmp_path) as cluster:
        book = Book()
        async with Roaming(cluster.nodes, "load/", book=book, writers=6) as load:
            await load.acknowledged(20)
            for node in cluster.nodes:
                if node is cluster.nodes[-1]:
                    await hand_over(cluster, node, node)  # so that at least one leader is restarted
                node.signal(signal.SIGTERM)
                assert await node.exit_code() == 0
                await load.acknowledged(10)
                node.start()
                await cluster.caught_up(node)
            await load.acknowledged(10)
        assert not book.failures
        for node in cluster.nodes:
            await book.check(cluster, node, "load/")
            assert any(event["event"] == "stopping" for event in node.events())
        (over,) = [event for event in cluster.nodes[-1].events() if event["event"] == "handed over"]
        assert over["leader"] in ("n1", "n2")


async def test_the_lead_goes_round_under_load(tmp_path: Path) -> None:
    """Through any node, to any node; no request fails, and each write is there once."""
    async with running(tmp_path) as cluster:
        book = Book()
        async with Load(cluster.nodes, "load/", book=book, writers=6) as load:
            await load.acknowledged(50)
            for number in range(6):
                through, to = cluster.nodes[number % 3], cluster.nodes[(number + number // 3 + 1) % 3]
                assert await hand_over(cluster, through, to) == to.name
                assert await cluster.leader() is to
                await load.acknowledged(20)
            before = await cluster.leader()
            assert await hand_over(cluster, before, None) != before.name
        assert not book.failures
        for node in cluster.nodes:
            await book.check(cluster, node, "load/")


async def test_no_lead_for_who_is_down(tmp_path: Path) -> None:
    """It is tried, given up in time, and writes go on under the same leader in the same term."""
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        down, other = cluster.others(leader)
        down.kill()
        await down.exit_code()
        before = await cluster.status(leader)
        for through in (leader, other):
            body = json.dumps({"id": down.name}).encode()
            reply = await cluster.request("POST", through, "/v1/cluster/leader", data=body)
            assert (reply.status, reply.body["code"]) == (504, "timeout"), reply
            assert reply.body["leader"] == leader.name
        assert (await cluster.put(other, "key", "value")).status == 201
        after = await cluster.status(leader)
        assert before is not None
        assert after is not None
        assert (after["role"], after["term"]) == ("leader", before["term"])


async def test_who_stops_says_so_and_goes_on_serving(tmp_path: Path) -> None:
    """Until its last request is answered: here one that waits for a majority, which comes back."""
    async with running(tmp_path, options=["--drain-ms", "20000"]) as cluster:
        leader = await cluster.leader()
        others = cluster.others(leader)
        for node in others:
            node.signal(signal.SIGSTOP)
        reader, writer = await asyncio.open_connection("127.0.0.1", leader.port)
        waiting = asyncio.create_task(cluster.put(leader, "key", "value", "?timeout=20s"))

        async def waits() -> bool:
            status = await cluster.status(leader)
            return status is not None and status["waiting"]["commands"] + status["waiting"]["batches"] == 1

        await cluster.until(waits, "the write waits")
        leader.signal(signal.SIGTERM)

        async def refuses() -> bool:
            return await cluster.status(leader) is None

        await cluster.until(refuses, "new connections are refused")
        writer.write(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in answer
        writer.close()
        for node in others:
            node.signal(signal.SIGCONT)
        assert (await waiting).status == 201
        assert await leader.exit_code() == 0


async def test_the_lead_goes_first(tmp_path: Path) -> None:
    """Whatever the node then still waits for: here the rest of a request that never comes."""
    async with running(tmp_path, options=["--drain-ms", "600000"]) as cluster:
        leader = await cluster.leader()
        _, writer = await asyncio.open_connection("127.0.0.1", leader.port)
        writer.write(b"PUT /v1/kv/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf of it")
        await writer.drain()
        assert (await cluster.get(leader, "key")).status == 404  # so that it has heard of the other, too
        leader.signal(signal.SIGTERM)
        assert await cluster.leader(among=cluster.others(leader)) is not leader
        assert leader.alive
        leader.signal(signal.SIGTERM)
        assert await leader.exit_code() == 0
        writer.close()


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, again: signal.Signals) -> None:
    async with running(tmp_path, options=["--drain-ms", "600000"]) as cluster:
        leader = await cluster.leader()
        for node in cluster.others(leader):
            node.kill()
            await node.exit_code()
        waiting = asyncio.create_task(cluster.put(leader, "key", "value", "?timeout=30s"))

        async def waits() -> bool:
            status = await cluster.status(leader)
            return status is not None and status["waiting"]["commands"] + status["waiting"]["batches"] == 1

        await cluster.until(waits, "the write waits")
        leader.signal(signal.SIGTERM)
        await cluster.until(
            lambda: any(event["event"] == "stopping" for event in leader.events()), "it begins to stop"
        )
        leader.signal(again)
        reply = await waiting
        assert (reply.status, reply.body["code"]) == (503, "shutting_down")
        assert await leader.exit_code() == 0


async def test_told_to_stop_as_soon_as_it_has_read_its_log(tmp_path: Path) -> None:
    """It has promised nothing to anybody yet: it just ends."""
    async with running(tmp_path, size=1) as cluster:
        (node,) = cluster.nodes
        node.signal(signal.SIGTERM)
        assert await node.exit_code() == 0
        lines = len(node.log_lines())
        node.start()
        await cluster.until(lambda: len(node.log_lines()) > lines, "it has read its log")
        node.signal(signal.SIGTERM)
        assert await node.exit_code() == 0
