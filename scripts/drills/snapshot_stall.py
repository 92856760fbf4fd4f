"""Three nodes with a million keys each: do snapshots hold up writes, how long is a restart, how much memory?

Claimed: while snapshots are taken the p99 of PUT stays under 50 ms and nobody stands for election; a restart
takes less than 15 s until the node serves; a node takes less than 700 MB. The nodes start from a snapshot
that is made here, so that nobody waits for a million requests. Besides: the longest time that any node left
``/livez`` unanswered, without snapshots and with them. NB: all of it is on one machine, the clients too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from harness import Cluster, DrillError, NodeProcess, run_drill, running_cluster, say

from raftkv.config import Address, Config, parse_cluster
from raftkv.consensus.types import GroupId, HardState, Index, NodeId, SnapshotMeta, Term, Write
from raftkv.kv.commands import encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId
from raftkv.storage.files import OsFiles
from raftkv.storage.start import open_storage

GOAL_P99_MS, GOAL_RESTART_S, GOAL_RSS_MB = 50.0, 15.0, 700.0
VALUE_BYTES = 64
BATCH = 500  # keys
SNAPSHOT_TIMEOUT_S = 60
PROBE_S = 0.005
START_DEADLINE_S = 120.0


def key_of(number: int) -> str:
    return f"key-{number:012}"


# -- the data ----------------------------------------------------------------------------------------------


def machine_of(keys: int) -> tuple[KvMachine, SnapshotMeta]:
    machine = KvMachine()
    chance = random.Random(1)
    batches = range(0, keys, BATCH)
    for number, first in enumerate(batches, 1):
        numbers = range(first, min(keys, first + BATCH))
        commands = [encode_put(key_of(n).encode(), chance.randbytes(VALUE_BYTES)) for n in numbers]
        machine.apply(number, machine.seal(BatchId(NodeId("n1"), 1, number, number), commands))
    return machine, SnapshotMeta(Index(len(batches)), Term(1), len(batches))


def seed(nodes: Sequence[NodeProcess], keys: int) -> None:
    """Every node's directory, as if it had taken a snapshot after so many keys and been stopped."""
    start_s = time.perf_counter()
    machine, meta = machine_of(keys)
    for node in nodes:
        options = dict(zip(node.command[2::2], node.command[3::2], strict=True))
        config = Config(
            node_id=NodeId(node.name),
            data_dir=Path(options["--data-dir"]),
            listen=Address.parse(options["--listen"], "--listen"),
            peer_listen=Address.parse(options["--peer-listen"], "--peer-listen"),
            cluster=parse_cluster(options["--cluster"]),
        )
        files = OsFiles()
        files.make_directory(config.data_dir)
        opened = open_storage(files, config.data_dir, config.cluster_id, config.node_id)
        opened.wal.commit([Write(group=GroupId(0), hard_state=HardState(Term(1), None), entries=())])
        opened.wal.close()
        writer = opened.snapshots.begin(meta, b"")
        for chunk in machine.export():
            if chunk:
                writer.append(chunk)
        writer.finish()
    size_mb, took_s = writer.size_bytes / 1e6, time.perf_counter() - start_s
    say(f"made {len(nodes)} snapshots of {keys} keys, {size_mb:.0f} MB each, in {took_s:.1f} s")


# -- what is measured --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Times:
    """When each request was sent, and how long its answer took, in seconds of ``perf_counter``."""

    taken: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def between(self, from_s: float, until_s: float) -> list[float]:
        """Of all that overlap the span, in ms, sorted."""
        return sorted(t * 1e3 for at, t in self.taken if at <= until_s and at + t >= from_s)


async def keep_putting(cluster: Cluster, number: int, times: Times, options: argparse.Namespace) -> None:
    """A writer: one request every so often (later if the last one takes longer), to keys at random."""
    session, node = cluster.session, cluster.nodes[number % len(cluster.nodes)]
    every_s, keys = options.writers / options.rate, options.keys
    chance, due_s = random.Random(number), time.perf_counter()
    while True:
        due_s = max(due_s + every_s, time.perf_counter())
        await asyncio.sleep(due_s - time.perf_counter())
        at = time.perf_counter()
        url = f"{node.url}/v1/kv/{key_of(chance.randrange(keys))}"
        async with session.put(url, data=chance.randbytes(VALUE_BYTES)) as reply:
            await reply.read()
            if reply.status >= 300:
                times.failures.append(f"{node.name}: {reply.status}")
        times.taken.append((at, time.perf_counter() - at))


async def keep_probing(session: aiohttp.ClientSession, node: NodeProcess, times: Times) -> None:
    while True:
        at = time.perf_counter()
        async with session.get(f"{node.url}/livez") as reply:
            await reply.read()
        times.taken.append((at, time.perf_counter() - at))
        await asyncio.sleep(PROBE_S)


def rss_mb(node: NodeProcess) -> float:
    for line in Path(f"/proc/{node.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise DrillError("this system has no VmRSS in /proc")


def percentiles(times_ms: Sequence[float]) -> str:
    if not times_ms:
        raise DrillError("no request was measured")
    one = [times_ms[0]] * 999
    cut = statistics.quantiles(times_ms, n=1000, method="inclusive") if len(times_ms) > 1 else one
    return f"p50 {cut[499]:.1f}  p99 {cut[989]:.1f}  p99.9 {cut[998]:.1f}  max {times_ms[-1]:.1f} ms"


def p99(times_ms: Sequence[float]) -> float:
    return times_ms[int(0.99 * (len(times_ms) - 1))]


# -- the drill ---------------------------------------------------------------------------------------------


async def serves(cluster: Cluster, node: NodeProcess) -> None:
    async def answered() -> bool:
        return await cluster.status(node) is not None

    await cluster.until(answered, f"{node.name} serves", START_DEADLINE_S)


async def terms(cluster: Cluster) -> set[int]:
    statuses = [await cluster.status(node) for node in cluster.nodes]
    return {status["term"] if status else -1 for status in statuses}


async def take(cluster: Cluster, nodes: Sequence[NodeProcess]) -> tuple[float, float]:
    """Snapshots of ``nodes`` at once; from when until when."""
    from_s = time.perf_counter()

    async def one(node: NodeProcess) -> None:
        url = f"{node.url}/v1/snapshot?timeout={SNAPSHOT_TIMEOUT_S}s"
        async with cluster.session.post(url, timeout=aiohttp.ClientTimeout(2 * SNAPSHOT_TIMEOUT_S)) as reply:
            if reply.status != 200:
                raise DrillError(f"{node.name} took no snapshot: {reply.status} {await reply.text()}")

    await asyncio.gather(*(one(node) for node in nodes))
    return from_s, time.perf_counter()


def spans(cluster: Cluster, rounds: int) -> Iterator[tuple[str, list[NodeProcess]]]:
    for number in range(1, rounds + 1):
        for node in cluster.nodes:
            yield f"round {number}, {node.name}", [node]
        yield f"round {number}, all", cluster.nodes


async def measure(cluster: Cluster, options: argparse.Namespace) -> bool:
    """Whether the goals for writes are met."""
    puts, probes = Times(), Times()
    tasks = [asyncio.create_task(keep_probing(cluster.session, node, probes)) for node in cluster.nodes]
    for number in range(options.writers):
        tasks.append(asyncio.create_task(keep_putting(cluster, number, puts, options)))
    try:
        await asyncio.sleep(2)
        begin_s = time.perf_counter()
        await asyncio.sleep(options.quiet)
        quiet_s = time.perf_counter()
        say(f"without snapshots  PUT {percentiles(puts.between(begin_s, quiet_s))}")
        say(f"                /livez {percentiles(probes.between(begin_s, quiet_s))}")
        before, during, pauses = await terms(cluster), [], []
        for what, nodes in spans(cluster, options.rounds):
            from_s, until_s = await take(cluster, nodes)
            own = puts.between(from_s, until_s)
            pauses += probes.between(from_s, until_s)
            during += own
            say(f"{what:18} took {until_s - from_s:5.1f} s  PUT {percentiles(own)}")
        after = await terms(cluster)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    broken = [repr(result) for result in results if isinstance(result, Exception)] + puts.failures
    during.sort()
    say(f"with snapshots     PUT {percentiles(during)}")
    say(f"                /livez {percentiles(sorted(pauses))}")
    for node in cluster.nodes:
        status = await cluster.status(node)
        if status is not None:
            longest_ms = status["snapshot"]["longest_step_ms"]
            say(f"{node.name}: the longest piece of work of its last snapshot took {longest_ms} ms")
    met = p99(during) < GOAL_P99_MS and before == after and len(before) == 1 and not broken
    say(
        f"goal, p99 of PUT under {GOAL_P99_MS:.0f} ms and no election: {'met' if met else 'MISSED'}"
        f" (p99 {p99(during):.1f} ms, terms {sorted(before)} to {sorted(after)}, failures {broken[:3]})"
    )
    return met


async def restart(cluster: Cluster, node: NodeProcess) -> float:
    """Killed and started again; seconds until it serves."""
    node.kill()
    node.wait()
    start_s = time.perf_counter()
    node.start()
    await serves(cluster, node)
    return time.perf_counter() - start_s


async def play(options: argparse.Namespace) -> int:
    prepare = lambda nodes: seed(nodes, options.keys)  # noqa: E731
    async with running_cluster(options.directory, prepare=prepare) as cluster:
        say("load of this machine: " + " ".join(f"{each:.1f}" for each in os.getloadavg()))
        say("resident after the start: " + "  ".join(f"{rss_mb(node):.0f} MB" for node in cluster.nodes))
        met = await measure(cluster, options)
        took_s = [await restart(cluster, node) for node in cluster.nodes]
        sizes = [rss_mb(node) for node in cluster.nodes]
        say("load of this machine: " + " ".join(f"{each:.1f}" for each in os.getloadavg()))
    quick, small = max(took_s) < GOAL_RESTART_S, max(sizes) < GOAL_RSS_MB
    times = "  ".join(f"{each:.1f} s" for each in took_s)
    say(f"goal, a restart under {GOAL_RESTART_S:.0f} s: {'met' if quick else 'MISSED'} ({times})")
    residents = "  ".join(f"{each:.0f} MB" for each in sizes)
    say(f"goal, under {GOAL_RSS_MB:.0f} MB a node: {'met' if small else 'MISSED'} ({residents})")
    good = met and quick and small
    say("PASS snapshot-stall" if good else "FAIL snapshot-stall")
    return 0 if good else 1


def main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="snapshot-stall", description="what snapshots of a million keys cost who writes meanwhile"
    )
    parser.add_argument("--keys", type=int, default=1_000_000, help="in every node, values of 64 bytes")
    parser.add_argument("--writers", type=int, default=12, help="connections that write, to all nodes")
    parser.add_argument("--rate", type=float, default=300.0, help="writes a second, of all together")
    parser.add_argument("--rounds", type=int, default=2, help="each: every node, then all at once")
    parser.add_argument("--quiet", type=float, default=10.0, help="seconds without snapshots first")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the temporary data goes; must be a real disk"
    )
    return asyncio.run(play(parser.parse_args(arguments)))


if __name__ == "__main__":
    run_drill(main)
