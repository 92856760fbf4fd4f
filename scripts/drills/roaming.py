"""A writer with one kept connection that goes to another node only when nothing can be lost by it.

It asks the next node when a connection is refused, when its own was closed before it sent a request, and
after an answer that says ``Connection: close``. What fails once a request has left is a failed request. A
library that repeats such requests would hide what the drill is about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness import DrillError, NodeProcess
from load import REQUEST_TIMEOUT_S, VALUE_BYTES, Ack

CONNECT_TIMEOUT_S = 2.0
ROUND_PAUSE_S = 0.005  # after every node has refused


@dataclass(slots=True)
class Connection:
    node: NodeProcess
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_last: bool = False  # the node said so: it takes no more requests

    @property
    def is_usable(self) -> bool:
        return not (self.is_last or self.reader.at_eof() or self.writer.is_closing())

    async def put(self, key: str, value: str) -> tuple[int, str]:
        """Send one request; its status and body. Raises what a connection that breaks raises."""
        host = self.node.url.removeprefix("http://")
        head = f"PUT /v1/kv/{key} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(value)}\r\n\r\n"
        self.writer.write(head.encode() + value.encode())
        await self.writer.drain()
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in answer[1:])}
        body = await self.reader.readexactly(int(headers["content-length"]))
        self.is_last = headers.get("connection", "").lower() == "close"
        return int(answer[0].split(" ")[1]), body.decode()


@dataclass(slots=True)
class Roamer:
    """Writes ``prefix`` + number, each once, until told to stop."""

    nodes: Sequence[NodeProcess]
    prefix: str
    first: int  # which node it begins with
    acks: list[Ack] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    moves: int = 0  # to another node
    stopping: bool = False

    async def run(self) -> None:
        connection: Connection | None = None
        number = 0
        while not self.stopping:
            if connection is None or not connection.is_usable:
                if connection is not None:
                    connection.writer.close()
                    self.moves += 1
                connection = await self._connect()
            key = f"{self.prefix}{number:07}"
            value = key.ljust(VALUE_BYTES, ".")
            number += 1
            sent_at = time.perf_counter()
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    status, body = await connection.put(key, value)
            except (OSError, EOFError, TimeoutError) as problem:
                self.failures[key] = f"{connection.node.name}: {type(problem).__name__} {problem}"
                connection.is_last = True
                continue
            if status == 201:
                self.acks.append(Ack(key, value, sent_at, time.perf_counter()))
            else:
                self.failures[key] = f"{connection.node.name}: {status} {body.strip()[:200]}"
        if connection is not None:
            connection.writer.close()

    async def _connect(self) -> Connection:
        deadline = time.perf_counter() + REQUEST_TIMEOUT_S
        while time.perf_counter() < deadline:
            for _ in self.nodes:
                node = self.nodes[self.first % len(self.nodes)]
                self.first += 1
                host, _, port = node.url.removeprefix("http://").partition(":")
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        reader, writer = await asyncio.open_connection(host, int(port))
                except (OSError, TimeoutError):
                    continue
                return Connection(node, reader, writer)
            await asyncio.sleep(ROUND_PAUSE_S)
        raise DrillError(f"no node could be connected to for {REQUEST_TIMEOUT_S:.0f} s")
