"""The leader dies, or stands still: nobody's write fails, none is lost, none happens twice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.cluster.harness import Cluster, Node, running
from tests.cluster.load import Book, Load

pytestmark = pytest.mark.cluster


async def test_kill_9_of_the_leader_under_load(tmp_path: Path) -> None:
    """Through the two others no request fails, and the dead one comes back."""
    async with running(tmp_path) as cluster:
        book = Book()
        for number in range(3):
            leader = await cluster.leader()
            survivors = cluster.others(leader)
            async with Load(survivors, f"load/{number}/", book=book) as load:
                await load.acknowledged(200)
                leader.kill()
                await load.acknowledged(200)
                assert await leader.exit_code() == -signal.SIGKILL
                leader.start()
                await cluster.caught_up(leader)
            assert not book.failures
            for node in survivors:
                await book.check(cluster, node, "load/")
        for node in cluster.nodes:
            await book.check(cluster, node, "load/")


async def test_a_leader_that_stood_still(tmp_path: Path) -> None:
    """SIGSTOP of the leader: the others go on. Awake again, it must not answer from its memory.

    The reads wait in its sockets before it wakes, so it sees them first: before the new leader's messages,
    and while it still believes that it leads.
    """
    async with running(tmp_path) as cluster:
        for number in range(3):
            leader = await cluster.leader()
            others = cluster.others(leader)
            assert (await cluster.put(leader, "key", f"old {number}")).status in (200, 201)
            leader.signal(signal.SIGSTOP)
            await cluster.leader(among=others)
            assert (await cluster.put(others[0], "key", f"new {number}")).status == 200
            reads = await asyncio.gather(*(ask(leader, "/v1/kv/key?timeout=3s") for _ in range(50)))
            writes = [
                asyncio.create_task(cluster.put(leader, f"late/{number}/{i}", "late", "?timeout=3s"))
                for i in range(20)
            ]
            leader.signal(signal.SIGCONT)
            after = await asyncio.gather(*(cluster.get(leader, "key") for _ in range(50)))
            assert {reply.raw for reply in after} == {b"new %d" % number}
            for reader, writer in reads:
                answer = await reader.read()
                assert answer.startswith(b"HTTP/1.1 503") or answer.endswith(b"\r\n\r\nnew %d" % number)
                writer.close()
            # Writes that it took while it believed to lead are handed to the new leader, once.
            assert {(reply.status, reply.body["version"]) for reply in await asyncio.gather(*writes)} == {
                (201, 1)
            }
            await cluster.leader()
            await cluster.caught_up(leader)


async def ask(node: Node, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A GET that has left and is not waited for: its bytes lie in the socket even of a stopped node."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def test_appends_by_compare_and_swap_form_one_history(tmp_path: Path) -> None:
    """Clients append tokens to one value, through all nodes, while leaders are killed.

    The value is its own history: every read and every acknowledged append must be a prefix of the last one,
    no shorter than what was known when it was asked for (that is linearizability, for this object).
    """
    async with running(tmp_path) as cluster:
        assert (await cluster.put(cluster.nodes[0], "log", "")).status == 201
        history = _History()
        appenders = [asyncio.create_task(_append(cluster, history, number)) for number in range(9)]
        for _ in range(3):
            seen = history.known_tokens + 20
            await cluster.until(lambda seen=seen: history.known_tokens >= seen, f"{seen} appends")  # type: ignore[misc]
            leader = await cluster.leader()
            leader.kill()
            seen = history.known_tokens + 20
            await cluster.until(lambda seen=seen: history.known_tokens >= seen, f"{seen} appends")  # type: ignore[misc]
            await leader.exit_code()
            leader.start()
            await cluster.leader()
        history.over = True
        await asyncio.gather(*appenders)
        last = (await cluster.get(cluster.nodes[0], "log")).raw.decode().split()
        assert len(set(last)) == len(last), "a token was appended twice"
        assert set(history.appended) <= set(last) <= set(history.appended) | history.unknown
        assert all(prefix == last[: len(prefix)] for prefix in history.prefixes)
        assert len(last) > 100


class _History:
    """What the appenders know together."""

    def __init__(self) -> None:
        self.over = False
        self.appended: list[str] = []
        self.unknown: set[str] = set()
        self.prefixes: list[list[str]] = []  # everything that anybody read or wrote
        self.known_tokens = 0  # the length of the longest of them: what is asked from now on must see that

    def saw(self, text: str, at_least: int) -> None:
        tokens = text.split()
        assert len(tokens) >= at_least, f"read {len(tokens)} tokens where {at_least} were known before"
        self.prefixes.append(tokens)
        self.known_tokens = max(self.known_tokens, len(tokens))


async def _append(cluster: Cluster, history: _History, number: int) -> None:
    """Append one token after the other, each through the next living node."""
    attempt = 0
    while not history.over:
        attempt += 1
        node, token = cluster.nodes[(number + attempt) % len(cluster.nodes)], f"{number}.{attempt}"
        await _append_once(cluster, history, node, token)


async def _append_once(cluster: Cluster, history: _History, node: Node, token: str) -> None:
    known = history.known_tokens
    try:
        read = await cluster.get(node, "log")
        if read.status != 200:
            return
        history.saw(read.raw.decode(), known)
        known, new = history.known_tokens, f"{read.raw.decode()} {token}"
        history.unknown.add(token)
        written = await cluster.put(node, "log", new, f"?if_revision={read.headers['Raftkv-Mod-Revision']}")
    except (aiohttp.ClientError, TimeoutError):
        return  # the node is down, or died meanwhile
    if written.status == 200:
        history.unknown.discard(token)
        history.appended.append(token)
        history.saw(new, known)
    elif written.status == 412 or written.body.get("outcome") == "not_applied":
        history.unknown.discard(token)
