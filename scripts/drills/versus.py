"""scripts/bench --against etcd: both stores on this machine, in turns, and the floors under them.

A case is measured as A B A B ..., one after the other, so that what wanders in the machine meets all; what
counts are medians, and the medians of the ratios of turns. Stores that aren't asked stay up, idle.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.util
import json
import os
import random
import re
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from cases import GOALS, PACED, Case, Figures, Run, all_cases
from floors import Floors, fdatasync_ms, running_bare, websocket_ms
from harness import DrillError, say
from paced import paced
from stores import STAGES, Store, fill, grpc_put, grpc_range, leads, put_request, running, take_snapshot
from versus_report import floors_text, goals, plot, table, tables, write_document

SCRIPT = Path(__file__).with_name("store.lua")
_ERRORS = ("refused", "connect", "read", "write", "timeout")
MAX_FILLED_BYTES = 64 << 20  # of values
_TOOLS = {"wrk": "wrk", "h2load": "nghttp2-client"}


async def wrk(addresses: tuple[str, ...], operation: tuple[str, ...], connections: int, seconds: int) -> Run:
    """``operation``: store.lua's arguments; none: GET / of whatever is there."""
    threads = min(len(addresses), connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(SCRIPT), f"http://{addresses[0]}/", "--", *operation]
    found = await _output(command, {"STORE_ADDRESSES": ",".join(addresses)})
    lines = [line for line in found.splitlines() if line.startswith('{"requests"')]
    if not lines:
        raise DrillError(f"wrk said nothing of its results:\n{found}")
    result: dict[str, int] = json.loads(lines[-1])
    failed = sum(result[kind] for kind in _ERRORS)
    done = result["requests"] - result["refused"]
    return Run(done / (result["duration_us"] / 1e6), result["p50_us"] / 1e3, result["p99_us"] / 1e3, failed)


async def h2load(address: str, case: Case, keys: int, seconds: int, directory: Path) -> Run:
    """etcd's gRPC, always the same key: h2load sends one body."""
    assert case.grpc is not None
    connections, streams = case.grpc
    body, log = directory / "grpc.body", directory / "grpc.log"
    key = b"key%05d" % (keys // 2)
    body.write_bytes(grpc_put(key, b"x" * case.value_bytes) if case.operation == "put" else grpc_range(key))
    log.unlink(missing_ok=True)
    method = "Put" if case.operation == "put" else "Range"
    command = ["h2load", f"-c{connections}", f"-m{streams}", "-t1", f"-D{seconds}", f"--log-file={log}"]
    command += [f"--data={body}", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    found = await _output([*command, f"http://{address}/etcdserverpb.KV/{method}"], {})
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", found)
    if counts is None:
        raise DrillError(f"h2load said nothing of its results:\n{found}")
    times_ms = sorted(int(line.split("\t")[2]) / 1e3 for line in log.read_text().splitlines())
    succeeded, failed = int(counts[1]), int(counts[2]) + int(counts[4])
    p99_ms = times_ms[len(times_ms) * 99 // 100]
    return Run(succeeded / seconds, statistics.median(times_ms), p99_ms, failed)


async def _output(command: list[str], more: Mapping[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **more}
    )
    output = (await process.communicate())[0].decode()
    if process.returncode != 0:
        raise DrillError(f"{command[0]} failed (exit {process.returncode}):\n{output}")
    return output


class Match:
    """The contenders of a stage, started, and how each is asked."""

    def __init__(self, stores: Mapping[str, Store], bare: int, directory: Path, options: argparse.Namespace):
        self._stores = stores
        self._bare = f"127.0.0.1:{bare}"
        self._directory = directory
        self._options = options
        self._filled_bytes = 0

    async def turn(self, case: Case, contender: str) -> Run:
        seconds = self._options.seconds
        if contender == "grpc":
            nodes = self._stores["etcd"].nodes
            return await h2load(nodes[0], case, self._keys(1, case.value_bytes), seconds, self._directory)
        if contender == "bare":
            return await wrk((self._bare,), ("raftkv", case.operation, "1", "1"), case.connections, seconds)
        store = self._stores[contender]
        keys = self._keys(store.growth, case.value_bytes)
        operation = "put" if case.operation in PACED else case.operation
        load = (store.kind, operation, str(keys), str(case.value_bytes))
        full = await wrk(store.addresses(case.target), load, case.connections, seconds)
        return await self._half(case, store, keys, full) if case.operation in PACED else full

    async def _half(self, case: Case, store: Store, keys: int, full: Run) -> Run:
        """At half the rate of ``full``."""
        chance, value = random.Random(1), b"x" * case.value_bytes
        request = lambda: put_request(store, chance.randrange(keys), value)  # noqa: E731
        meanwhile = (
            take_snapshot(store) if case.operation == "snapshot" else asyncio.sleep(self._options.seconds)
        )
        run = await paced(store.nodes[0], request, full.per_second / 2, meanwhile)
        return dataclasses.replace(run, failed=run.failed + full.failed)

    def _keys(self, growth: int, value_bytes: int) -> int:
        """How many are written and read: fewer where values are large, for filling to take seconds."""
        keys: int = self._options.keys
        return growth * min(keys, max(1, MAX_FILLED_BYTES // value_bytes))

    async def fill(self, value_bytes: int) -> None:
        if value_bytes != self._filled_bytes:
            for store in self._stores.values():
                await fill(store, self._keys(store.growth, value_bytes), value_bytes)
            self._filled_bytes = value_bytes

    async def look_at_leaders(self) -> None:
        """On a starved machine a leader may lose its place, and "leader" then means a follower."""
        for name, store in self._stores.items():
            if not await leads(store):
                say(f"NB: {name} has another leader than at first; what is measured at it is a follower's")


async def measured_floors(bare: int, directory: Path, seconds: int) -> Floors:
    """The round trip of one HTTP connection is the bare handler's p50."""
    alone = await wrk((f"127.0.0.1:{bare}",), ("raftkv", "stale", "1", "1"), 1, min(2, seconds))
    return Floors(fdatasync_ms(directory), await websocket_ms(bare), alone.p50_ms)


def chosen(options: argparse.Namespace) -> list[Case]:
    """Raises ``DrillError`` where no case is, or what it takes isn't here."""
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise DrillError(f"{tool} is not here. Debian, Ubuntu: apt install {package}")
    if options.write and importlib.util.find_spec("matplotlib") is None:
        raise DrillError("--write makes a plot, too, and needs matplotlib: pip install 'matplotlib>=3.8'")
    goals = {goal.case for goal in GOALS}
    candidates = [case for case in all_cases() if case in goals or not options.only_goals]
    cases = [case for case in candidates if re.search(options.cases, case.name)]
    if not cases:
        names = "\n".join(case.name for case in candidates)
        raise DrillError(f"no case matches {options.cases!r}; there are\n{names}")
    return sorted(cases, key=lambda case: (list(STAGES).index(case.stage), case.value_bytes))


async def play(options: argparse.Namespace) -> int:
    cases = chosen(options)
    root = Path(tempfile.mkdtemp(prefix="raftkv-bench-", dir=options.directory or "/var/tmp"))
    runs: dict[tuple[Case, str], list[Run]] = {}
    versions: dict[str, str] = {}
    try:
        async with running_bare() as bare:
            floors = [await measured_floors(bare, root, options.seconds)]
            for stage, staged in groupby(cases, lambda case: case.stage):
                async with running(stage, root, options.directory) as stores:
                    versions |= {store.kind: store.version for store in stores.values()}
                    match = Match(stores, bare, root, options)
                    for case in staged:
                        await match.fill(case.value_bytes)
                        await _turns(match, case, runs, options.repetitions)
                        await match.look_at_leaders()
                        say("  ".join(table(Figures(runs, floors[0]), [case]).splitlines()[2:]))
            floors.append(await measured_floors(bare, root, options.seconds))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    figures = Figures(runs, Floors.middle(floors))
    if options.write:
        plot(figures, cases)
        write_document(figures, cases, versions, options)
    say(f"\n{tables(figures, cases)}\n{goals(figures)}\n{floors_text(figures)}")
    failed = sum(run.failed for turns in runs.values() for run in turns)
    if failed:
        say(f"FAIL bench: {failed} requests failed; the numbers above don't count")
    return 1 if failed else 0


async def _turns(match: Match, case: Case, runs: dict[tuple[Case, str], list[Run]], repetitions: int) -> None:
    for turn in range(repetitions):
        for contender in case.contenders if turn % 2 == 0 else reversed(case.contenders):
            run = await match.turn(case, contender)
            runs.setdefault((case, contender), []).append(run)
