"""SIGTERM ends a node cleanly, whatever it is doing; clusters of one and of five nodes serve."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.cluster.harness import running
from tests.cluster.load import Book, Load

pytestmark = pytest.mark.cluster


async def test_sigterm_under_load(tmp_path: Path) -> None:
    """Exit code 0, and no promise forgotten. Through the others no request fails when a node leaves."""
    async with running(tmp_path) as cluster:
        book, others_book = Book(), Book()
        for number in range(2):
            leader = await cluster.leader()
            others = cluster.others(leader)
            async with (
                Load(others, f"others/{number}/", book=others_book) as other_load,
                Load([leader], f"own/{number}/", book=book) as load,
            ):
                await load.acknowledged(50)
                leader.signal(signal.SIGTERM)
                assert await leader.exit_code() == 0
                await other_load.acknowledged(100)
            assert not others_book.failures
            leader.start()
            await cluster.caught_up(leader)
        for node in cluster.nodes:
            await book.check(cluster, node, "own/")
            await others_book.check(cluster, node, "others/")


async def test_sigterm_answers_requests_in_flight(tmp_path: Path) -> None:
    """Without a majority writes and reads wait; a node that stops tells them what became of them, in time."""
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        for node in cluster.others(leader):
            node.kill()
            await node.exit_code()
        requests = [cluster.put(leader, f"key/{i}", "?", "?timeout=30s") for i in range(5)]
        requests += [cluster.get(leader, "key", "?timeout=30s") for _ in range(5)]
        tasks = [asyncio.create_task(request) for request in requests]

        async def all_wait() -> bool:
            status = await cluster.status(leader)
            assert status is not None
            waiting = status["waiting"]
            return bool(waiting["commands"] + waiting["batches"] and waiting["barriers"] == 5)

        await cluster.until(all_wait, "the requests wait at the node")
        leader.signal(signal.SIGTERM)
        replies = await asyncio.gather(*tasks)
        assert {(reply.status, reply.body["code"]) for reply in replies} == {(503, "shutting_down")}
        assert {reply.body["outcome"] for reply in replies[5:]} == {"not_applied"}
        assert await leader.exit_code() == 0


async def test_sigterm_does_not_wait_for_a_client_that_stalls(tmp_path: Path) -> None:
    """Half a request, and then nothing: a node that stops owes it nothing."""
    async with running(tmp_path, size=1) as cluster:
        (node,) = cluster.nodes
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(b"PUT /v1/kv/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf of it")
        await writer.drain()
        assert (await cluster.put(node, "key", "value")).status == 201
        node.signal(signal.SIGTERM)
        assert await node.exit_code(8.0) == 0  # docker stop kills after 10 s
        writer.close()


@pytest.mark.parametrize("size", [1, 5])
async def test_other_sizes(tmp_path: Path, size: int) -> None:
    """Elects, serves through every node, and loses what it may lose: two of five, none of one."""
    async with running(tmp_path, size) as cluster:
        book = Book()
        leader = await cluster.leader()
        first, second = (leader, cluster.others(leader)[0]) if size == 5 else (None, None)
        living = [node for node in cluster.nodes if node not in (first, second)]
        async with Load(living, "load/", book=book, writers=6) as load:
            await load.acknowledged(100)
            for node in (first, second):
                if node is not None:
                    node.kill()
            await load.acknowledged(100)
        assert not book.failures
        for node in living:
            await book.check(cluster, node, "load/")
