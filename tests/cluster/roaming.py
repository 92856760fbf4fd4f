"""Writers with one kept connection each, that go to another node only when no request can be lost by it.

They move when a connection is refused, when their own was closed before they sent a request, and after an
answer that says ``Connection: close``. What fails once a request has left is a failed request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import TracebackType

from tests.cluster.harness import Node, until
from tests.cluster.load import CLIENT_TIMEOUT_S, Book


class Roamer:
    """One writer. ``acknowledged`` counts; the keys and outcomes are in ``book``."""

    def __init__(self, nodes: Sequence[Node], prefix: str, first: int, book: Book) -> None:
        self._nodes = list(nodes)
        self._prefix = prefix
        self._next = first
        self._book = book
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.acknowledged = 0
        self.at: Node = nodes[first % len(nodes)]
        self.stopping = False

    async def run(self) -> None:
        number = 0
        while not self.stopping:
            number += 1
            key = f"{self._prefix}{number:06}"
            streams = self._streams or await self._connect()
            if streams[0].at_eof():
                self._leave()
                continue
            try:
                async with asyncio.timeout(CLIENT_TIMEOUT_S):
                    await self._put(*streams, key)
            except (OSError, EOFError, TimeoutError) as error:
                self._book.unknown[key] = f"{self.at.name}: {error!r}"
                self._leave()
        self._leave()

    async def _put(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        head = f"PUT /v1/kv/{key} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(key)}\r\n\r\n"
        writer.write(head.encode() + key.encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.split("content-length: ")[1].split("\r\n")[0])
        body = (await reader.readexactly(length)).decode()
        status = int(answer.split(" ")[1])
        if status == 201:
            self._book.acknowledged[key] = key
            self.acknowledged += 1
        elif status == 200:
            self._book.repeated.append(f"{key}: {body}")
        else:
            outcome = json.loads(body)["outcome"]
            failures = self._book.not_applied if outcome == "not_applied" else self._book.unknown
            failures[key] = f"{self.at.name}: {status} {body}"
        if "\r\nconnection: close\r\n" in answer:
            self._leave()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await until(self._try_all, "some node takes a connection")
        assert self._streams is not None
        return self._streams

    async def _try_all(self) -> bool:
        """Whoever takes it, in turn; a node that is down refuses."""
        for _ in self._nodes:
            self.at = self._nodes[self._next % len(self._nodes)]
            self._next += 1
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self.at.port)
            except OSError:
                continue
            return True
        return False

    def _leave(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


class Roaming:
    """``async with`` runs ``writers`` of them, beginning at different nodes; leaving awaits their answers."""

    def __init__(self, nodes: Sequence[Node], prefix: str, *, book: Book, writers: int = 4) -> None:
        self.roamers = [Roamer(nodes, f"{prefix}{i:02}/", i, book) for i in range(writers)]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Roaming:
        self._tasks = [asyncio.create_task(roamer.run()) for roamer in self.roamers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for roamer in self.roamers:
            roamer.stopping = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if error is None and isinstance(result, BaseException):
                raise result

    async def acknowledged(self, count: int) -> None:
        """Wait until each has had ``count`` more writes acknowledged."""
        wanted = [roamer.acknowledged + count for roamer in self.roamers]

        def enough() -> bool:
            return all(r.acknowledged >= least for r, least in zip(self.roamers, wanted, strict=True))

        await until(enough, f"{count} writes of each writer acknowledged")
