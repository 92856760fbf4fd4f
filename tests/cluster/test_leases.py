"""Leases and locks on real nodes that are killed: no lease ends early, and no lock has two holders.

What is said here of time is what holders rely on: by their own clock, from when they *sent* what was
answered.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.cluster.harness import Cluster, Node, Reply, running, until

pytestmark = pytest.mark.cluster


async def post(cluster: Cluster, node: Node, path: str, **body: object) -> Reply:
    return await cluster.request("POST", node, path, json=body)


async def test_no_new_leader_shortens_a_lease(tmp_path: Path) -> None:
    """The leader dies in the middle of two, of which one was kept alive before."""
    ttl_s = 3.0
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        others = cluster.others(leader)
        sent_s = {}
        for name, node in zip(("kept", "left"), others, strict=True):
            sent_s[name] = time.monotonic()
            granted = await post(cluster, node, "/v1/leases", ttl=f"{round(ttl_s * 1000)}ms")
            assert granted.status == 201
            lease = granted.body["lease"]
            assert (await cluster.put(leader, name, "v", f"?lease={lease}")).status == 201
            shown = (await cluster.request("GET", leader, f"/v1/leases/{lease}")).body
            assert (shown["exact"], shown["keys"]) == (True, [{"key": name}])
            assert shown["remaining_ms"] <= ttl_s * 1000
            if name == "kept":
                sent_s[name] = time.monotonic()
                assert (await post(cluster, node, f"/v1/leases/{lease}/keepalive")).status == 200
        leader.kill()

        async def gone(name: str) -> None:
            async def is_gone() -> bool:
                return (await cluster.get(others[0], name, "?timeout=20s")).status == 404

            await cluster.until(is_gone, "the lease ends")
            assert time.monotonic() >= sent_s[name] + ttl_s

        await asyncio.gather(*map(gone, sent_s))
        reply = await cluster.request("GET", others[1], f"/v1/leases/{lease}?timeout=20s")
        assert (reply.status, reply.body["code"]) == (404, "no_such_lease")


TTL_S = 1.5


@dataclass(frozen=True)
class Held:
    """From ``begun_s`` to ``ended_s`` somebody was sure that the lock was its own."""

    token: int
    begun_s: float
    ended_s: float


class Contender:
    """Acquires a lock again and again. Sometimes it goes away without a word."""

    def __init__(self, cluster: Cluster, number: int, held: list[Held]) -> None:
        self._cluster = cluster
        self._random = Random(number)
        self._held = held
        self.stopping = False

    async def run(self) -> None:
        while not self.stopping:
            node = self._random.choice(self._cluster.nodes)
            try:
                await self._once(node)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0)  # the node is dead, or has just died: another one

    async def _once(self, node: Node) -> None:
        reply = await post(self._cluster, node, "/v1/locks/job?wait=5s", ttl=f"{round(TTL_S * 1000)}ms")
        if reply.status != 200:
            assert reply.status in (404, 409, 503, 504), reply
            return
        lease, token = reply.body["lease"], reply.body["fencing_token"]
        sure_until_s, begun_s = 0.0, 0.0
        for _ in range(self._random.randrange(1, 3)):
            sent_s = time.monotonic()
            reply = await post(self._cluster, node, f"/v1/leases/{lease}/keepalive")
            if reply.status != 200:
                break
            sure_until_s = sent_s + TTL_S
            begun_s = begun_s or time.monotonic()
        if not begun_s:
            return
        if self._random.random() < 0.08:
            self._held.append(Held(token, begun_s, sure_until_s))
            return  # it was killed, and nobody knows
        self._held.append(Held(token, begun_s, min(sure_until_s, time.monotonic())))
        await self._cluster.request("DELETE", node, f"/v1/locks/job?fencing_token={token}")


async def test_a_lock_has_one_holder_at_a_time_and_its_tokens_grow(tmp_path: Path) -> None:
    held: list[Held] = []
    async with running(tmp_path) as cluster:
        contenders = [Contender(cluster, number, held) for number in range(4)]
        tasks = [asyncio.create_task(each.run()) for each in contenders]
        for _ in range(2):
            enough = len(held) + 4
            await cluster.until(lambda: len(held) >= enough, "the lock goes round")  # noqa: B023
            victim = await cluster.leader()
            victim.kill()
            enough = len(held) + 4
            await cluster.until(lambda: len(held) >= enough, "the lock goes round without it")  # noqa: B023
            await victim.exit_code()
            victim.start()
        for each in contenders:
            each.stopping = True
        await asyncio.gather(*tasks)
        await _command_line(cluster, tmp_path)
    held.sort(key=lambda each: each.begun_s)
    for one, next_one in pairwise(held):
        assert one.ended_s <= next_one.begun_s, "two were sure that it is theirs"
        assert one.token < next_one.token


async def _command_line(cluster: Cluster, directory: Path) -> None:
    """``raftkv lock``: two of them, one after the other; then one that is killed."""
    endpoints = ",".join(node.url for node in cluster.nodes)

    async def lock(script: str, *options: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "raftkv", "lock", "cron", "--endpoints", endpoints, *options, "--", "sh", "-c", script),
            stdout=asyncio.subprocess.PIPE,
        )

    guarded = directory / "guarded"
    script = f"mkdir {guarded} && echo $RAFTKV_FENCING_TOKEN && rmdir {guarded}"
    several = [await lock(script) for _ in range(2)]
    tokens = []
    for process in several:
        output, _ = await process.communicate()
        assert process.returncode == 0, "mkdir fails where another is within"
        tokens.append(int(output))
    assert len(set(tokens)) == 2

    began = directory / "began"
    killed = await lock(f"echo $PPID > {began}; exec sleep 60", "--ttl", "1s")
    await until(lambda: began.exists() and began.read_text().endswith("\n"), "the command runs")
    killed.kill()
    await killed.wait()
    process = await lock("echo $RAFTKV_FENCING_TOKEN")
    output, _ = await process.communicate()
    assert int(output) > max(tokens)
