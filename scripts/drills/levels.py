"""What a read costs at each level of consistency, at the leader and at a follower of three local nodes with
leases: requests a second and latencies by wrk, all levels in turns, medians of several turns.

And what a session waits for: the read of one's own write, at a follower, right after the leader's answer. The
table goes into docs/consistency.md, between its markers, where ``--write`` is given.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from bench import WRK_MISSING, Run, fill, run_wrk
from harness import DrillError, NodeProcess, run_drill, running_cluster, say

DOCUMENT = Path(__file__).parents[2] / "docs" / "consistency.md"
BEGIN, END = "<!-- scripts/levels: begin -->\n", "<!-- end -->\n"
LOOK_S = 5.0  # at the machine's load


@dataclass(frozen=True, slots=True)
class Level:
    """A way to read. In ``query``, ``{revision}`` is the last one there is."""

    name: str
    query: str
    at_leader: bool


LEVELS = [
    Level("linearizable", "consistency=linearizable", at_leader=True),
    Level("linearizable", "consistency=linearizable", at_leader=False),
    Level("lease", "consistency=lease", at_leader=True),
    Level("lease", "consistency=lease", at_leader=False),
    Level("stale, max_staleness=500ms", "consistency=stale&max_staleness=500ms", at_leader=False),
    Level("stale", "consistency=stale", at_leader=False),
    Level("stale, min_revision", "consistency=stale&min_revision={revision}", at_leader=False),
]
Figures = Mapping[Level, Mapping[int, Sequence[Run]]]
"""level -> connections -> runs"""


@dataclass(frozen=True, slots=True)
class OwnWrites:
    """Milliseconds: of a write through the leader, and of the read of it through a follower."""

    write_ms: Sequence[float]
    read_ms: Sequence[float]


async def last_revision(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(f"{url}/v1/kv/key00000") as reply:
        return reply.headers["Raftkv-Revision"]


async def measure(
    leader: NodeProcess, follower: NodeProcess, nodes: Sequence[NodeProcess], options: argparse.Namespace
) -> Figures:
    """All levels in turns, so that what else the machine does meets all of them."""
    levels = [level for level in LEVELS if not options.only or level.name in options.only]
    figures: dict[Level, dict[int, list[Run]]] = {
        level: {number: [] for number in options.connections} for level in levels
    }
    async with aiohttp.ClientSession() as session:
        revision = await last_revision(session, leader.url)
    for turn in range(1, options.repetitions + 1):
        for level in levels:
            for connections in options.connections:
                node = leader if level.at_leader else follower
                given = argparse.Namespace(**{**vars(options), "connections": connections})
                query = level.query.format(revision=revision)
                run = await run_wrk(node.url, "GET", given, nodes, query)
                if run.failed:
                    raise DrillError(f"{run.failed} reads failed at {level.name}: {dict(run.errors)}")
                figures[level][connections].append(run)
                where = "leader" if level.at_leader else "follower"
                say(
                    f"turn {turn}  {level.name:27} {where:9} {connections:3} connections:"
                    f" {run.per_second:8,.0f}/s  p50 {run.p50_ms:6.2f} ms  p99 {run.p99_ms:6.2f} ms"
                )
    return figures


async def measure_own_writes(leader: NodeProcess, follower: NodeProcess, number: int) -> OwnWrites:
    """A write, and the read of it at another node as soon as it is answered."""
    write_ms, read_ms = [], []
    async with aiohttp.ClientSession() as session:
        for count in range(number):
            value = b"%d" % count
            begun_s = time.perf_counter()
            async with session.put(f"{leader.url}/v1/kv/own", data=value) as reply:
                revision = (await reply.json())["revision"]
            written_s = time.perf_counter()
            query = f"consistency=stale&min_revision={revision}"
            async with session.get(f"{follower.url}/v1/kv/own?{query}") as reply:
                read = await reply.read()
            read_ms.append((time.perf_counter() - written_s) * 1000)
            write_ms.append((written_s - begun_s) * 1000)
            if read != value:
                raise DrillError(f"wrote {value!r} and read {read!r} at revision {revision}")
    return OwnWrites(write_ms, read_ms)


def shown_ms(values: Sequence[float]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):.2f} ms (p99 {ordered[len(ordered) * 99 // 100]:.2f})"


def cpu_us(run: Run, seconds: float) -> float:
    """What a read took of the processor, on all nodes together; not a number where that isn't known."""
    used_s = sum(run.cpu_s.values()) if run.cpu_s else float("nan")
    return used_s / (run.per_second * seconds) * 1e6


def table(figures: Figures, own: OwnWrites, load: float, options: argparse.Namespace) -> str:
    """As Markdown, with what it was measured on."""
    columns = [f"{number} at a time: reads/s | p50 ms | p99 ms | CPU us" for number in options.connections]
    lines = [f"| level | asked at | {' | '.join(columns)} |", "|---|---|" + "--:|" * (4 * len(columns))]
    for level, by_connections in figures.items():
        cells = [f"`{level.name}`", "leader" if level.at_leader else "follower"]
        for runs in by_connections.values():
            cells.append(f"{statistics.median(run.per_second for run in runs):,.0f}")
            cells.append(f"{statistics.median(run.p50_ms for run in runs):.2f}")
            cells.append(f"{statistics.median(run.p99_ms for run in runs):.2f}")
            cells.append(f"{statistics.median(cpu_us(run, options.seconds) for run in runs):.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    measured = (
        f"`scripts/levels`, {datetime.now(UTC):%Y-%m-%d}: three nodes and wrk on the same {os.cpu_count()}"
        f" cores, load average {load:.1f} before it began; medians of {options.repetitions} runs of"
        f" {options.seconds} s, all levels in turns; CPU us: what a read"
        " takes of the processor, on all nodes together."
        f" A write through the leader took {shown_ms(own.write_ms)}; the read of it at a follower with"
        f" `min_revision`, sent as soon as the write was answered, {shown_ms(own.read_ms)}."
    )
    return "\n".join([*lines, "", measured, ""])


def write_into(document: Path, text: str) -> None:
    """Between the markers. Raises ``DrillError`` where there are none."""
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DrillError(f"{document} has no place for the table: {BEGIN.strip()} ... {END.strip()}")
    document.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")


async def until_quiet(most: float, patience_s: float) -> float:
    """Wait until the machine's load is below ``most``, but no longer than that; what it is then."""
    deadline_s = time.monotonic() + patience_s
    while (load := os.getloadavg()[0]) >= most and time.monotonic() < deadline_s:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    return load


async def play(options: argparse.Namespace) -> int:
    if shutil.which("wrk") is None:
        raise DrillError(WRK_MISSING)
    load = await until_quiet(options.max_load, options.patience)
    say(f"load average {load:.1f}")
    lease = ("--lease-ms", str(options.lease_ms))
    async with running_cluster(options.directory, options=lease) as cluster:
        leader = await cluster.leader()
        follower = cluster.others(leader)[0]
        await fill(leader.url, options)
        await cluster.caught_up(follower)
        figures = await measure(leader, follower, cluster.nodes, options)
        own = await measure_own_writes(leader, follower, options.own_writes)
        if await cluster.leader() is not leader:
            raise DrillError("the lead has changed meanwhile: nothing of this counts")
    text = table(figures, own, load, options)
    say(f"\n{text}")
    if options.write is not None:
        write_into(options.write, text)
    return 0


def main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="levels", description="what each level of consistency costs")
    parser.add_argument("--seconds", type=int, default=4, help="of one run")
    parser.add_argument("--repetitions", type=int, default=3, help="of each; the medians count")
    parser.add_argument("--connections", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--threads", type=int, default=1, help="of wrk")
    parser.add_argument("--only", nargs="+", choices=sorted({level.name for level in LEVELS}))
    parser.add_argument("--own-writes", type=int, default=1000, help="how many, each with its read")
    parser.add_argument("--lease-ms", type=int, default=200)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--value-bytes", type=int, default=64)
    parser.add_argument("--max-load", type=float, default=2.5, help="begin when the machine's is below it")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for that, at most")
    parser.add_argument(
        "--write", type=Path, nargs="?", const=DOCUMENT, help="into this document, docs/consistency.md"
    )
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the temporary data goes; must be a real disk"
    )
    options = parser.parse_args(arguments)
    if min(options.seconds, options.repetitions, options.keys, options.own_writes, *options.connections) < 1:
        parser.error("numbers must be at least 1")
    return asyncio.run(play(options))


if __name__ == "__main__":
    run_drill(main)
