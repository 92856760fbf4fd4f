"""The stores that scripts/bench compares: three nodes each, on this machine, as their users start them.

raftkv by ``harness``; etcd with its own defaults, on the same filesystem.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from etcd import etcd_put, running_etcd_cluster
from harness import Cluster, DrillError, NodeProcess, running_cluster

LEASE_MS = 200  # raftkv's, for lease reads


@dataclass(frozen=True, slots=True)
class Store:
    """``name``: as store.lua knows it. ``nodes``: HOST:PORT for clients, the leader's first."""

    name: str
    version: str
    nodes: tuple[str, ...]
    processes: tuple[NodeProcess, ...]

    def addresses(self, target: str) -> tuple[str, ...]:
        """Whom a load through ``target`` talks to: leader, follower, or all."""
        return {"leader": self.nodes[:1], "follower": self.nodes[1:2], "all": self.nodes}[target]


@asynccontextmanager
async def running_raftkv(directory: Path | None) -> AsyncIterator[Store]:
    async with running_cluster(directory, options=("--lease-ms", str(LEASE_MS))) as cluster:
        yield await _store("raftkv", cluster)


@asynccontextmanager
async def running_etcd(root: Path) -> AsyncIterator[Store]:
    """In ``root``, which is on the disk that raftkv's is on."""
    async with running_etcd_cluster(root) as cluster:
        yield await _store("etcd", cluster)


async def _store(name: str, cluster: Cluster) -> Store:
    leader = await cluster.leader()
    status = await cluster.status(leader)
    processes = (leader, *cluster.others(leader))
    nodes = tuple(each.url.removeprefix("http://") for each in processes)
    return Store(name, status["version"] if status else "unknown", nodes, processes)


async def fill(store: Store, keys: int, value_bytes: int) -> None:
    """Write every key once, so that no read of the bench finds nothing."""
    numbers = iter(range(keys))
    value = b"x" * value_bytes
    url = f"http://{store.nodes[0]}"

    async def writer(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            key = f"key{number:05}"
            if store.name == "etcd":
                if refused := await etcd_put(session, url, key, value):
                    raise DrillError(f"filling: {refused}")
                continue
            async with session.put(f"{url}/v1/kv/{key}", data=value) as reply:
                if reply.status not in (200, 201):
                    raise DrillError(f"filling: {reply.status} {await reply.text()}")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(writer(session) for _ in range(64)))


def grpc_put(key: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest (key = 1, value = 2) as one gRPC message."""
    return _grpc(_field(1, key) + _field(2, value))


def grpc_range(key: bytes) -> bytes:
    """etcdserverpb.RangeRequest (key = 1) as one gRPC message."""
    return _grpc(_field(1, key))


def _grpc(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _field(number: int, raw: bytes) -> bytes:
    size, length = len(raw), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + raw
