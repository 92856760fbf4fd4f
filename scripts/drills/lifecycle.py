"""Many writes over few keys, through all nodes: does the disk hold a few segments and two snapshots, or all
that was ever written? Then a node is lost with its disk, and replaced under load.

Claimed: a data directory is bounded by the settings, not by the number of writes; the new node catches up by
a snapshot and the entries after it while the load goes on; no request through a living node fails, and every
node ends with the last acknowledged value of every key.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from harness import Cluster, DrillError, NodeProcess, free_ports, run_drill, running_cluster, say

PREFIX = "life/"
VALUE_BYTES = 64
SNAPSHOT_BYTES = 4 << 20
MARGIN_BYTES = 1 << 20
SEGMENT_BYTES = 1 << 20
OPTIONS = (
    *("--snapshot-bytes", str(SNAPSHOT_BYTES)),
    *("--snapshot-margin-bytes", str(MARGIN_BYTES)),
    *("--segment-bytes", str(SEGMENT_BYTES)),
)
SNAPSHOTS = 2
# From the older snapshot on the log stays: one bound to the newer one, one until the next is due, and what
# comes while that is taken, half a bound at these rates; the margin; and the segments at both ends.
SEGMENTS = (5 * SNAPSHOT_BYTES // 2 + MARGIN_BYTES) // SEGMENT_BYTES + 2
DEADLINE_S = 120.0
LOAD_AFTER_S = 2.0
POLL_S = 0.1


@dataclass(slots=True)
class Writers:
    """Closed loops; a key belongs to one of them, so that its last acknowledged value is known."""

    keys: int
    writers: int
    written: int = 0
    failures: list[str] = field(default_factory=list)
    last: dict[str, str] = field(default_factory=dict)
    stopping: bool = False

    async def run(
        self, session: aiohttp.ClientSession, nodes: Sequence[NodeProcess], puts: int | None
    ) -> None:
        """``puts`` of them, None: until ``stopping``."""
        self.stopping = False
        goal = None if puts is None else self.written + puts

        async def write_on(writer: int) -> None:
            number = 0
            own = range(writer, self.keys, self.writers)
            while not self.stopping and (goal is None or self.written < goal):
                self.written += 1
                key = f"{PREFIX}{own[number % len(own)]:05}"
                number += 1
                value = f"{self.written}".ljust(VALUE_BYTES, ".")
                node = nodes[writer % len(nodes)]
                async with session.put(f"{node.url}/v1/kv/{key}", data=value.encode()) as reply:
                    if reply.status in (200, 201):
                        self.last[key] = value
                    else:
                        self.failures.append(f"{node.name}: {reply.status} {(await reply.text())[:200]}")

        await asyncio.gather(*(write_on(writer) for writer in range(self.writers)))


@dataclass(frozen=True, slots=True)
class Kept:
    """What a data directory holds."""

    segments: int
    snapshots: int
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.segments:3} segments, {self.snapshots} snapshots, {self.size_bytes / 2**20:6.1f} MiB"

    @property
    def excess(self) -> str | None:
        if self.segments > SEGMENTS:
            return f"{self.segments} segments, more than {SEGMENTS}"
        return f"{self.snapshots} snapshots" if self.snapshots > SNAPSHOTS else None


def kept(directory: Path) -> Kept:
    # NB: a file may go while we look.
    sizes = {path.name: path.stat().st_size for path in directory.iterdir() if path.exists()}
    return Kept(
        sum(name.endswith(".log") for name in sizes),
        sum(name.endswith(".snap") for name in sizes),
        sum(sizes.values()),
    )


def tell(cluster: Cluster, nodes: Sequence[NodeProcess]) -> list[str]:
    """Say what each directory holds; what is too much."""
    broken = []
    for node in nodes:
        found = kept(cluster.directory / node.name)
        say(f"  {node.name}: {found}")
        if found.excess:
            broken.append(f"{node.name}: {found.excess}")
    return broken


async def differences(cluster: Cluster, nodes: Sequence[NodeProcess], writers: Writers) -> list[str]:
    """Keys whose value isn't the last acknowledged one. NB: a failed write may have been applied."""
    broken = []
    for node in nodes:
        held = {key: item["value"] for key, item in (await cluster.keys(node, PREFIX)).items()}
        if held != writers.last:
            broken.append(f"{node.name} holds {len(held)} keys, and other values than were acknowledged")
    return broken


def newcomer(cluster: Cluster, old: NodeProcess, by: NodeProcess) -> tuple[NodeProcess, str]:
    """A node that joins, and its peer address."""
    port, peer_port = free_ports(2)
    address = f"127.0.0.1:{peer_port}"
    options = {
        "--id": "n4",
        "--data-dir": str(cluster.directory / "n4"),
        "--listen": f"127.0.0.1:{port}",
        "--peer-listen": address,
        "--join": by.url,
    }
    command = [old.command[0], "serve", *(part for option in options.items() for part in option), *OPTIONS]
    return NodeProcess("n4", f"http://127.0.0.1:{port}", command, cluster.directory / "n4.log"), address


async def replace(cluster: Cluster, lost: NodeProcess, by: NodeProcess) -> NodeProcess:
    """``lost`` is gone with its disk; another takes its place in one step. Returns it, once it votes."""
    node, address = newcomer(cluster, lost, by)
    cluster.nodes.remove(lost)
    cluster.nodes.append(node)
    node.start()

    async def serves() -> bool:
        return await cluster.status(node) is not None

    await cluster.until(serves, "n4 serves", DEADLINE_S)
    wish = {"id": node.name, "address": address, "replaces": lost.name}
    async with cluster.session.post(f"{by.url}/v1/cluster/members?timeout=20s", json=wish) as reply:
        if reply.status != 200:
            raise DrillError(f"n4 was not added: {reply.status} {await reply.text()}")

    async def votes() -> bool:
        async with cluster.session.get(f"{by.url}/v1/cluster/members") as reply:
            members = {each["id"]: each["role"] for each in (await reply.json())["members"]}
        return members.get(node.name) in ("voter", "leader") and lost.name not in members

    await cluster.until(votes, "n4 votes in the place of the lost one", DEADLINE_S)
    return node


async def play(options: argparse.Namespace) -> int:
    broken: list[str] = []
    async with running_cluster(options.directory, options=OPTIONS) as cluster:
        writers = Writers(options.keys, options.writers)
        started = time.perf_counter()
        await writers.run(cluster.session, cluster.nodes, options.puts)
        took_s = time.perf_counter() - started
        say(f"{writers.written:,} PUTs over {options.keys:,} keys in {took_s:.0f} s; the directories hold")
        broken += tell(cluster, cluster.nodes)
        lost = (await cluster.leader()) if options.leader else cluster.others(await cluster.leader())[0]
        survivors = cluster.others(lost)
        load = asyncio.create_task(writers.run(cluster.session, survivors, None))
        lost.kill()
        lost.wait()
        shutil.rmtree(cluster.directory / lost.name)
        before, started = writers.written, time.perf_counter()
        node = await replace(cluster, lost, survivors[0])
        say(
            f"{lost.name} was lost with its disk; {node.name} votes in its place after"
            f" {time.perf_counter() - started:.1f} s and {writers.written - before:,} PUTs"
        )
        await asyncio.sleep(LOAD_AFTER_S)
        writers.stopping = True
        await load
        caught_up_s = await cluster.caught_up(node)
        say(f"{node.name} holds everything {caught_up_s:.1f} s after the last of them; the directories hold")
        broken += tell(cluster, cluster.nodes)
        broken += await differences(cluster, cluster.nodes, writers)
        broken += writers.failures[:5]
        cluster.kept = bool(broken)
    say(f"{writers.written:,} PUTs, {len(writers.failures)} failed")
    for why in broken:
        say(f"  broken: {why}")
    say("FAIL lifecycle" if broken else "PASS lifecycle")
    return 1 if broken else 0


def main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="lifecycle", description="many writes over few keys, and a node that is lost and replaced"
    )
    parser.add_argument("--puts", type=int, default=300_000)
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--writers", type=int, default=96, help="connections that write, to all nodes")
    parser.add_argument("--leader", action="store_true", help="lose the leader, not a follower")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the temporary data goes; must be a real disk"
    )
    return asyncio.run(play(parser.parse_args(arguments)))


if __name__ == "__main__":
    run_drill(main)
