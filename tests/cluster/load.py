"""Writers that remember what they were told, and the comparison of that with what the cluster then holds.

Every key is written once, by one request. So afterwards:
- an acknowledged key is there, with its value and version 1 (a repeated write would make it 2);
- a key that definitely failed (``not_applied``) isn't;
- one with an unknown outcome (said so by the server, or the connection broke) may be there, once;
- nothing else is there.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

import aiohttp

from tests.cluster.harness import DEADLINE_S, Cluster, Node, until

# Beyond the server's own deadline: the server is to answer, not the client to give up.
CLIENT_TIMEOUT_S = 20.0


@dataclass(slots=True)
class Book:
    """What the writers were told: keys by outcome."""

    acknowledged: dict[str, str] = field(default_factory=dict)  # key -> value
    not_applied: dict[str, str] = field(default_factory=dict)  # key -> what was said
    unknown: dict[str, str] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)  # acknowledged as a second put of that key

    @property
    def failures(self) -> dict[str, str]:
        return self.not_applied | self.unknown

    async def check(self, cluster: Cluster, node: Node, prefix: str) -> None:
        """Compare with all that ``node`` lists, linearizably, under ``prefix``."""
        assert not self.repeated, f"acknowledged with another version than 1: {self.repeated[:5]}"
        held = await cluster.items(node, prefix)
        lost = [key for key in self.acknowledged if key not in held]
        assert not lost, f"{node.name} lost {len(lost)} of {len(self.acknowledged)} writes: {lost[:5]}"
        wrong = [k for k, v in self.acknowledged.items() if (held[k]["value"], held[k]["version"]) != (v, 1)]
        assert not wrong, f"{node.name} changed or repeated {len(wrong)}: {wrong[:5]}"
        undead = [key for key in self.not_applied if key in held]
        assert not undead, f"{node.name} applied what was said not to be: {undead[:5]}"
        twice = [key for key, item in held.items() if item["version"] != 1]
        assert not twice, f"{node.name} applied more than once: {twice[:5]}"
        asked = self.acknowledged.keys() | self.failures.keys()
        unasked = [key for key in held if key not in asked]
        assert not unasked, f"{node.name} holds what nobody wrote: {unasked[:5]}"


class Load:
    """Closed-loop writers, each bound to one node. ``async with`` runs them; leaving awaits their answers.

    Its own session: aiohttp repeats a PUT if a connection kept from before turns out to be broken.
    """

    def __init__(
        self, nodes: Sequence[Node], prefix: str, *, writers: int = 8, value_bytes: int = 64, book: Book
    ) -> None:
        self.book = book
        self._nodes = nodes
        self._prefix = prefix
        self._writers = writers
        self._filler = "." * value_bytes
        self.fastest_s = float("inf")  # from sending a write to its acknowledgement
        self._sent_at_s: dict[str, float] = {}  # of what was acknowledged
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Load:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(CLIENT_TIMEOUT_S)
        )
        for number in range(self._writers):
            node = self._nodes[number % len(self._nodes)]
            self._tasks.append(asyncio.create_task(self._write(self._session, node, number)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._session is not None
        await self._session.close()
        if error is None:
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def acknowledged(self, count: int, deadline_s: float = DEADLINE_S) -> None:
        """Wait until ``count`` writes that are sent from now on are acknowledged."""
        now_s = time.perf_counter()

        def enough() -> bool:
            if all(task.done() for task in self._tasks):
                raise AssertionError(f"all writers gave up: {list(self.book.failures.items())[-3:]}")
            return sum(sent_at_s >= now_s for sent_at_s in self._sent_at_s.values()) >= count

        await until(
            enough,
            f"{count} writes acknowledged; failed: {list(self.book.failures.items())[-3:]}",
            deadline_s,
        )

    async def _write(self, session: aiohttp.ClientSession, node: Node, writer: int) -> None:
        """Until told to stop, or the node is gone: what it would say to a client then is nothing."""
        number = 0
        while not self._stopping:
            number += 1
            if not await self._put(session, node, f"{self._prefix}{writer:02}/{number:06}"):
                return

    async def _put(self, session: aiohttp.ClientSession, node: Node, key: str) -> bool:
        value, sent_at_s = key + self._filler, time.perf_counter()
        try:
            async with session.put(f"{node.url}/v1/kv/{key}", data=value.encode()) as reply:
                text = await reply.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.book.unknown[key] = f"{node.name}: {error!r}"
            return isinstance(error, TimeoutError)
        if reply.status == 201:
            self.book.acknowledged[key] = value
            self._sent_at_s[key] = sent_at_s
            self.fastest_s = min(self.fastest_s, time.perf_counter() - sent_at_s)
            return True
        if reply.status == 200:
            self.book.repeated.append(f"{key}: {text.strip()}")
            return True
        problem = json.loads(text)
        assert problem["outcome"] in ("not_applied", "unknown"), text
        failures = self.book.not_applied if problem["outcome"] == "not_applied" else self.book.unknown
        failures[key] = f"{node.name}: {reply.status} {text.strip()}"
        return bool(problem["code"] != "shutting_down")
