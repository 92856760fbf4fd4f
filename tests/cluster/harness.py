"""A cluster of real processes under test: real disks, real HTTP, real signals.

Rules:
- A node is ``python -m raftkv serve`` with its own data directory, and is judged from outside: by HTTP, by
  its exit code, by what it logs.
- Nothing waits for a time: ``until`` polls a condition up to a deadline, and fails with the ends of the logs.
- However a test ends, its processes end with it, and a traceback in any node's log fails the test.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from raftkv.testing.cluster import free_ports

POLL_S = 0.02
DEADLINE_S = 30.0
STOP_DEADLINE_S = 15.0
PAGE_KEYS = 1_000
# The only events that may carry a traceback: a node that stops because of it.
FATAL_EVENT = "this node stops"
# How the line begins that says why a node doesn't start, or stopped by itself.
VERDICT = "Error: "


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; ``body`` is the JSON where it is JSON, else ``{}``."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    body: dict[str, Any]


@dataclass(slots=True)
class Node:
    """One server, alive or not. Its log collects the stderr of all its lives."""

    name: str
    port: int
    peer_port: int
    data_dir: Path
    log_path: Path
    cluster: str
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    host: str = "127.0.0.1"
    module: tuple[str, ...] = ("raftkv",)  # what runs it, and that one's own arguments
    join: str = ""  # the URL of a node whose cluster it is to be added to, instead of founding ``cluster``

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def peer_address(self) -> str:
        return f"{self.host}:{self.peer_port}"

    @property
    def command(self) -> list[str]:
        named = {
            "--id": self.name,
            "--data-dir": str(self.data_dir),
            "--listen": f"{self.host}:{self.port}",
            "--peer-listen": f"{self.host}:{self.peer_port}",
            **({"--join": self.join} if self.join else {"--cluster": self.cluster}),
            "--log-format": "json",
        }
        given = [part for option in named.items() for part in option]
        return [sys.executable, "-m", *self.module, "serve", *given, *self.options]

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    def start(self, wrapper: Sequence[str] = ()) -> None:
        """``wrapper`` goes before the command, and must become the node's process (as strace -D does)."""
        assert not self.alive, f"{self.name} is already running"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*wrapper, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9: no handler runs, no buffer is flushed."""
        if self.alive:
            self.signal(signal.SIGKILL)

    async def exit_code(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Wait for the end of the process; negative: killed by that signal."""
        process = self.process
        assert process is not None
        await until(lambda: process.poll() is not None, f"{self.name} ends", deadline_s)
        assert process.returncode is not None
        return process.returncode

    def log_lines(self) -> list[str]:
        return self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []

    def events(self) -> list[dict[str, Any]]:
        """What it logged, oldest first, over all its lives."""
        return [json.loads(line) for line in self.log_lines() if line.startswith("{")]

    def last_words(self) -> list[str]:
        """Its lines that aren't of the log: meant for the person who started it."""
        return [line for line in self.log_lines() if not line.startswith("{")]

    def mistakes(self) -> list[str]:
        """Lines that no node may ever log: tracebacks, bugs, libraries' complaints."""
        found = [line for line in self.last_words() if not line.startswith((VERDICT, "strace: "))]
        for event in self.events():
            is_traceback = "exception" in event and event["event"] != FATAL_EVENT
            if is_traceback or event["event"] in ("a request failed", "a connection failed"):
                found.append(json.dumps(event))
        return [f"{self.name}: {line}" for line in found]


@dataclass(slots=True)
class Cluster:
    """The nodes, in order of their names, and a session to ask them with."""

    nodes: list[Node]
    session: aiohttp.ClientSession
    directory: Path

    def others(self, *excluded: Node) -> list[Node]:
        return [node for node in self.nodes if node not in excluded]

    async def request(self, method: str, node: Node, path: str, **arguments: Any) -> Reply:
        """One request, never repeated."""
        # NB: aiohttp repeats a PUT if a kept connection turns out broken.
        headers = {"Connection": "close", **arguments.pop("headers", {})}
        async with self.session.request(method, node.url + path, headers=headers, **arguments) as answer:
            raw = await answer.read()
            is_json = answer.content_type.endswith("json")
            return Reply(answer.status, answer.headers, raw, json.loads(raw) if is_json and raw else {})

    async def put(self, node: Node, key: str, value: str, query: str = "") -> Reply:
        return await self.request("PUT", node, f"/v1/kv/{key}{query}", data=value.encode())

    async def get(self, node: Node, key: str, query: str = "") -> Reply:
        return await self.request("GET", node, f"/v1/kv/{key}{query}")

    async def status(self, node: Node) -> dict[str, Any] | None:
        """The node's own ``/v1/status``; None if it doesn't answer."""
        try:
            reply = await self.request("GET", node, "/v1/status", timeout=aiohttp.ClientTimeout(2))
        except (aiohttp.ClientError, TimeoutError):
            return None
        return reply.body if reply.status == 200 else None

    async def leader(self, among: Sequence[Node] | None = None, deadline_s: float = DEADLINE_S) -> Node:
        """Who leads, once all of ``among`` (default: those alive) name the same node, and it agrees."""
        found: list[Node] = []

        async def agreed() -> bool:
            asked = [node for node in self.nodes if node.alive] if among is None else among
            statuses = [await self.status(node) for node in asked]
            found[:] = [n for n, s in zip(asked, statuses, strict=True) if s and s["role"] == "leader"]
            return len(found) == 1 and {s["leader"] if s else None for s in statuses} == {found[0].name}

        await self.until(agreed, "the nodes agree on a leader", deadline_s)
        return found[0]

    async def serves_or_ended(self, node: Node) -> None:
        """Wait until ``node`` answers (with or without a leader), or its process is over."""

        async def decided() -> bool:
            return not node.alive or await self.status(node) is not None

        await self.until(decided, f"{node.name} serves or ends")

    async def caught_up(self, node: Node, deadline_s: float = DEADLINE_S) -> None:
        """Wait until ``node`` has applied all that its leader has committed now."""
        status = await self.status(await self.leader())
        assert status is not None
        target = status["commit_index"]

        async def applied() -> bool:
            own = await self.status(node)
            return own is not None and own["last_applied"] >= target

        await self.until(applied, f"{node.name} applied entry {target}", deadline_s)

    async def until(
        self, condition: Callable[[], bool | Awaitable[bool]], what: str, deadline_s: float = DEADLINE_S
    ) -> None:
        """As the module's ``until``; a failure shows the end of each node's log."""
        try:
            await until(condition, what, deadline_s)
        except AssertionError as error:
            tails = [f"--- {node.name}\n" + "\n".join(node.log_lines()[-12:]) for node in self.nodes]
            raise AssertionError("\n".join([str(error), *tails])) from None

    async def items(self, node: Node, prefix: str) -> dict[str, dict[str, Any]]:
        """All that ``node`` lists under the prefix, linearizably: key -> its JSON envelope."""
        found: dict[str, dict[str, Any]] = {}
        cursor: str | None = ""
        while cursor is not None:
            path = f"/v1/kv?prefix={quote(prefix, safe='')}&limit={PAGE_KEYS}&timeout=20s"
            reply = await self.request("GET", node, path + (f"&cursor={cursor}" if cursor else ""))
            assert reply.status == 200, reply
            found.update((item["key"], item) for item in reply.body["items"])
            cursor = reply.body["cursor"]
        return found


async def until(
    condition: Callable[[], bool | Awaitable[bool]], what: str, deadline_s: float = DEADLINE_S
) -> None:
    """Poll ``condition`` (it may be async) until it holds; AssertionError after the deadline."""
    deadline = time.monotonic() + deadline_s
    while True:
        held = condition()
        if await held if isinstance(held, Awaitable) else held:
            return
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(POLL_S)


@asynccontextmanager
async def running(
    directory: Path, size: int = 3, *, options: Sequence[str] = (), start: bool = True
) -> AsyncIterator[Cluster]:
    """A started cluster with a leader. ``options``: more of ``raftkv serve``'s, for every node.

    ``start`` False: the test starts the nodes.
    """
    nodes = make_nodes(directory, size, options)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(DEADLINE_S)
    ) as session:
        cluster = Cluster(nodes, session, directory)
        try:
            if start:
                for node in nodes:
                    node.start()
                await cluster.leader()
            yield cluster
        finally:
            end(nodes)
        mistakes = [line for node in nodes for line in node.mistakes()]
        assert not mistakes, "\n".join(mistakes)


def end(nodes: Sequence[Node]) -> None:
    """kill -9 whatever still runs, also what is stopped."""
    for node in nodes:
        node.kill()
    for node in nodes:
        if node.process is not None:
            node.process.wait(STOP_DEADLINE_S)


def make_nodes(directory: Path, size: int, options: Sequence[str] = ()) -> list[Node]:
    """Nodes n1, n2 ... on free ports, not started."""
    ports = free_ports(2 * size)
    peers = {f"n{i + 1}": ports[size + i] for i in range(size)}
    cluster = ",".join(f"{name}=127.0.0.1:{port}" for name, port in peers.items())
    return [
        Node(name, ports[i], port, directory / name, directory / f"{name}.log", cluster, tuple(options))
        for i, (name, port) in enumerate(peers.items())
    ]
