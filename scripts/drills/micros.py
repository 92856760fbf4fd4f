"""Where each microsecond of a PUT, a linearizable and a stale GET goes on the leader.

wrk asks, py-spy samples. The processor time of the leader's threads by request comes from /proc, the shares
of the loop's thread from samples of its stack, native frames included: each sample belongs to its innermost
frame that a part below knows. Linux only. The load shares the cores with the nodes; it isn't part of the
figures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import DrillError, NodeProcess, run_drill, running_cluster, say
from stores import Entry, Store, fill, store_of
from versus import wrk

REQUESTS = {"PUT": "put", "GET": "get", "stale GET": "stale"}  # as store.lua calls them
CONNECTIONS = 64
KEYS = 10_000
VALUE_BYTES = 64
RATE_HZ = 200
WARM_S = 2

# The first that matches a frame, from the innermost outwards. A frame is "function (file:line)".
PARTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("kernel: sockets, out", re.compile(r"^(__)?(libc_)?(write|writev|send|sendmsg|sendto) \(")),
    ("kernel: sockets, in", re.compile(r"^(__)?(libc_)?(read|readv|recv|recvmsg|recvfrom) \(")),
    ("kernel: events", re.compile(r"^(__)?epoll_")),
    ("HTTP parser (aiohttp's, in C)", re.compile(r"_http_parser|llhttp|multidict|yarl|aiohttp/streams")),
    ("peer links: WebSocket frames", re.compile(r"raftkv/(transport|wire)|_websocket|(web|client)_ws")),
    ("aiohttp, else", re.compile(r"aiohttp/")),
    ("REST: request and answer", re.compile(r"raftkv/api")),
    ("consensus and replica", re.compile(r"raftkv/(consensus|replica|reading|waiting|handover|members)")),
    ("machine: apply and read", re.compile(r"raftkv/kv")),
    ("log: encoding, handing to the disk", re.compile(r"raftkv/storage")),
    ("driver: the turn", re.compile(r"raftkv/(server|tallies)")),
    ("event loop", re.compile(r"asyncio/|uvloop")),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """Microseconds of processor time by request. ``parts``: of the loop's thread."""

    per_second: float
    parts: Mapping[str, float]
    disk_us: float  # the leader's other threads
    followers_us: float  # both together

    @property
    def leader_us(self) -> float:
        return sum(self.parts.values()) + self.disk_us


def part_of(stack: Sequence[str]) -> str:
    """``stack``: frames, outermost first."""
    for frame in reversed(stack):
        for name, pattern in PARTS:
            if pattern.search(frame):
                return name
    return "event loop"


def shares_of(raw: str) -> dict[str, float]:
    """Of py-spy's raw output, a line for each stack: ``frame;frame;... samples``. The loop's thread only."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        frames, _, samples = line.rpartition(" ")
        stack = frames.split(";")
        if not any("threading.py" in frame for frame in stack):
            counts[part_of(stack)] += int(samples)
    return {name: count / counts.total() for name, count in counts.items()}


def thread_seconds(pid: int) -> dict[int, float]:
    """Processor time of each thread so far."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        text = (thread / "stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()
        found[int(thread.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


async def profile(store: Store, operation: str, seconds: int, directory: Path) -> Profile:
    leader = store.processes[0]
    load = (store.kind, operation, str(KEYS), str(VALUE_BYTES))
    await wrk(store.addresses("leader"), load, CONNECTIONS, WARM_S)
    # Measured first without py-spy, which stops the process for each of its samples.
    before = [thread_seconds(each.pid) for each in store.processes]
    run = await wrk(store.addresses("leader"), load, CONNECTIONS, seconds)
    used = [
        {thread: s - then.get(thread, 0.0) for thread, s in thread_seconds(each.pid).items()}
        for each, then in zip(store.processes, before, strict=True)
    ]
    if run.failed:
        raise DrillError(f"{run.failed} requests failed")
    asked = asyncio.create_task(wrk(store.addresses("leader"), load, CONNECTIONS, seconds + 1))
    shares = shares_of(await sample(leader, seconds, directory / f"{operation}.raw"))
    await asked
    to_us = 1e6 / (run.per_second * seconds)
    loop_us = used[0][leader.pid] * to_us
    return Profile(
        run.per_second,
        {name: share * loop_us for name, share in shares.items()},
        sum(used[0].values()) * to_us - loop_us,
        sum(sum(each.values()) for each in used[1:]) * to_us,
    )


def py_spy() -> str:
    found = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        raise DrillError("py-spy is not here: .venv/bin/pip install py-spy")
    return found


async def sample(node: NodeProcess, seconds: int, path: Path) -> str:
    command = [py_spy(), "record", "--native", "-f", "raw", "-r", str(RATE_HZ), "-d", str(seconds)]
    process = await asyncio.create_subprocess_exec(
        *command,
        *("-o", str(path), "--pid", str(node.pid)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    if process.returncode != 0:
        raise DrillError(f"py-spy failed (exit {process.returncode}):\n{output}")
    return path.read_text()  # noqa: ASYNC240 - nothing else goes on


def table(profiles: Mapping[str, Profile]) -> str:
    lines = [f"| µs of a request | {' | '.join(profiles)} |", f"|---|{'---:|' * len(profiles)}"]

    def row(name: str, figures: Sequence[float]) -> str:
        return f"| {name} | {' | '.join(f'{figure:.1f}' for figure in figures)} |"

    found = profiles.values()
    lines += [row(name, [each.parts.get(name, 0.0) for each in found]) for name, _ in PARTS]
    lines.append(row("disk thread", [each.disk_us for each in found]))
    lines.append(row("**the leader**", [each.leader_us for each in found]))
    lines.append(row("the followers, together", [each.followers_us for each in found]))
    lines.append(row("requests a second", [each.per_second for each in found]))
    return "\n".join(lines)


async def play(options: argparse.Namespace) -> int:
    py_spy()
    async with running_cluster(options.directory) as cluster:
        store = await store_of(cluster, Entry("raftkv"))
        await fill(store, KEYS, VALUE_BYTES)
        with tempfile.TemporaryDirectory() as directory:
            profiles = {
                name: await profile(store, operation, options.seconds, Path(directory))
                for name, operation in REQUESTS.items()
            }
    say(table(profiles))
    return 0


def main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="profile", description="where the leader's processor time goes")
    parser.add_argument("--seconds", type=int, default=8, help="of each of the measurements")
    parser.add_argument("--directory", type=Path, default=None, help="where the temporary data goes")
    return asyncio.run(play(parser.parse_args(arguments)))


if __name__ == "__main__":
    run_drill(main)
