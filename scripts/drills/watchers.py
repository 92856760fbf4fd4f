"""What idle watchers cost the leader of three local nodes: memory, CPU while nothing happens, and PUTs to
other keys by wrk, without them and with them in turns. Memory and CPU come from /proc and so on Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from bench import WRK_MISSING, CpuMeter, Run, fill, run_wrk
from harness import DrillError, NodeProcess, run_drill, running_cluster, say

AT_ONCE = 100  # connections made
MIB = 1 << 20


class Watching(asyncio.Protocol):
    """One connection with a watcher of one key, and what came."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.transport: asyncio.Transport | None = None
        self.begun = asyncio.get_running_loop().create_future()
        self.events = 0
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(f"GET /v1/watch?key={self._key}&timeout=30s HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self.events += data.count(b"event: ")
        if self.events and not self.begun.done():
            self.begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if not self.begun.done():
            self.begun.set_exception(DrillError(f"a watcher was not taken: {exc}"))


@asynccontextmanager
async def watching(node: NodeProcess, number: int) -> AsyncIterator[list[Watching]]:
    """So many watchers, each of a key of its own that nobody writes. Raises ``DrillError`` if one is lost."""
    loop = asyncio.get_running_loop()
    host, _, port = node.url.removeprefix("http://").rpartition(":")
    watchers: list[Watching] = []
    try:
        while len(watchers) < number:
            keys = range(len(watchers), min(number, len(watchers) + AT_ONCE))
            more = [Watching(f"idle{key}") for key in keys]
            watchers += more
            for each in more:
                await loop.create_connection(lambda each=each: each, host, int(port))  # type: ignore[misc]
            await asyncio.gather(*(each.begun for each in more))
        yield watchers
        if lost := sum(each.is_lost for each in watchers):
            raise DrillError(f"{lost} of {number} watchers were lost")
    finally:
        for each in watchers:
            if each.transport is not None:
                each.transport.abort()


def memory_mib(node: NodeProcess) -> float:
    """What the process holds in memory now."""
    pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


async def idle_percent(node: NodeProcess, seconds: float) -> float:
    meter = CpuMeter([node])
    await asyncio.sleep(seconds)
    used_s: float = meter.used_s()[node.name]
    return 100 * used_s / seconds


async def warm(url: str) -> None:
    """What is made once, at the first watch."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/kv/none?wait=1ms") as reply:
        if reply.status != 304:
            raise DrillError(f"{reply.status} {await reply.text()}")


async def puts(leader: NodeProcess, options: argparse.Namespace) -> Run:
    """By wrk, to keys that nobody watches."""
    run = await run_wrk(leader.url, "PUT", options, [leader])
    if run.failed:
        raise DrillError(f"{run.failed} PUTs failed: {dict(run.errors)}")
    return run


async def compare_idle(leader: NodeProcess, options: argparse.Namespace) -> None:
    before_mib, before_cpu = memory_mib(leader), await idle_percent(leader, options.idle_seconds)
    async with watching(leader, options.watchers) as watchers:
        after_mib = memory_mib(leader)
        after_cpu = await idle_percent(leader, options.idle_seconds)
        events = min(each.events for each in watchers)
    each_kib = (after_mib - before_mib) * 1024 / options.watchers
    say(f"memory: {before_mib:.0f} MiB without, {after_mib:.0f} MiB with: {each_kib:.1f} KiB each")
    say(
        f"CPU over {options.idle_seconds:g} s, of one core: {before_cpu:.1f} % without,"
        f" {after_cpu:.1f} % with ({events} events each)"
    )


async def compare_puts(leader: NodeProcess, options: argparse.Namespace) -> None:
    without: list[Run] = []
    beside: list[Run] = []
    for number in range(1, options.repetitions + 1):
        without.append(await puts(leader, options))
        async with watching(leader, options.watchers):
            beside.append(await puts(leader, options))
        say(f"PUT run {number}: {shown(without[-1:])} without; {shown(beside[-1:])} with")
    ratio = statistics.median(
        more.per_second / none.per_second for none, more in zip(without, beside, strict=True)
    )
    say(f"PUT medians: {shown(without)} without; {shown(beside)} with; ratio {ratio:.2f}, load {load():.1f}")


def shown(runs: Sequence[Run]) -> str:
    """Their medians."""
    per_second, p99_ms = (
        statistics.median(figures)
        for figures in zip(*((run.per_second, run.p99_ms) for run in runs), strict=True)
    )
    return f"{per_second:,.0f}/s p99 {p99_ms:.1f} ms"


def load() -> float:
    """Of the machine, in the last minute."""
    return os.getloadavg()[0]


async def play(options: argparse.Namespace) -> int:
    if shutil.which("wrk") is None:
        raise DrillError(WRK_MISSING)
    say(f"load average {load():.1f}")
    async with running_cluster(options.directory) as cluster:
        leader = await cluster.leader()
        say(f"{options.watchers:,} watchers, each of a key of its own, on the leader of three nodes")
        await warm(leader.url)
        await fill(leader.url, options)  # each key is there, and the memory is in use
        if options.idle_seconds:
            await compare_idle(leader, options)
        await compare_puts(leader, options)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="watchers", description="what idle watchers cost")
    parser.add_argument("--watchers", type=int, default=10_000)
    parser.add_argument("--idle-seconds", type=float, default=30.0, help="0: only the PUTs")
    parser.add_argument("--repetitions", type=int, default=3, help="of the PUTs, without and with")
    parser.add_argument("--seconds", type=int, default=5, help="of one run of PUTs")
    parser.add_argument("--connections", type=int, default=64, help="of wrk")
    parser.add_argument("--threads", type=int, default=1, help="of wrk")
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--value-bytes", type=int, default=64)
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the temporary data goes; must be a real disk"
    )
    return asyncio.run(play(parser.parse_args(arguments)))


if __name__ == "__main__":
    run_drill(main)
