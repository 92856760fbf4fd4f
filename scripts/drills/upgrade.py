"""A cluster of an older build, upgraded node by node to this one while clients write through all nodes.

Each node is stopped by SIGTERM and started again with the same command line and data directory, by the newer
build. While the builds are mixed, a node of each leads for a while. Claimed: every acknowledged write is
there exactly once, all nodes hold the same, and no request fails but such as an older node loses itself
while it stops. Then every node takes a snapshot of what came from the older build, starts from it, and it is
all there still.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from harness import Cluster, DrillError, NodeProcess, run_drill, running_cluster, say
from load import judge
from older_build import make_older
from roaming import Roamer
from rolling_restart import restart

# The last one before snapshots and changes of members; it speaks version 1 of the peers' protocol.
OLDER = "028c19f"
PREFIX = "upgrade/"
MORE_ACKS = 50  # a writer, in each state of the cluster
STATE_DEADLINE_S = 60.0
SEGMENT_BYTES = 64 << 10  # small, so that the older build leaves several


@dataclass(slots=True)
class Upgrade:
    """The cluster, its writers, and what was seen of them so far."""

    cluster: Cluster
    roamers: list[Roamer]
    newer: set[str] = field(default_factory=set)  # names of the nodes that run this build
    excused: dict[str, str] = field(default_factory=dict)  # failed on an older node that was stopping
    broken: list[str] = field(default_factory=list)

    def failures(self) -> dict[str, str]:
        return {key: why for roamer in self.roamers for key, why in roamer.failures.items()}

    def build_of(self, node: NodeProcess) -> str:
        return "newer" if node.name in self.newer else "older"

    async def write_on(self, state: str) -> None:
        """Wait until every writer has got on, and say who leads."""
        before = [len(roamer.acks) for roamer in self.roamers]

        async def got_on() -> bool:
            return all(
                len(roamer.acks) >= count + MORE_ACKS
                for roamer, count in zip(self.roamers, before, strict=True)
            )

        await self.cluster.until(got_on, f"every writer gets on, {state}", STATE_DEADLINE_S)
        leader = await self.cluster.leader()
        acks = sum(len(roamer.acks) for roamer in self.roamers)
        say(f"{state:34} {leader.name} leads ({self.build_of(leader)} build)  acknowledged {acks:6}")

    async def lead(self, node: NodeProcess) -> None:
        """Hand the lead to ``node``, asked through ``node`` itself."""

        async def leads() -> bool:
            url = f"{node.url}/v1/cluster/leader"
            async with self.cluster.session.post(url, json={"id": node.name}) as reply:
                return reply.status == 200

        await self.cluster.until(leads, f"{node.name} leads", STATE_DEADLINE_S)

    async def upgrade(self, node: NodeProcess, command: str) -> None:
        was, before = self.build_of(node), set(self.failures())
        node.command[0] = command
        done = await restart(self.cluster, node)
        self.newer.add(node.name)
        new = {key: why for key, why in self.failures().items() if key not in before}
        own = {key: why for key, why in new.items() if was == "older" and why.startswith(f"{node.name}: ")}
        self.excused |= own
        if done.exit_code != 0:
            self.broken.append(f"{node.name} ended with {done.exit_code}")
        led = ", which led" if done.led else ""
        say(
            f"upgraded {node.name}{led}: back after {done.until_s - done.from_s:.2f} s;"
            f" failed requests: {len(own)} by its older build as it stopped, {len(new) - len(own)} others"
        )

    async def snapshots(self) -> None:
        """Every node takes one, and starts from it."""
        for node in self.cluster.nodes:
            url, timeout = f"{node.url}/v1/snapshot?timeout=30s", aiohttp.ClientTimeout(60)
            async with self.cluster.session.post(url, timeout=timeout) as reply:
                if reply.status != 200:
                    raise DrillError(f"{node.name} took no snapshot: {reply.status} {await reply.text()}")
            done = await restart(self.cluster, node)
            if done.exit_code != 0:
                self.broken.append(f"{node.name} ended with {done.exit_code}, upgraded")

    async def compare(self, when: str) -> None:
        """What every node holds: with what was acknowledged, and with each other. The writers have ended."""
        acks = [ack for roamer in self.roamers for ack in roamer.acks]
        held: list[dict[str, dict[str, Any]]] = []
        for node in self.cluster.nodes:
            held.append(await self.cluster.keys(node, PREFIX))
            verdict = judge(acks, self.failures(), held[-1])
            say(f"{when}, through {node.name}: {verdict}")
            if verdict.broken:
                self.broken.append(f"{when}, through {node.name}: {verdict}")
        for (one, this), (other, that) in itertools.pairwise(zip(self.cluster.nodes, held, strict=True)):
            if this != that:
                self.broken.append(f"{when}: {one.name} and {other.name} don't hold the same")


async def run_through(upgrade: Upgrade, command: str) -> None:
    """All of it; ``command`` is this build's ``raftkv``."""
    cluster = upgrade.cluster
    tasks = [asyncio.create_task(roamer.run()) for roamer in upgrade.roamers]
    try:
        await upgrade.write_on("all of the older build")
        for number, node in enumerate(cluster.nodes, start=1):
            await upgrade.upgrade(node, command)
            # One of the newer build leads, then one of the older, as long as there is one.
            for chosen in (node, cluster.nodes[-1]):
                await upgrade.lead(chosen)
                await upgrade.write_on(f"{number} of {len(cluster.nodes)} upgraded")
        await upgrade.snapshots()
        await upgrade.write_on("every node started from a snapshot")
    finally:
        for roamer in upgrade.roamers:
            roamer.stopping = True
        await asyncio.gather(*tasks)
    others = {key: why for key, why in upgrade.failures().items() if key not in upgrade.excused}
    upgrade.broken += [f"failed: {key}: {why}" for key, why in list(others.items())[:5]]
    await upgrade.compare("at the end")


async def play(options: argparse.Namespace, older: Path) -> int:
    commands: list[str] = []

    def begin_older(nodes: Sequence[NodeProcess]) -> None:
        for node in nodes:
            commands.append(node.command[0])
            node.command[0] = str(older)

    more = ("--segment-bytes", str(SEGMENT_BYTES))
    async with running_cluster(options.directory, prepare=begin_older, options=more) as cluster:
        roamers = [Roamer(cluster.nodes, f"{PREFIX}{i:03}/", i) for i in range(options.writers)]
        upgrade = Upgrade(cluster, roamers)
        try:
            await run_through(upgrade, commands[0])
        except BaseException:
            cluster.kept = True
            say(f"data and logs are kept in {cluster.directory}")
            raise
        cluster.kept = bool(upgrade.broken)
    acks = [ack for roamer in roamers for ack in roamer.acks]
    say(
        f"\nacknowledged {len(acks)}; failed requests: {len(upgrade.excused)} lost by an older node as it"
        f" stopped, {len(upgrade.failures()) - len(upgrade.excused)} others;"
        f" slowest request {max(ack.latency_s for ack in acks) * 1e3:.0f} ms"
    )
    for why in upgrade.broken:
        say(f"  broken: {why}")
    if cluster.kept:
        say(f"data and logs are kept in {cluster.directory}")
    say("FAIL upgrade" if upgrade.broken else "PASS upgrade")
    return 1 if upgrade.broken else 0


def main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="upgrade", description="an older build's cluster, upgraded node by node under load"
    )
    parser.add_argument(
        "--from", dest="older", metavar="REV", default=OLDER, help=f"the older revision (default: {OLDER})"
    )
    parser.add_argument("--writers", type=int, default=8, help="connections that write, to all nodes")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the temporary data goes; must be a real disk"
    )
    options = parser.parse_args(arguments)
    place = Path(tempfile.mkdtemp(prefix="raftkv-older-", dir=options.directory))
    try:
        return asyncio.run(play(options, make_older(options.older, place)))
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    run_drill(main)
