"""A cluster of real processes for the drills (bench, failover, crash_all): start, watch, kill, start again.

Every node is one ``raftkv serve`` with its own data directory on a real disk and a log file beside it. The
drills judge the server from outside: nothing here imports raftkv, it knows the command line and the REST
interface only.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import aiohttp

POLL_S = 0.02
START_DEADLINE_S = 30.0
CAUGHT_UP_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
PAGE_KEYS = 1_000
PORTS = (20_000, 32_000)
# On tmpfs an fsync costs nothing: what is measured there is not what is promised.
MEMORY_FILESYSTEMS = frozenset({"tmpfs", "ramfs"})


class DrillError(Exception):
    """The drill can't go on, or the cluster broke a promise; the message is for a person."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a node runs: its address, and what goes before its command (``network.py``)."""

    host: str = "127.0.0.1"
    wrapper: tuple[str, ...] = ()


@dataclass(slots=True)
class NodeProcess:
    """One server, alive or not. ``log_path`` collects its stderr and stdout over all its lives."""

    name: str
    url: str
    command: list[str]
    log_path: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        if self.process is None:
            raise DrillError(f"{self.name} was never started")
        return self.process.pid

    def start(self) -> None:
        if self.alive:
            raise DrillError(f"{self.name} is already running")
        with self.log_path.open("ab") as output:
            # NB: its own process group, so that Ctrl-C reaches the drill only, which then stops the nodes.
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def send(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9: no handler runs, no buffer is flushed. Returns at once; ``wait`` collects it."""
        self.send(signal.SIGKILL)

    def wait(self) -> None:
        if self.process is not None:
            self.process.wait(STOP_DEADLINE_S)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for who doesn't obey in time."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        self.send(signal.SIGCONT)  # a drill may have stopped it
        try:
            self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()

    def log_tail(self, lines: int = 15) -> str:
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


@dataclass(slots=True)
class Cluster:
    """The nodes, in order of their names, and one HTTP session to ask them with."""

    nodes: list[NodeProcess]
    session: aiohttp.ClientSession
    directory: Path
    kept: bool = field(default=False)  # leave the data directory behind: something in it needs looking at

    def others(self, *excluded: NodeProcess) -> list[NodeProcess]:
        return [node for node in self.nodes if node not in excluded]

    async def status(self, node: NodeProcess) -> dict[str, Any] | None:
        """The node's own ``/v1/status``; None if it doesn't answer."""
        try:
            async with self.session.get(f"{node.url}/v1/status", timeout=aiohttp.ClientTimeout(2)) as reply:
                status: dict[str, Any] = await reply.json()
                return status if reply.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def leader(self) -> NodeProcess:
        """The node that leads, once every living node names it."""
        found: list[NodeProcess] = []

        async def agreed() -> bool:
            living = [node for node in self.nodes if node.alive]
            statuses = [await self.status(node) for node in living]
            found[:] = [node for node, s in zip(living, statuses, strict=True) if s and s["role"] == "leader"]
            names = {s["leader"] if s else None for s in statuses}
            return len(found) == 1 and names == {found[0].name}

        await self.until(agreed, "all living nodes agree on a leader", START_DEADLINE_S)
        return found[0]

    async def caught_up(self, node: NodeProcess) -> float:
        """Wait until ``node`` has applied all that the leader has now; how long that took, in seconds."""
        started = time.perf_counter()
        status = await self.status(await self.leader())
        target = status["last_applied"] if status else 0

        async def applied() -> bool:
            own = await self.status(node)
            return own is not None and own["last_applied"] >= target

        await self.until(applied, f"{node.name} applied index {target}", CAUGHT_UP_DEADLINE_S)
        return time.perf_counter() - started

    async def until(self, condition: Callable[[], Any], what: str, deadline_s: float) -> None:
        """Poll an async condition; a node's own death, or the deadline, ends the drill with its log."""
        deadline = time.monotonic() + deadline_s
        expected = [node for node in self.nodes if node.alive]
        while not await condition():
            dead = [node for node in expected if not node.alive]
            if dead or time.monotonic() > deadline:
                self.kept = True
                why = f"{dead[0].name} stopped by itself" if dead else f"not within {deadline_s:.0f} s"
                logs = "\n".join(f"--- {node.name}\n{node.log_tail()}" for node in self.nodes)
                raise DrillError(f"{what}: {why}; data and logs are kept in {self.directory}\n{logs}")
            await asyncio.sleep(POLL_S)

    async def keys(self, node: NodeProcess, prefix: str) -> dict[str, dict[str, Any]]:
        """Every key with the prefix as ``node`` lists it, linearizably: key -> its JSON envelope."""
        found: dict[str, dict[str, Any]] = {}
        cursor = ""
        while True:
            url = f"{node.url}/v1/kv?prefix={quote(prefix, safe='')}&limit={PAGE_KEYS}&timeout=20s"
            async with self.session.get(
                url + (f"&cursor={quote(cursor, safe='')}" if cursor else "")
            ) as reply:
                page: dict[str, Any] = await reply.json(content_type=None)
                if reply.status != 200:
                    raise DrillError(f"listing {prefix!r} through {node.name}: {reply.status} {page}")
            found.update((item["key"], item) for item in page["items"])
            cursor = page.get("cursor") or ""
            if not cursor:
                return found


@asynccontextmanager
async def running_cluster(
    directory: Path | None = None,
    size: int = 3,
    prepare: Callable[[Sequence[NodeProcess]], None] = lambda nodes: None,
    options: Sequence[str] = (),
    seats: Sequence[Seat] = (),
) -> AsyncIterator[Cluster]:
    """A started cluster with a leader; stopped, and its data removed, on the way out. ``prepare`` may fill
    the nodes' directories before they start. ``options``: more of ``raftkv serve``'s. ``seats``: one for each
    node; default: all on this machine's own address.

    ``directory`` is where the temporary data directory is made; default: the system's place for temporary
    files that outlive a restart, which is on a disk where ``/tmp`` often is in memory.
    """
    root = make_directory(directory)
    kind = filesystem(root)
    if kind in MEMORY_FILESYSTEMS:
        say(f"NB: {root} is on {kind}: its fsync costs nothing, so these numbers say little; use --directory")
    nodes = list(make_nodes(root, seats or [Seat()] * size, options))
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        cluster = Cluster(nodes, session, root)
        try:
            prepare(nodes)
            for node in nodes:
                node.start()
            await cluster.leader()
            yield cluster
        finally:
            for node in nodes:
                node.stop()
            if not cluster.kept:
                shutil.rmtree(root, ignore_errors=True)


def make_directory(parent: Path | None) -> Path:
    parent = parent or next((p for p in (Path("/var/tmp"),) if p.is_dir()), Path(tempfile.gettempdir()))
    return Path(tempfile.mkdtemp(prefix="raftkv-drill-", dir=parent))


def make_nodes(root: Path, seats: Sequence[Seat], more: Sequence[str] = ()) -> Iterable[NodeProcess]:
    raftkv = shutil.which("raftkv", path=str(Path(sys.executable).parent)) or shutil.which("raftkv")
    if raftkv is None:
        raise DrillError("there is no raftkv command; run the drill by its script (scripts/bench, ...)")
    size = len(seats)
    ports = free_ports(2 * size)
    peers = [f"n{i + 1}={seat.host}:{ports[size + i]}" for i, seat in enumerate(seats)]
    for i, seat in enumerate(seats):
        name, client = f"n{i + 1}", f"{seat.host}:{ports[i]}"
        options = {
            "--id": name,
            "--data-dir": str(root / name),
            "--listen": client,
            "--peer-listen": f"{seat.host}:{ports[size + i]}",
            "--cluster": ",".join(peers),
        }
        flags = (part for option in options.items() for part in option)
        command = [*seat.wrapper, raftkv, "serve", *flags, *more]
        yield NodeProcess(name, f"http://{client}", command, root / f"{name}.log")


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, below the range the system hands out for outgoing connections.

    NB: a port of that range would do until a node is killed: then a client's connection may take it before
    the node is back.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(*PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def filesystem(path: Path) -> str:
    """The type of the filesystem ``path`` is on, where /proc tells (Linux); else ``unknown``."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    resolved = path.resolve()
    fitting = [(len(place), kind) for place, kind in mounts if resolved.is_relative_to(place)]
    return max(fitting)[1] if fitting else "unknown"


def say(text: str, out: TextIO = sys.stdout) -> None:
    """A line for the person who watches, at once even into a pipe."""
    print(text, file=out, flush=True)


def run_drill(main: Callable[[Sequence[str] | None], int]) -> None:
    """Run a drill's ``main``; a broken promise is one message and exit code 1, not a traceback."""
    try:
        sys.exit(main(None))
    except (DrillError, aiohttp.ClientError) as problem:
        say(f"FAIL: {problem}", sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
