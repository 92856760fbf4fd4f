"""A node's REST server on a loopback socket over a service that answers at once; faults come when told.

The server's event loop has a thread of its own, so that tests are plain code with blocking sockets. The
machine is the real one: what a condition or a revision means is not told twice.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from raftkv.api import Limits, RestServer
from raftkv.consensus.types import Change, Index, NodeId, SnapshotMeta, Term
from raftkv.errors import NotReached
from raftkv.kv.commands import encode_level
from raftkv.kv.levels import FEATURES, MACHINE_LEVEL
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId
from raftkv.kv.store import Store
from raftkv.kv.watch import Hub
from raftkv.ports import Backup, PeerView
from raftkv.server.backup import MachineBackup
from raftkv.server.queues import Queues
from raftkv.storage.segment import Owner
from raftkv.tallies import Tallies

T = TypeVar("T")
N1, N2 = NodeId("n1"), NodeId("n2")
OWNER, BACKED_UP = Owner("0123456789abcdef", N1), SnapshotMeta(Index(7), Term(2), 1234)
DEADLINE_S = 10.0  # for what takes milliseconds

LIMITS = Limits(
    max_key_bytes=64,
    max_value_bytes=4096,
    max_request_bytes=16384,
    request_timeout_ms=5000,
    max_request_timeout_ms=60_000,
)


class LoopThread:
    """An event loop that runs in the background."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE_S)

    def close(self) -> None:
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE_S)
        self.loop.close()

    @staticmethod
    async def _cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class FakeService:
    """``ports.Service``, immediate. ``propose_error`` and ``barrier_error`` are raised where they are set."""

    machine: KvMachine = field(default_factory=KvMachine)
    node_id: NodeId = N1
    leader: NodeId | None = N2
    staleness: float | None = 12.4
    vouched_age: float | None = None
    by_lease: list[bool] = field(default_factory=list)  # of each barrier
    revisions_awaited: list[tuple[int, float]] = field(default_factory=list)  # and for how long at most
    propose_error: BaseException | None = None
    barrier_error: BaseException | None = None
    transfer_error: BaseException | None = None
    change_error: BaseException | None = None
    changes: list[tuple[Change, bool]] = field(default_factory=list)  # of members, and whether forced
    backup_error: BaseException | None = None
    snapshot_error: BaseException | None = None
    stopping: bool = False
    timeouts_ms: list[float] = field(default_factory=list)  # as each propose and barrier was given
    commands: list[bytes] = field(default_factory=list)
    status_report: dict[str, Any] = field(default_factory=dict)
    peer_views: list[PeerView] = field(default_factory=list)
    seq: int = 0
    time_ms: int = 0  # the cluster's
    leads: bool = False
    tallies: Tallies = field(default_factory=Tallies)

    def __post_init__(self) -> None:
        self.hub = Hub(self.machine.store, lambda work: asyncio.get_running_loop().call_soon(work))
        self.queues = Queues(self, self.machine, self.hub)

    async def propose(self, command: bytes, timeout_ms: float) -> Any:
        self.timeouts_ms.append(timeout_ms)
        if self.propose_error is not None:
            raise self.propose_error
        self.commands.append(command)
        self.seq += 1
        batch = BatchId("n1", 1, self.seq, self.seq)
        applied = self.machine.apply(self.time_ms, self.machine.seal(batch, [command]))
        assert applied is not None
        assert applied.results is not None
        self.hub.look()
        return applied.results[0]

    async def require(self, feature: str, timeout_ms: float) -> None:
        if self.machine.level < FEATURES[feature]:
            await self.propose(encode_level(MACHINE_LEVEL), timeout_ms)

    async def transfer(self, target: NodeId | None, timeout_ms: float) -> tuple[NodeId, Term]:
        self.timeouts_ms.append(timeout_ms)
        if self.transfer_error is not None:
            raise self.transfer_error
        self.leader = target or NodeId("n3")
        return self.leader, Term(7)

    async def change_members(self, change: Change, *, force: bool, timeout_ms: float) -> Index:
        self.timeouts_ms.append(timeout_ms)
        if self.change_error is not None:
            raise self.change_error
        self.changes.append((change, force))
        return Index(8)

    def members(self) -> dict[str, Any]:
        return {"members": [{"id": "n1"}]}

    async def take_snapshot(self, timeout_ms: float) -> dict[str, Any]:
        self.timeouts_ms.append(timeout_ms)
        if self.snapshot_error is not None:
            raise self.snapshot_error
        return {"index": 7, "term": 2, "time_ms": 5, "bytes": 900}

    async def barrier(self, timeout_ms: float, *, by_lease: bool = False) -> None:
        self.timeouts_ms.append(timeout_ms)
        self.by_lease.append(by_lease)
        if self.barrier_error is not None:
            raise self.barrier_error
        self.vouched_age = 0.0

    async def reached(self, revision: int, timeout_ms: float) -> None:
        self.revisions_awaited.append((revision, timeout_ms))
        if self.machine.store.revision < revision:
            raise NotReached(f"not yet at {revision}", retry_after_ms=1000)

    def vouched_age_ms(self) -> float | None:
        return self.vouched_age

    def cluster_time(self) -> tuple[int, bool]:
        return self.time_ms, self.leads

    def staleness_ms(self) -> float | None:
        return self.staleness

    def client_url(self, node: NodeId) -> str | None:
        return f"http://{node}:8001"

    def backup(self) -> Backup:
        if self.backup_error is not None:
            raise self.backup_error
        return MachineBackup(OWNER, BACKED_UP, self.machine.export())

    def status(self) -> dict[str, Any]:
        return self.status_report

    def peers(self) -> Sequence[PeerView]:
        return self.peer_views


class RestNode:
    """The server, its service and its store. ``port`` is where it listens."""

    def __init__(self, thread: LoopThread, limits: Limits = LIMITS) -> None:
        self._thread = thread
        self.service = FakeService()
        self._server: RestServer | None = None
        self._runner: web.ServerRunner | None = None
        self.port: int = thread.run(self._start(limits))

    @property
    def store(self) -> Store:
        """To be looked at between requests only."""
        return self.service.machine.store

    async def _start(self, limits: Limits) -> int:
        self._server = RestServer(self.service, self.service.machine, limits)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port: int = self._runner.addresses[0][1]
        return port

    def drain(self, within_s: float) -> Future[None]:
        """Begin to let the connections go, as a node that stops does."""
        assert self._server is not None
        return asyncio.run_coroutine_threadsafe(self._server.drain(within_s), self._thread.loop)

    def wait_for_no_connections(self) -> None:
        """Until the server has seen that its clients are gone."""
        server = self._server
        assert server is not None
        self.wait(lambda: not server.connections)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have ``work`` done on the server's loop."""
        return self._thread.run(work)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until ``condition``, which is asked on the server's loop, holds."""
        self._thread.run(self._holds(condition))

    async def _holds(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0)

    def close(self) -> None:
        assert self._runner is not None
        self._thread.run(self._runner.cleanup())
