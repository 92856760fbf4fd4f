"""The commands of docs/operations.md, in their order, as written; only the addresses are this test's own."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, Node, make_nodes, running

pytestmark = pytest.mark.cluster

TEXT = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")


def commands(*headings: str) -> list[str]:
    """Those under ``headings``, each by itself a line."""
    parts = dict(part.split("\n", 1) for part in TEXT.split("\n## ")[1:])
    blocks = [re.findall(r"```sh\n(.*?)```", parts[heading], re.DOTALL) for heading in headings]
    return [line.strip() for block in blocks for text in block for line in text.strip().splitlines()]


def arguments(command: str, clients: list[Node], peers: list[Node]) -> list[str]:
    """``command`` with the ports of ``clients`` for 8001 on, and those of ``peers`` for 9001 on."""
    command = re.sub(r":800([1-5])\b", lambda match: f":{clients[int(match[1]) - 1].port}", command)
    command = re.sub(r":900([1-5])\b", lambda match: f":{peers[int(match[1]) - 1].peer_port}", command)
    program, *rest = shlex.split(command)
    assert program == "raftkv"
    return rest


async def run(directory: Path, given: list[str], *, exit_code: int = 0) -> None:
    command = (sys.executable, "-m", "raftkv", *given)
    done = await asyncio.to_thread(subprocess.run, command, cwd=directory, capture_output=True, timeout=60)
    assert done.returncode == exit_code, (given, done.stderr.decode())


def serve_as_written(node: Node, directory: Path, given: list[str]) -> None:
    """``given`` names a data directory below ``directory``."""
    command = (sys.executable, "-m", "raftkv", *given, "--log-format", "json")
    with node.log_path.open("ab") as log:
        node.process = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


async def test_backing_up_and_restoring(tmp_path: Path) -> None:
    save, make = commands("Backing up"), commands("Restoring")
    serve = [command for command in make if command.startswith("raftkv serve")]
    assert [len(save), len(make), len(serve)] == [2, 6, 3], "a command was added or removed: look here"
    (tmp_path / "old").mkdir()
    async with running(tmp_path / "old") as old:
        for number in range(30):
            await old.put(old.nodes[0], f"key/{number:02}", f"value {number}")
        for command in save:
            await run(tmp_path, arguments(command, old.nodes, old.nodes))
        held = await old.items(old.nodes[0], "")
    assert len(held) == 30
    nodes = make_nodes(tmp_path, 3)
    for command in make[:-3]:
        await run(tmp_path, arguments(command, nodes, nodes))
    async with running(tmp_path / "unused", start=False) as harness:
        new = Cluster(nodes, harness.session, tmp_path)
        harness.nodes[:] = nodes  # however this ends, they end with it
        for node, command in zip(nodes, serve, strict=True):
            serve_as_written(node, tmp_path, arguments(command, nodes, nodes))
        await new.leader()
        for node in nodes:
            assert await new.items(node, "") == held


async def test_beginning_and_beginning_again_with_a_survivor(tmp_path: Path) -> None:
    begin, again = commands("Beginning"), commands("When a majority is lost for good")
    assert [len(begin), len(again)] == [5, 3], "a command was added or removed: look here"
    nodes = make_nodes(tmp_path, 3)
    async with running(tmp_path / "unused", start=False) as harness:
        cluster = Cluster(nodes, harness.session, tmp_path)
        harness.nodes[:] = nodes  # however this ends, they end with it
        for node, command in zip(nodes, begin[:3], strict=True):
            serve_as_written(node, tmp_path, arguments(command, nodes, nodes))
        await cluster.leader()
        for command in begin[3:]:
            await run(tmp_path, arguments(command, nodes, nodes))
        for number in range(30):
            await cluster.put(nodes[0], f"key/{number:02}", "value")
        await cluster.caught_up(nodes[0])
        held = await cluster.items(nodes[0], "")
        for node in nodes:
            node.kill()
            await node.exit_code()
        look, force, serve = (arguments(command, nodes, nodes) for command in again)
        await run(tmp_path, look, exit_code=1)
        await run(tmp_path, force)
        serve_as_written(nodes[0], tmp_path, serve)
        assert await cluster.leader() is nodes[0]
        assert await cluster.items(nodes[0], "") == held


async def test_changing_members(tmp_path: Path) -> None:
    given = commands("Changing members")
    kinds = [" ".join(command.split()[1:3]) for command in given]
    assert kinds == [
        "serve --id",
        "member add",
        "members --endpoints",
        "serve --id",
        "member replace",
        "member remove",
    ], "a command was added or removed: look here"
    async with running(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes
        spare = make_nodes(tmp_path, 5)[3:]
        nodes = [n1, n2, n3, *spare]
        lines = iter(arguments(command, nodes, nodes) for command in given)

        async def join(node: Node) -> None:
            cluster.nodes.append(node)
            serve_as_written(node, tmp_path, next(lines))
            await cluster.serves_or_ended(node)
            await run(tmp_path, next(lines))

        async def vote(*names: str) -> None:
            async def settled() -> bool:
                members = (await cluster.request("GET", n1, "/v1/cluster/members")).body
                roles = {each["id"]: each["role"] for each in members["members"]}
                return set(roles) == set(names) and set(roles.values()) == {"leader", "voter"}

            await cluster.until(settled, f"{names} vote", 60.0)

        await join(spare[0])
        await vote("n1", "n2", "n3", "n4")
        await run(tmp_path, next(lines))
        n2.kill()
        await join(spare[1])
        await vote("n1", "n3", "n4", "n5")
        await run(tmp_path, next(lines))
        await vote("n1", "n3", "n5")
        assert await spare[0].exit_code() == 0
