"""The leader is killed, told to stop, stopped or cut off while clients write through the two others.

Claimed: no request of raftkv's fails, every acknowledged write is there exactly once through every survivor,
and the goals of ``failover_figures``. Writes come at a steady rate, whatever becomes of those before; each is
sent once, so that one that is lost with its leader fails.

The stores take turns, round by round. Only one of them is loaded and struck at a time; but who still waits
for an answer then (etcd's clients do, for seven seconds) doesn't hold up the other.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import random
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from etcd import etcd_put, running_etcd_cluster
from events import EVENTS, Network, heal, running_network, strike
from failover_figures import AFTER_S, BEFORE_S, Round, make_round
from failover_report import goals, plot, table, write_document
from harness import Cluster, DrillError, NodeProcess, Seat, make_directory, run_drill, running_cluster, say
from load import Load, Put, judge_through, raftkv_put

from tests.nemesis.links import why_no_namespaces

RESUME_DEADLINE_S = 20.0
SETTLE_S = 0.5  # of writing after it was resumed
TIMEOUT_S = 10.0  # of a client
SIZE = 3


@dataclass(frozen=True, slots=True)
class Store:
    name: str
    version: str
    cluster: Cluster
    put: Put


@dataclass(slots=True)
class Drill:
    """The stores on one network. ``machine`` is whose turn it is."""

    stores: Sequence[Store]
    network: Network | None
    rate: float
    chance: random.Random
    machine: asyncio.Lock

    async def play_round(self, store: Store, event: str, number: int) -> Round:
        cluster = store.cluster
        prefix = f"{event}/{number:03}/"
        async with AsyncExitStack() as answered, self.machine:
            leader = await cluster.leader()
            survivors = cluster.others(leader)
            load = Load(survivors, prefix, per_s=self.rate, put=store.put, timeout_s=TIMEOUT_S)
            await answered.enter_async_context(load)
            # Another moment of the heartbeat's and the disk's rhythm each time.
            await asyncio.sleep(BEFORE_S + self.chance.uniform(0.1, 0.2))
            began_at = time.perf_counter()
            await strike(event, leader, survivors, self.network)
            struck_at = time.perf_counter()
            load.probe()
            await load.until_acked(1, struck_at, RESUME_DEADLINE_S)
            await asyncio.sleep(max(began_at + AFTER_S - time.perf_counter(), SETTLE_S))
            load.stop()
            await heal(event, leader, self.network)
            await cluster.caught_up(leader)
        broken = await _broken(store, survivors, load)
        played = make_round(load.acks, load.failures, broken, began_at=began_at, struck_at=struck_at)
        say(
            f"{store.name:6}  round {number:3}  {EVENTS[event]} {leader.name}"
            f"  resumed {played.resumed_ms:7.1f} ms  gap {played.gap_ms:7.1f} ms"
            f"  longest {played.slowest_ms:7.1f} ms"
            f"  before {played.before_ms:5.1f} ms"
            f"  acknowledged {played.acked:6}  failed {len(played.failures):3}"
            f"  {'; '.join(broken) or ('all there, once' if store.name == 'raftkv' else '')}"
        )
        return played


async def _broken(store: Store, survivors: Sequence[NodeProcess], load: Load) -> list[str]:
    """By survivor, what raftkv lost or has twice. etcd is not looked after: its keys aren't listed here."""
    broken: list[str] = []
    if store.name != "raftkv":
        return broken
    for node in survivors:
        verdict = await judge_through(store.cluster, node, load.prefix, load.acks, load.failures)
        if verdict.broken:
            broken.append(f"through {node.name}: {verdict}")
    return broken


@asynccontextmanager
async def drilling(options: argparse.Namespace, event: str) -> AsyncIterator[Drill]:
    """The stores, started, where the event can be played."""
    names = ["raftkv"] if options.against is None else [options.against, "raftkv"]
    async with AsyncExitStack() as stack:
        network = None
        if event == "partition":
            network = stack.enter_context(running_network(SIZE * len(names)))
        stores = []
        for i, name in enumerate(names):
            seats = network.seats[SIZE * i : SIZE * (i + 1)] if network else [Seat()] * SIZE
            stores.append(await _start(stack, name, options.directory, seats))
        yield Drill(stores, network, options.rate, random.Random(options.seed), asyncio.Lock())


async def _start(stack: AsyncExitStack, name: str, directory: Path | None, seats: Sequence[Seat]) -> Store:
    cluster: Cluster
    if name == "raftkv":
        cluster = await stack.enter_async_context(running_cluster(directory, seats=seats))
    else:
        root = make_directory(directory)
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        cluster = await stack.enter_async_context(running_etcd_cluster(root, seats))
    status = await cluster.status(cluster.nodes[0])
    put = raftkv_put if name == "raftkv" else etcd_put
    return Store(name, status["version"] if status else "unknown", cluster, put)


async def play(options: argparse.Namespace) -> int:
    events = list(options.events)
    if "partition" in events and (why := why_no_namespaces()):
        events.remove("partition")
        if not events:
            raise DrillError(f"no partition can be played: {why}")
        say(f"NB: no partition is played: {why}")
    if options.write and importlib.util.find_spec("matplotlib") is None:
        raise DrillError("--write makes a plot, too, and needs matplotlib: pip install 'matplotlib>=3.8'")
    rounds: dict[tuple[str, str], list[Round]] = {}
    versions: dict[str, str] = {}
    kept = []
    for event in events:
        async with drilling(options, event) as drill:
            versions.update((store.name, store.version) for store in reversed(drill.stores))
            for number in range(1, options.rounds + 1):
                turns = [drill.play_round(store, event, number) for store in drill.stores]
                ended = await asyncio.gather(*turns)
                for store, played in reversed([*zip(drill.stores, ended, strict=True)]):
                    rounds.setdefault((event, store.name), []).append(played)
                    if store.name == "raftkv" and (played.failures or played.broken):
                        store.cluster.kept = True
                        kept.append(str(store.cluster.directory))
    if options.write:
        plot(rounds)
        write_document(rounds, versions, options)
    say("\n" + table(rounds))
    say(goals(rounds))
    return _verdict(
        [each for (_, store), played in rounds.items() if store == "raftkv" for each in played], kept
    )


def _verdict(rounds: Sequence[Round], kept: Sequence[str]) -> int:
    """Of raftkv's rounds. Goals of time are told, and not judged: they are the machine's, too."""
    failed = {key: why for played in rounds for key, why in played.failures.items()}
    broken = [why for played in rounds for why in played.broken]
    say(
        f"acknowledged {sum(played.acked for played in rounds)}, failed requests {len(failed)},"
        f" broken rounds {len(broken)}"
    )
    for key, why in list(failed.items())[:5]:
        say(f"  failed: {key}: {why}")
    for why in broken:
        say(f"  broken: {why}")
    for directory in dict.fromkeys(kept):
        say(f"data and logs are kept in {directory}")
    say("FAIL failover" if failed or broken else "PASS failover")
    return 1 if failed or broken else 0


def main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="failover", description="What the clients see when a leader dies, stops, hangs or is cut off."
    )
    parser.add_argument("--rounds", type=int, default=30, help="of each event")
    parser.add_argument("--events", nargs="+", choices=EVENTS, default=list(EVENTS), metavar="EVENT")
    parser.add_argument("--against", choices=["etcd"], help="the same with its three nodes, in turns")
    parser.add_argument(
        "--rate", type=float, default=400.0, help="writes a second, shared between the two others"
    )
    parser.add_argument("--write", action="store_true", help="tables and a plot, into docs/benchmarks.md")
    parser.add_argument("--seed", type=int, default=None, help="of the moments of the events")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the temporary data goes; must be a real disk"
    )
    return asyncio.run(play(parser.parse_args(arguments)))


if __name__ == "__main__":
    run_drill(main)
