"""SIGTERM to every node in turn while clients write through all of them, round after round.

Claimed: no request fails, every acknowledged write is there exactly once, and writes hardly pause: the
longest time between two acknowledgements (of anybody's writes) during a restart is under 50 ms. A restart
lasts from the signal until the node has caught up again. Its two halves are told apart: while a node stops,
the handover is what holds writes up; while it starts, it is that one machine does everything. After each
restart the writers go on alone for as long as it took: the longest gap then is the machine's own.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import POLL_S, STOP_DEADLINE_S, Cluster, DrillError, NodeProcess, run_drill, running_cluster, say
from load import judge_through
from roaming import Roamer

GOAL_MS = 50.0
WARM_UP_ACKS = 20  # a writer


@dataclass(frozen=True, slots=True)
class Restart:
    name: str
    led: bool
    from_s: float  # the signal
    ended_s: float  # the process
    until_s: float  # caught up
    exit_code: int

    @property
    def compared_s(self) -> float:
        """The end of as long a time without a restart."""
        return self.until_s + (self.until_s - self.from_s)


@dataclass(frozen=True, slots=True)
class Gaps:
    """The longest ones of a restart, in ms; ``plain``: of the time after it."""

    stop: float
    start: float
    plain: float

    @property
    def longest(self) -> float:
        return max(self.stop, self.start)


async def restart(cluster: Cluster, node: NodeProcess) -> Restart:
    leader = await cluster.leader()
    from_s = time.perf_counter()
    process = node.process
    if process is None:
        raise DrillError(f"{node.name} was never started")
    process.send_signal(signal.SIGTERM)
    while process.poll() is None:
        if time.perf_counter() - from_s > STOP_DEADLINE_S:
            raise DrillError(f"{node.name} did not stop within {STOP_DEADLINE_S:.0f} s")
        await asyncio.sleep(POLL_S)
    ended_s = time.perf_counter()
    node.start()
    await cluster.caught_up(node)
    return Restart(node.name, leader is node, from_s, ended_s, time.perf_counter(), process.returncode)


def longest_gap_ms(acked_at: Sequence[float], from_s: float, until_s: float) -> float:
    """The longest time without an acknowledgement that overlaps the span. ``acked_at`` is sorted."""
    pairs = itertools.pairwise(acked_at)
    spans = (after - before for before, after in pairs if after >= from_s and before <= until_s)
    return max(spans, default=0.0) * 1e3


async def warm(roamers: Sequence[Roamer]) -> None:
    deadline = time.perf_counter() + STOP_DEADLINE_S
    while any(len(roamer.acks) < WARM_UP_ACKS for roamer in roamers):
        if time.perf_counter() > deadline:
            raise DrillError(
                "the writers don't get on: " + str([roamer.failures for roamer in roamers])[:500]
            )
        await asyncio.sleep(POLL_S)


def tell(restarts: Sequence[Restart], gaps: Sequence[Gaps]) -> None:
    for each, gap in zip(restarts, gaps, strict=True):
        say(
            f"restarted {each.name} ({'leader' if each.led else 'follower':8})  longest gap while it stops"
            f" {gap.stop:6.1f} ms, starts {gap.start:6.1f} ms; after it {gap.plain:6.1f} ms"
            f"  ended after {each.ended_s - each.from_s:5.2f} s, back after"
            f" {each.until_s - each.from_s:5.2f} s, exit {each.exit_code}"
        )
    say("")
    for what, wanted in (("leaders", True), ("followers", False)):
        own = [gap for each, gap in zip(restarts, gaps, strict=True) if each.led is wanted]
        if own:
            say(
                f"{what:9} restarted {len(own):3} times; longest gap, median and worst:"
                f" {_median_and_worst([gap.longest for gap in own])};"
                f" while they stop {_median_and_worst([gap.stop for gap in own])},"
                f" start {_median_and_worst([gap.start for gap in own])}"
            )
    worst = max(gap.longest for gap in gaps)
    plain = [gap.plain for gap in gaps]
    say(f"as long without a restart, after each: {_median_and_worst(plain)}: so much is the machine's own")
    say(f"goal, under {GOAL_MS:.0f} ms: {'met' if worst < GOAL_MS else 'MISSED'} (worst {worst:.1f} ms)")


def _median_and_worst(times_ms: Sequence[float]) -> str:
    return f"{statistics.median(times_ms):.1f} and {max(times_ms):.1f} ms"


async def load_and_restart(cluster: Cluster, roamers: Sequence[Roamer], rounds: int) -> list[Restart]:
    tasks = [asyncio.create_task(roamer.run()) for roamer in roamers]
    await warm(roamers)
    restarts: list[Restart] = []
    for _ in range(rounds):
        for node in cluster.nodes:
            restarts.append(await restart(cluster, node))
            await asyncio.sleep(restarts[-1].compared_s - time.perf_counter())
    for roamer in roamers:
        roamer.stopping = True
    await asyncio.gather(*tasks)
    return restarts


async def play(options: argparse.Namespace) -> int:
    async with running_cluster(options.directory) as cluster:
        prefix = "rolling/"
        roamers = [Roamer(cluster.nodes, f"{prefix}{i:03}/", i) for i in range(options.writers)]
        restarts = await load_and_restart(cluster, roamers, options.rounds)
        acks = [ack for roamer in roamers for ack in roamer.acks]
        failures = {key: why for roamer in roamers for key, why in roamer.failures.items()}
        verdicts = [
            (node, await judge_through(cluster, node, prefix, acks, failures)) for node in cluster.nodes
        ]
        broken = [f"through {node.name}: {verdict}" for node, verdict in verdicts if verdict.broken]
        broken += [f"{each.name} ended with {each.exit_code}" for each in restarts if each.exit_code != 0]
        cluster.kept = bool(failures or broken)
    acked_at = sorted(ack.acked_at for ack in acks)
    gaps = [
        Gaps(
            longest_gap_ms(acked_at, each.from_s, each.ended_s),
            longest_gap_ms(acked_at, each.ended_s, each.until_s),
            longest_gap_ms(acked_at, each.until_s, each.compared_s),
        )
        for each in restarts
    ]
    tell(restarts, gaps)
    say(
        f"acknowledged {len(acks)}, failed requests {len(failures)}, moves to another node"
        f" {sum(roamer.moves for roamer in roamers)}, slowest request"
        f" {max(ack.latency_s for ack in acks) * 1e3:.1f} ms"
    )
    for key, why in list(failures.items())[:5]:
        say(f"  failed: {key}: {why}")
    for why in broken:
        say(f"  broken: {why}")
    if cluster.kept:
        say(f"data and logs are kept in {cluster.directory}")
    say("FAIL rolling-restart" if cluster.kept else "PASS rolling-restart")
    return 1 if cluster.kept else 0


def main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="rolling-restart", description="SIGTERM to every node in turn under load; what the clients see"
    )
    parser.add_argument("--rounds", type=int, default=5, help="each restarts every node once")
    parser.add_argument("--writers", type=int, default=8, help="connections that write, to all nodes")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the temporary data goes; must be a real disk"
    )
    return asyncio.run(play(parser.parse_args(arguments)))


if __name__ == "__main__":
    run_drill(main)
