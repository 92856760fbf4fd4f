"""Throughput and latency by wrk: PUT and linearizable GET against the leader of three local nodes.

Real fsync, loopback network, the load on the same cores as the nodes. Medians of several runs; every response
that is not a success is reported and fails the run. CPU comes from /proc and so on Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import versus
from harness import DrillError, NodeProcess, run_drill, running_cluster, say

SCRIPT = Path(__file__).with_name("wrk.lua")
ERROR_KINDS = ("refused", "connect", "read", "write", "timeout")
FILL_CONNECTIONS = 64
SETTLE_S = 2.0  # between a start or a load and what is measured idle
WRK_MISSING = "wrk is not here. Debian, Ubuntu: apt install wrk; macOS: brew install wrk; source: https://github.com/wg/wrk"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of wrk. ``cpu_s``: CPU seconds each node used meanwhile, where known."""

    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: Mapping[str, int]
    cpu_s: Mapping[str, float]

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def cpu_seconds(node: NodeProcess) -> float | None:
    """User and system time of the process so far; None where there is no /proc."""
    try:
        text = Path(f"/proc/{node.pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the name in parentheses, which may hold anything: count from its end. utime, stime:
    # 14 and 15.
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class CpuMeter:
    """What each node used since the meter was made."""

    def __init__(self, nodes: Sequence[NodeProcess]) -> None:
        self._before = [(node, cpu_seconds(node)) for node in nodes]

    def used_s(self) -> dict[str, float]:
        used: dict[str, float] = {}
        for node, before in self._before:
            now = cpu_seconds(node)
            if before is not None and now is not None:
                used[node.name] = now - before
        return used


async def run_wrk(
    url: str, method: str, options: argparse.Namespace, nodes: Sequence[NodeProcess], query: str = ""
) -> Run:
    """``query``: of each request."""
    command = [
        "wrk",
        f"-t{options.threads}",
        f"-c{options.connections}",
        f"-d{options.seconds}s",
        "--timeout",
        "10s",
    ]
    command += ["-s", str(SCRIPT), url, "--", method, str(options.keys), str(options.value_bytes), query]
    meter = CpuMeter(nodes)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = (await process.communicate())[0].decode()
    cpu_s = meter.used_s()
    lines = [line for line in output.splitlines() if line.startswith('{"requests"')]
    if process.returncode != 0 or not lines:
        raise DrillError(f"wrk failed (exit {process.returncode}):\n{output}")
    result: dict[str, int] = json.loads(lines[-1])
    return Run(
        per_second=(result["requests"] - result["refused"]) / (result["duration_us"] / 1e6),
        p50_ms=result["p50_us"] / 1e3,
        p99_ms=result["p99_us"] / 1e3,
        max_ms=result["max_us"] / 1e3,
        errors={kind: result[kind] for kind in ERROR_KINDS if result[kind]},
        cpu_s=cpu_s,
    )


async def fill(url: str, options: argparse.Namespace) -> None:
    """Write every key once, so that no GET of the bench finds nothing."""
    numbers = iter(range(options.keys))
    value = b"x" * options.value_bytes

    async def writer(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            async with session.put(f"{url}/v1/kv/key{number:05}", data=value) as reply:
                if reply.status not in (200, 201):
                    raise DrillError(f"filling: {reply.status} {await reply.text()}")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(writer(session) for _ in range(FILL_CONNECTIONS)))


async def leader_of(endpoints: Sequence[str]) -> str:
    """The one of the endpoints that says it leads."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session:
        for url in endpoints:
            async with session.get(f"{url}/v1/status") as reply:
                if (await reply.json())["role"] == "leader":
                    return url
    raise DrillError(f"none of {', '.join(endpoints)} leads")


def shown_cpu(cpu_s: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {used:5.2f}" for name, used in cpu_s.items()) or "unknown"


def report(method: str, runs: Sequence[Run]) -> None:
    middle = {
        name: statistics.median(getattr(run, name) for run in runs)
        for name in ("per_second", "p50_ms", "p99_ms")
    }
    cpu_s = {name: statistics.median(run.cpu_s[name] for run in runs) for name in runs[0].cpu_s}
    say(
        f"{method}  median of {len(runs)}: {middle['per_second']:,.0f}/s  p50 {middle['p50_ms']:.2f} ms"
        f"  p99 {middle['p99_ms']:.2f} ms  errors {sum(run.failed for run in runs)}"
        f"  CPU s: {shown_cpu(cpu_s)}\n"
    )


async def measure(url: str, options: argparse.Namespace, nodes: Sequence[NodeProcess]) -> int:
    """Fill, then all the runs; how many requests failed."""
    await fill(url, options)
    failed = 0
    for method in options.methods:
        runs = []
        for number in range(1, options.repetitions + 1):
            run = await run_wrk(url, method, options, nodes)
            runs.append(run)
            failed += run.failed
            errors = ", ".join(f"{kind} {count}" for kind, count in run.errors.items()) or "none"
            say(
                f"{method}  run {number}: {run.per_second:9,.0f}/s  p50 {run.p50_ms:6.2f} ms"
                f"  p99 {run.p99_ms:6.2f} ms  max {run.max_ms:7.2f} ms"
                f"  errors: {errors}  CPU s: {shown_cpu(run.cpu_s)}"
            )
        report(method, runs)
    return failed


async def measure_idle(seconds: float, nodes: Sequence[NodeProcess]) -> None:
    await asyncio.sleep(SETTLE_S)
    meter = CpuMeter(nodes)
    await asyncio.sleep(seconds)
    used = meter.used_s()
    shown = "  ".join(f"{name} {100 * cpu_s / seconds:.1f} %" for name, cpu_s in used.items())
    say(f"idle over {seconds:g} s, of one core: {shown or 'unknown (no /proc)'}\n")


async def play(options: argparse.Namespace) -> int:
    if shutil.which("wrk") is None:
        raise DrillError(WRK_MISSING)
    say(
        f"{options.connections} connections, {options.seconds} s a run, {options.value_bytes}-byte values,"
        f" {options.keys:,} keys, {os.cpu_count()} cores shared by nodes and load\n"
    )
    if options.endpoints:
        failed = await measure(await leader_of(options.endpoints.rstrip("/").split(",")), options, [])
    else:
        async with running_cluster(options.directory) as cluster:
            if options.idle_seconds:
                await measure_idle(options.idle_seconds, cluster.nodes)
            leader = await cluster.leader()
            say(f"{leader.name} leads")
            failed = await measure(leader.url, options, cluster.nodes)
    if failed:
        say(f"FAIL bench: {failed} requests failed; the numbers above don't count")
    return 1 if failed else 0


def main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench", description="PUT and linearizable GET by wrk against the leader"
    )
    parser.add_argument("--seconds", type=int, help="of one run; 10, with --against 3")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of wrk")
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each kind; the median counts")
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--value-bytes", type=int, default=64)
    parser.add_argument(
        "--idle-seconds", type=float, default=10.0, help="measure the idle nodes first; 0: don't"
    )
    parser.add_argument("--methods", nargs="+", choices=["PUT", "GET"], default=["PUT", "GET"])
    parser.add_argument(
        "--endpoints", default="", help="http://...,http://... of a running cluster, instead of an own one"
    )
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the temporary data goes; must be a real disk"
    )
    parser.add_argument("--against", choices=["etcd"], help="compare with it, case by case, in turns")
    parser.add_argument("--cases", default="", help="with --against: those that this pattern finds")
    parser.add_argument(
        "--only-goals", action="store_true", help="with --against: the cases that there is a goal for"
    )
    parser.add_argument("--write", action="store_true", help="with --against: into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if options.seconds is None:
        options.seconds = 3 if options.against else 10
    if min(options.seconds, options.repetitions, options.connections, options.threads, options.keys) < 1:
        parser.error("numbers must be at least 1")
    return asyncio.run(versus.play(options) if options.against else play(options))


if __name__ == "__main__":
    run_drill(main)
