"""Nodes within this program: the example of docs/embedding.md, and what it doesn't show."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from raftkv import Node, RaftkvError, node_config
from raftkv.config import Config
from raftkv.errors import BadRequest, StartError
from raftkv.testing.cluster import free_ports
from tests.kv.test_hosted import Words

DOCUMENT = Path(__file__).parents[2] / "docs" / "embedding.md"
DEADLINE_S = 30.0


def configs(directory: Path, size: int, **more: Any) -> list[Config]:
    ports = free_ports(2 * size)
    peers = {f"n{i + 1}": f"127.0.0.1:{ports[size + i]}" for i in range(size)}
    return [
        node_config(
            name,
            directory / name,
            listen=f"127.0.0.1:{ports[i]}",
            peer_listen=peer,
            cluster=",".join(f"{each}={address}" for each, address in peers.items()),
            **more,
        )
        for i, (name, peer) in enumerate(peers.items())
    ]


async def propose(node: Node, command: bytes, key: str | None = None) -> object:
    """As long as it takes to have a leader."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await node.propose(command, idempotency_key=key)
            except RaftkvError as error:
                if error.status != 503:
                    raise
                await asyncio.sleep(0)


async def test_a_machine_of_the_programs_own_is_replicated_and_recovered(tmp_path: Path) -> None:
    members = configs(tmp_path, 3)
    words = [Words(), Words(), Words()]
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(Node(config, each))
            for config, each in zip(members, words, strict=True)
        ]
        assert await propose(nodes[0], b"one", "key") == 1
        assert await propose(nodes[1], b"one", "key") == 1  # it is the same
        with pytest.raises(BadRequest, match="'one' is there already"):
            await propose(nodes[2], b"one")
        for node, each in zip(nodes, words, strict=True):
            await node.barrier()
            assert each.words == ["one"]
            assert node.leader == nodes[0].leader
        async with nodes[2].client() as client:  # the keys are there, too
            put = await client.put("k", "v")
            item = await client.get("k")
            assert item is not None
            assert (item.value, item.mod_revision) == (b"v", put.revision)
        for node in nodes:
            await node._started.service.take_snapshot(DEADLINE_S * 1000)
        assert await propose(nodes[0], b"two") == 2
    again = [Words(), Words(), Words()]
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(Node(config, each))
            for config, each in zip(members, again, strict=True)
        ]
        assert await propose(nodes[1], b"three") == 3
        await nodes[1].barrier()
        assert again[1].words == ["one", "two", "three"]


async def test_a_node_that_can_not_start_says_why_and_lets_its_directory_go(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with Node(config):
        with pytest.raises(StartError, match="in use by process"):
            await Node(config).start()
    async with Node(config) as node:
        assert node.status()["node"] == node.id == "n1"
        with pytest.raises(RuntimeError, match="started once"):
            await node.start()
        with pytest.raises(TypeError, match="no machine of its own"):
            await node.propose(b"x")


async def test_a_node_that_was_never_started_says_so(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    node = Node(config)
    await node.stop()
    with pytest.raises(RuntimeError, match="not started"):
        await node.barrier()


async def test_a_machine_with_a_bug_stops_the_node_and_says_so(tmp_path: Path) -> None:
    class Broken(Words):
        def apply(self, time_ms: int, command: bytes) -> int:
            raise ZeroDivisionError("a bug in it")

    (config,) = configs(tmp_path, 1)
    node = Node(config, Broken())
    await node.start()
    await node.barrier(timeout=DEADLINE_S)
    with pytest.raises(RaftkvError):
        await node.propose(b"one")
    with pytest.raises(StartError, match="a bug in it"):
        await node.wait()


async def test_the_documents_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = DOCUMENT.read_text()
    program = text.split("```python\n")[1].split("```")[0]
    printed = text.split("prints\n\n```\n")[1].split("```")[0]
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(program, "docs/embedding.md", "exec"), namespace)
    ports = iter(free_ports(6))
    async with asyncio.timeout(DEADLINE_S):
        await namespace["main"](tmp_path, [next(ports) for _ in range(6)])
    said = capsys.readouterr().out.splitlines()  # and the nodes' log
    assert [line for line in said if line in printed.splitlines()] == printed.splitlines()


async def test_a_node_counts_its_work(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with Node(config, Words()) as node, aiohttp.ClientSession() as session:
        for number in range(3):
            await propose(node, b"%d" % number)
        async with session.get(f"{node.url}/metrics") as reply:
            text = await reply.text()
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }
    assert found["raftkv_batch_commands_sum"] >= 3
    assert found["raftkv_commit_seconds_count"] == found["raftkv_batch_commands_count"] >= 3
    assert found["raftkv_elections_total"] == found["raftkv_leader_changes_total"] == 1
    for name in ("turn", "apply", "fsync"):
        assert found[f"raftkv_{name}_seconds_count"] >= 3
        assert found[f"raftkv_{name}_seconds_sum"] > 0
