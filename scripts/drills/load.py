"""Writers that remember what was acknowledged, and the comparison of that with what a cluster then holds.

Every key is written once, by one request that is never repeated: so each acknowledged key must be there with
its value and version 1, and each key that is there must have been asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
from harness import Cluster, DrillError, NodeProcess

VALUE_BYTES = 64
REQUEST_TIMEOUT_S = 15.0  # beyond the server's own: the server is to answer, not the client to give up


Put = Callable[[aiohttp.ClientSession, str, str, bytes], Awaitable[str | None]]
"""(session, a node's URL, a key that isn't there, its value) -> None: acknowledged, else what was answered.
Raises what aiohttp does."""


async def raftkv_put(session: aiohttp.ClientSession, url: str, key: str, value: bytes) -> str | None:
    async with session.put(f"{url}/v1/kv/{key}", data=value) as reply:
        body = await reply.text()
        # 201: created. A 200 says that the key was there before: the write was applied twice.
        return None if reply.status == 201 else f"{reply.status} {body.strip()[:200]}"


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledged write; times of ``time.perf_counter``."""

    key: str
    value: str
    sent_at: float
    acked_at: float

    @property
    def latency_s(self) -> float:
        return self.acked_at - self.sent_at


@dataclass(slots=True)
class Load:
    """``writers`` in closed loops, each bound to a node; and ``per_s`` writes a second through one node after
    the other, whatever becomes of those before. ``async with`` runs them, leaving awaits their last answers.

    Its own session: a connection to a node that was killed since must not be reused, for aiohttp would repeat
    the request.
    """

    nodes: Sequence[NodeProcess]
    prefix: str
    writers: int = 0
    per_s: float = 0.0
    put: Put = raftkv_put
    timeout_s: float = REQUEST_TIMEOUT_S
    acks: list[Ack] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # key -> why; each may have been applied
    _session: aiohttp.ClientSession | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stopping: bool = False

    async def __aenter__(self) -> Load:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=self.timeout_s)
        )
        for i in range(self.writers):
            self._tasks.append(asyncio.create_task(self._write_on(self.nodes[i % len(self.nodes)], i)))
        if self.per_s:
            self._tasks.append(asyncio.create_task(self._write_steadily()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is not None:
            for task in self._tasks:
                task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        for result in results:
            if error is None and isinstance(result, Exception):
                raise result

    def stop(self) -> None:
        """Send nothing more."""
        self._stopping = True

    def probe(self) -> None:
        """Send one write through each node now, beside the writers (who may all be waiting for an answer)."""
        for node in self.nodes:
            self._tasks.append(asyncio.create_task(self._put(node, f"{self.prefix}probe/{node.name}")))

    async def until_acked(self, count: int, since: float, deadline_s: float) -> None:
        """Wait until ``count`` writes sent after ``since`` are acknowledged."""
        deadline = time.perf_counter() + deadline_s
        while sum(ack.sent_at >= since for ack in self.acks) < count:
            if time.perf_counter() > deadline:
                whys = sorted(set(self.failures.values()))[:5]
                raise DrillError(
                    f"{count} writes were not acknowledged within {deadline_s:.0f} s; failures: {whys}"
                )
            await asyncio.sleep(0.005)

    async def _write_on(self, node: NodeProcess, writer: int) -> None:
        number = 0
        while not self._stopping:
            before = len(self.failures)
            await self._put(node, f"{self.prefix}{writer:03}/{number:07}")
            number += 1
            if len(self.failures) > before:
                await asyncio.sleep(0.02)  # a dead node refuses at once; don't count a thousand refusals

    async def _write_steadily(self) -> None:
        began_at, number = time.perf_counter(), 0
        while not self._stopping:
            node = self.nodes[number % len(self.nodes)]
            self._tasks.append(asyncio.create_task(self._put(node, f"{self.prefix}{number:07}")))
            number += 1
            await asyncio.sleep(began_at + number / self.per_s - time.perf_counter())

    async def _put(self, node: NodeProcess, key: str) -> None:
        if self._session is None:
            raise DrillError("the load is not running")
        value = key.ljust(VALUE_BYTES, ".")
        sent_at = time.perf_counter()
        try:
            refused = await self.put(self._session, node.url, key, value.encode())
            if refused is None:
                self.acks.append(Ack(key, value, sent_at, time.perf_counter()))
            else:
                self.failures[key] = f"{node.name}: {refused}"
        except (aiohttp.ClientError, TimeoutError) as problem:
            self.failures[key] = f"{node.name}: {type(problem).__name__} {problem}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a node's listing says of a load's writes."""

    acked: int
    lost: tuple[str, ...]  # acknowledged, and not there
    changed: tuple[str, ...]  # there with another value
    repeated: tuple[str, ...]  # there with a version other than 1: applied more than once
    unasked: tuple[str, ...]  # there, and never written
    unknown_applied: int  # failed with an unknown outcome, and there: allowed

    @property
    def broken(self) -> bool:
        return bool(self.lost or self.changed or self.repeated or self.unasked)

    def __str__(self) -> str:
        parts = [
            f"{name} {len(keys)} (as {', '.join(keys[:3])})"
            for name in ("lost", "changed", "repeated", "unasked")
            if (keys := getattr(self, name))
        ]
        return "; ".join(parts) or f"all {self.acked} acknowledged writes are there, once"


def judge(acks: Sequence[Ack], failures: Mapping[str, str], held: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Compare what was acknowledged, and what failed, with what a cluster holds (see ``Cluster.keys``)."""
    acked = {ack.key: ack.value for ack in acks}
    return Verdict(
        acked=len(acked),
        lost=tuple(key for key in acked if key not in held),
        changed=tuple(key for key, item in held.items() if key in acked and item.get("value") != acked[key]),
        repeated=tuple(key for key, item in held.items() if item.get("version") != 1),
        unasked=tuple(key for key in held if key not in acked and key not in failures),
        unknown_applied=sum(key in held for key in failures),
    )


async def judge_through(
    cluster: Cluster, node: NodeProcess, prefix: str, acks: Sequence[Ack], failures: Mapping[str, str]
) -> Verdict:
    """``judge`` by what ``node`` lists, linearizably, under the prefix."""
    return judge(acks, failures, await cluster.keys(node, prefix))
