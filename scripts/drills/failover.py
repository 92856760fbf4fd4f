"""kill -9 of the leader while clients write through the two others, round after round.

Claimed: no request fails, every acknowledged write is there exactly once through every survivor, and writes
resume in under 150 ms (median). The time is from the kill to the first acknowledgement of a write *sent
after* the kill: an answer that was already under way when the leader died counts for nothing. ``longest`` is
the slowest request of the round.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import Cluster, run_drill, running_cluster, say
from load import Load, judge_through

GOAL_MS = 150.0
RESUME_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Round:
    resumed_ms: float
    longest_ms: float
    acked: int
    failures: dict[str, str]
    broken: tuple[str, ...]  # by survivor, where something is lost or there twice


async def play_round(cluster: Cluster, number: int, writers: int, chance: random.Random) -> Round:
    leader = await cluster.leader()
    survivors = cluster.others(leader)
    prefix = f"failover/{number:03}/"
    async with Load(survivors, prefix, writers) as load:
        await load.until_acked(10 * writers, 0.0, RESUME_DEADLINE_S)
        await asyncio.sleep(
            chance.uniform(0.1, 0.6)
        )  # another moment of the heartbeat's and the disk's rhythm each time
        killed_at = time.perf_counter()
        leader.kill()
        load.probe()
        await load.until_acked(10 * writers, killed_at, RESUME_DEADLINE_S)
    resumed_at = min(ack.acked_at for ack in load.acks if ack.sent_at >= killed_at)
    leader.wait()
    broken = []
    for node in survivors:
        verdict = await judge_through(cluster, node, prefix, load.acks, load.failures)
        if verdict.broken:
            broken.append(f"through {node.name}: {verdict}")
    leader.start()
    await cluster.caught_up(leader)
    result = Round(
        resumed_ms=(resumed_at - killed_at) * 1e3,
        longest_ms=max(ack.latency_s for ack in load.acks) * 1e3,
        acked=len(load.acks),
        failures=load.failures,
        broken=tuple(broken),
    )
    say(
        f"round {number:3}  killed {leader.name}  resumed {result.resumed_ms:7.1f} ms"
        f"  longest {result.longest_ms:7.1f} ms"
        f"  acknowledged {result.acked:6}  failed {len(result.failures):3}"
        f"  {'; '.join(broken) or 'all there, once'}"
    )
    return result


async def play(options: argparse.Namespace) -> int:
    chance = random.Random(options.seed)
    async with running_cluster(options.directory) as cluster:
        rounds = [await play_round(cluster, i + 1, options.writers, chance) for i in range(options.rounds)]
        failed = {key: why for played in rounds for key, why in played.failures.items()}
        broken = [why for played in rounds for why in played.broken]
        cluster.kept = bool(failed or broken)
    times = sorted(played.resumed_ms for played in rounds)
    median = statistics.median(times)
    say(f"\nwrites resumed after {median:.1f} ms (median of {len(times)}; {times[0]:.1f} to {times[-1]:.1f})")
    say(f"the slowest request took {max(played.longest_ms for played in rounds):.1f} ms")
    say(f"goal, a median under {GOAL_MS:.0f} ms: {'met' if median < GOAL_MS else 'MISSED'}")
    say(
        f"acknowledged {sum(played.acked for played in rounds)}, failed requests {len(failed)},"
        f" broken rounds {len(broken)}"
    )
    for key, why in list(failed.items())[:5]:
        say(f"  failed: {key}: {why}")
    for why in broken:
        say(f"  broken: {why}")
    if failed or broken:
        say(f"data and logs are kept in {cluster.directory}")
    say("FAIL failover" if failed or broken else "PASS failover")
    return 1 if failed or broken else 0


def main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="failover", description="kill -9 of the leader under load; what the clients see"
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--writers", type=int, default=8, help="connections that write, shared between the two others"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the moments of the kills")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the temporary data goes; must be a real disk"
    )
    return asyncio.run(play(parser.parse_args(arguments)))


if __name__ == "__main__":
    run_drill(main)
