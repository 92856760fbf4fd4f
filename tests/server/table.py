"""A node for the tests of queues: a real machine, which may be behind. What happened "elsewhere" is applied
when it is asked to confirm, or to decide, something. Time is virtual, and is the cluster's too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from raftkv.kv.commands import (
    encode_grant,
    encode_level,
)
from raftkv.kv.levels import MACHINE_LEVEL
from raftkv.kv.machine import KvMachine
from raftkv.kv.places import LOCK, Place, Queue, places
from raftkv.kv.session import BatchId
from raftkv.kv.watch import Hub
from raftkv.ports import Candidate
from raftkv.server.queues import Queues
from tests.server.virtual_time import settle

JOB = Queue(LOCK, b"job")
TIMEOUT_MS = 1_000.0


class Table:
    def __init__(self) -> None:
        self.machine = KvMachine()
        self.hub = Hub(self.machine.store, asyncio.get_running_loop().call_soon)
        self.queues = Queues(self, self.machine, self.hub)
        self.elsewhere: list[bytes] = []
        self.commands: list[bytes] = []
        self.failure: Exception | None = None
        self.barriers = 0
        self._seq = 0
        self.apply(encode_level(MACHINE_LEVEL))

    def apply(self, command: bytes) -> Any:
        self._seq += 1
        batch = BatchId("n1", 1, self._seq, self._seq)
        time_ms = round(asyncio.get_running_loop().time() * 1000)
        applied = self.machine.apply(time_ms, self.machine.seal(batch, [command]))
        assert applied is not None
        assert applied.results is not None
        self.hub.look()
        return applied.results[0]

    def catch_up(self) -> None:
        commands, self.elsewhere = self.elsewhere, []
        for command in commands:
            self.apply(command)

    def grant(self, ttl_ms: int) -> int:
        lease: int = self.apply(encode_grant(ttl_ms)).lease
        return lease

    # -- of the service --------------------------------------------------------------------------------------

    async def propose(self, command: bytes, timeout_ms: float) -> Any:
        if self.failure is not None:
            raise self.failure
        self.catch_up()
        self.commands.append(command)
        return self.apply(command)

    async def barrier(self, timeout_ms: float) -> None:
        self.barriers += 1
        if self.failure is not None:
            raise self.failure
        self.catch_up()

    async def require(self, feature: str, timeout_ms: float) -> None:
        pass

    # -- what the tests ask ----------------------------------------------------------------------------------

    def acquire(self, *, wait_ms: float = 1e6, queue: Queue = JOB, **fields: Any) -> asyncio.Task[Place]:
        candidate = Candidate(**fields)
        return asyncio.create_task(self._acquire(queue, candidate, wait_ms))

    async def _acquire(self, queue: Queue, candidate: Candidate, wait_ms: float) -> Place:
        return await self.queues.acquire(queue, candidate, wait_ms=wait_ms, timeout_ms=TIMEOUT_MS)

    async def release(self, place: Place, queue: Queue = JOB) -> int:
        done = await self.queues.release(queue, lease=place.lease, token=0, timeout_ms=TIMEOUT_MS)
        await settle()
        return done.deleted

    def queued(self, queue: Queue = JOB) -> list[int]:
        """The leases in the queue, in order."""
        return [place.lease for place in places(self.machine.store, queue)]


async def waiting(*tasks: asyncio.Task[Place]) -> None:
    await settle()
    assert not any(task.done() for task in tasks)
