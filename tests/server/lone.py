"""A node without its ports: real files, real threads, real time (little of it).

It is its whole cluster, or the test says what the others' messages are.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from raftkv.config import Address, Config, parse_cluster
from raftkv.consensus.messages import Envelope, Message
from raftkv.consensus.node import Node
from raftkv.consensus.ready import Ready
from raftkv.consensus.types import GroupId, NodeId, Term
from raftkv.kv.commands import encode_put
from raftkv.kv.results import PutResult
from raftkv.replica import Replica
from raftkv.server import start
from raftkv.server.driver import Driver
from raftkv.server.snapshots import Snapshots, Taken
from raftkv.server.worker import Worker
from raftkv.storage.charter import new_charter
from raftkv.storage.disk import Disk
from raftkv.storage.files import AppendFile, OsFiles
from raftkv.storage.segment import Owner
from tests.cluster import harness

DEADLINE_S = 10.0


class Reluctant(OsFiles):
    """A file system that is full for snapshots, or waits, when told; it says which were begun."""

    def __init__(self) -> None:
        self.is_full = False
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.begun: list[str] = []

    def create(self, path: Path, *, ahead_bytes: int = 0) -> AppendFile:
        if path.name.startswith("snapshot-"):
            self.begun.append(path.name)
            assert self.goes_on.wait(DEADLINE_S)
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().create(path, ahead_bytes=ahead_bytes)


def config_of(directory: Path, **fields: Any) -> Config:
    defaults: dict[str, Any] = {
        "node_id": NodeId("n1"),
        "data_dir": directory,
        "listen": Address("127.0.0.1", 1),
        "peer_listen": Address("127.0.0.1", 2),
        "cluster": parse_cluster("n1=127.0.0.1:2"),
        "heartbeat_ms": 5.0,
        "election_timeout_min_ms": 10.0,
        "election_timeout_max_ms": 20.0,
        "segment_bytes": 4096,
        "snapshot_bytes": 1 << 30,
        "snapshot_margin_bytes": 0,
    }
    return Config(**(defaults | fields))


class Lone:
    def __init__(self, directory: Path, files: Reluctant, config: Config) -> None:
        loop = asyncio.get_running_loop()
        self.directory = directory
        self.fatal: list[BaseException] = []
        owner = Owner(config.cluster_id, config.node_id)
        charter = new_charter(files, owner, founders=config.founders, contacts={})
        begin = start.read(config, files, directory, charter)
        self.sent: list[Message] = []
        self.machine = begin.machine
        self.files = begin.snapshots
        node = Node(
            config.node_id,
            begin.membership,
            uniform=Random(1).uniform,
            now_ms=loop.time() * 1000,
            hard_state=begin.hard_state,
            log=begin.log,
            applied=begin.applied.index,
            timing=config.timing,
        )
        self.replica = Replica(node, self.machine, incarnation=begin.incarnation, applied=begin.applied.index)
        self.disk = Disk(begin.wal, loop.call_soon_threadsafe, self.fatal.append)
        self.driver = Driver(self.replica, self.disk, self, on_fatal=self.fatal.append, on_turn=self._on_turn)
        self.worker = Worker("test-snapshots")
        self.snapshots = Snapshots(
            replica=self.replica,
            disk=self.disk,
            files=begin.snapshots,
            worker=self.worker,
            newest=Taken(begin.applied, begin.snapshot_bytes),
            bound_bytes=config.snapshot_bytes,
            margin_bytes=config.snapshot_margin_bytes,
            on_fatal=self.driver.broken,
        )

    def _on_turn(self, ready: Ready) -> None:
        self.snapshots.turned(ready)

    def send(self, envelopes: Sequence[Envelope]) -> None:
        self.sent += [envelope.message for envelope in envelopes]

    def hear(self, sender: str, *messages: Message, term: int = 1) -> None:
        self.driver.on_envelopes(
            [Envelope(GroupId(0), NodeId(sender), NodeId("n1"), Term(term), message) for message in messages]
        )

    async def put(self, key: str, value: bytes = b"v") -> None:
        result = await self.driver.propose(encode_put(key.encode(), value), 5000)
        assert isinstance(result, PutResult)

    async def fill(self, first: int, last: int, value_bytes: int = 100) -> None:
        """Keys of these numbers, an entry each."""
        for number in range(first, last + 1):
            await self.put(f"key{number:05}", bytes(value_bytes))

    def chunks(self) -> list[bytes]:
        return list(self.machine.export())

    def names(self, pattern: str = "*.snap*") -> list[str]:
        return sorted(path.name for path in self.directory.glob(pattern))


@asynccontextmanager
async def lone(directory: Path, files: Reluctant | None = None, **fields: Any) -> AsyncIterator[Lone]:
    """One life of the node; it must not have failed."""
    node = Lone(directory, files or Reluctant(), config_of(directory, **fields))
    node.driver.start()
    try:
        if len(node.replica.node.membership.voters) == 1:
            await until(lambda: node.replica.node.leader is not None)
        yield node
    finally:
        node.snapshots.stop()
        node.driver.stop("the test is over")
        await node.worker.do(lambda: None)
        node.disk.close()
    assert node.fatal == []


async def until(condition: Callable[[], object]) -> None:
    await harness.until(lambda: bool(condition()), "what the node was to do", DEADLINE_S)
