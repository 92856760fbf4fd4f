"""kill -9 of all three nodes at once under load, and a restart, round after round: is anything lost?

Claimed: always. Requests under way at the kill may fail, their writes may be there or not. NB: kill -9 spares
the kernel's page cache, so this judges recovery (torn tails, terms, what was acknowledged before it was on
its way to the disk), not whether fsync is called; the tests with injected fsync errors judge that.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

from harness import Cluster, run_drill, running_cluster, say
from load import Ack, Load, judge_through

PREFIX = "crash/"


async def crash_under_load(cluster: Cluster, number: int, writers: int, chance: random.Random) -> Load:
    """Write through every node, kill all of them, collect what was acknowledged."""
    async with Load(cluster.nodes, f"{PREFIX}{number:03}/", writers) as load:
        await load.until_acked(10 * writers, 0.0, 20.0)
        await asyncio.sleep(chance.uniform(0.1, 0.8))
        for node in chance.sample(cluster.nodes, len(cluster.nodes)):
            node.kill()
    for node in cluster.nodes:
        node.wait()
    return load


async def play(options: argparse.Namespace) -> int:
    chance = random.Random(options.seed)
    acks: list[Ack] = []
    failures: dict[str, str] = {}
    broken: list[str] = []
    async with running_cluster(options.directory) as cluster:
        for number in range(1, options.rounds + 1):
            load = await crash_under_load(cluster, number, options.writers, chance)
            acks += load.acks
            failures |= load.failures
            started = time.perf_counter()
            for node in cluster.nodes:
                node.start()
            await cluster.leader()
            back_ms = (time.perf_counter() - started) * 1e3
            # Every write of every round, through another node each time; at last through all.
            judges = (
                cluster.nodes if number == options.rounds else [cluster.nodes[number % len(cluster.nodes)]]
            )
            verdicts = [(node, await judge_through(cluster, node, PREFIX, acks, failures)) for node in judges]
            broken += [f"round {number}, through {node.name}: {v}" for node, v in verdicts if v.broken]
            say(
                f"round {number:3}  acknowledged {len(load.acks):6}  cut off {len(load.failures):3}"
                f"  back in {back_ms:6.0f} ms  so far: {verdicts[0][1]}"
            )
        applied = verdicts[0][1].unknown_applied
        cluster.kept = bool(broken)
    say(
        f"\n{options.rounds} crashes of all nodes, {len(acks)} writes acknowledged,"
        f" {len(broken)} broken rounds"
    )
    say(
        f"{len(failures)} writes were cut off by a kill, and refused while nobody listened;"
        f" {applied} of them are there"
    )
    for why in broken:
        say(f"  broken: {why}")
    if broken:
        say(f"data and logs are kept in {cluster.directory}")
    say("FAIL crash-all" if broken else "PASS crash-all")
    return 1 if broken else 0


def main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="crash-all", description="kill -9 of every node at once under load, and restart"
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--writers", type=int, default=12, help="connections that write, shared between the nodes"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the moments and the order of the kills")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the temporary data goes; must be a real disk"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return asyncio.run(play(options))


if __name__ == "__main__":
    run_drill(main)
