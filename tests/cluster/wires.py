"""The network between the nodes, in the hands of a test: one TCP relay for each ordered pair of nodes.

Every node is given its own addresses of its peers, which are relays. A relay passes bytes on; *silenced*, it
keeps them (as a network that drops packets: nobody is told); *torn*, the side towards one node sees a reset,
and new connections are refused, while the other side is left in silence (a link half open).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from raftkv.testing.cluster import free_ports
from tests.cluster.harness import Cluster, Node, running


class End(Protocol):
    """Of a wire: a node, or where one lives."""

    @property
    def name(self) -> str: ...

    @property
    def peer_port(self) -> int: ...


class Wire:
    """The relay for what ``source`` connects to ``target``. Without a ``port`` it isn't opened: others accept
    the connections, and have it ``carry`` them.
    """

    def __init__(self, source: End, target: End, port: int = 0) -> None:
        self.source, self.target, self.port = source, target, port
        self.lag_s = 0.0  # how long it holds what it passes on
        self._passing = asyncio.Event()
        self._passing.set()
        self._refusing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: dict[str, set[asyncio.StreamWriter]] = {source.name: set(), target.name: set()}
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self.carry, "127.0.0.1", self.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def silence(self) -> None:
        self._passing.clear()

    def tear(self, towards: End) -> None:
        """``towards`` sees its connections reset; the other end sees nothing at all."""
        self.silence()
        self._refusing = True
        for end in self._ends[towards.name]:
            end.transport.abort()

    def heal(self) -> None:
        self._refusing = False
        self._passing.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both its directions are over."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far: asyncio.StreamWriter | None = None
        try:
            if not self._refusing:
                far_reader, far = await asyncio.open_connection("127.0.0.1", self.target.peer_port)
                self._ends[self.source.name].add(writer)
                self._ends[self.target.name].add(far)
                await asyncio.gather(self._pump(reader, far), self._pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # the target is down, or the test is over
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()
            self._ends[self.source.name].discard(writer)
            if far is not None:
                self._ends[self.target.name].discard(far)
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """NB: the end of one side is passed on like its bytes: in silence it isn't."""
        data = b"any"
        while data:
            with contextlib.suppress(ConnectionError):
                data = b""
                data = await reader.read(1 << 16)
            if self.lag_s:
                await asyncio.sleep(self.lag_s)
            await self._passing.wait()
            if not data:
                writer.transport.abort()
                return
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                await writer.drain()


class Network:
    """All the wires."""

    def __init__(self, wires: Sequence[Wire]) -> None:
        self._wires = wires

    def of(self, node: Node) -> list[Wire]:
        return [wire for wire in self._wires if node in (wire.source, wire.target)]

    def isolate(self, node: Node) -> None:
        """Silence between ``node`` and all others: nobody is told."""
        for wire in self.of(node):
            wire.silence()

    def mute(self, node: Node) -> None:
        """What ``node`` says is lost (its replies on others' connections, too); it hears the others."""
        for wire in self.of(node):
            if wire.source == node:
                wire.silence()

    def forsake(self, node: Node) -> None:
        """The others see their connections with ``node`` reset; ``node`` sees nothing."""
        for wire in self.of(node):
            wire.tear(towards=wire.target if wire.source == node else wire.source)

    def part(self, one: Node, other: Node) -> None:
        """Both see their connections with each other reset, and refused from then on."""
        for wire in self._wires:
            if {wire.source.name, wire.target.name} == {one.name, other.name}:
                wire.tear(towards=one)
                wire.tear(towards=other)

    def heal(self) -> None:
        for wire in self._wires:
            wire.heal()


def make_wires(nodes: Sequence[Node]) -> list[Wire]:
    """A wire for each ordered pair, not open yet; every node is told to reach its peers through its own."""
    pairs = [(source, target) for source in nodes for target in nodes if source is not target]
    ports = free_ports(len(pairs))
    wires = [Wire(source, target, port) for (source, target), port in zip(pairs, ports, strict=True)]
    for node in nodes:
        seen = {wire.target.name: wire.port for wire in wires if wire.source is node}
        seen[node.name] = node.peer_port
        node.cluster = ",".join(f"{name}=127.0.0.1:{port}" for name, port in sorted(seen.items()))
    return wires


@asynccontextmanager
async def wired(
    directory: Path, size: int = 3, options: Sequence[str] = ()
) -> AsyncIterator[tuple[Cluster, Network]]:
    """A started cluster whose nodes reach each other through wires only."""
    # With a name, the cluster's identity doesn't come from the addresses, which differ from node to node.
    async with running(
        directory, size, options=("--cluster-name", "wired", *options), start=False
    ) as cluster:
        wires = make_wires(cluster.nodes)
        try:
            for wire in wires:
                await wire.open()
            for node in cluster.nodes:
                node.start()
            await cluster.leader()
            yield cluster, Network(wires)
        finally:
            for wire in wires:
                await wire.close()
