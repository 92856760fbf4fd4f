"""The stores that scripts/bench compares, on this machine, as their users start them.

raftkv by ``harness``; etcd with its own defaults, on the same filesystem.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from etcd import running_etcd_cluster, text64
from harness import POLL_S, Cluster, DrillError, NodeProcess, Seat, running_cluster

LEASE_MS = 200  # raftkv's, for lease reads
BATCH = 100  # as in store.lua
FILL_CONNECTIONS = 16
REST_DEADLINE_S = 300.0
_REQUEST_BYTES = 512 << 10  # of values, when filling
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A store of this ``kind``, with ``growth`` times the bench's keys."""

    kind: str
    nodes: int = 3
    growth: int = 1


STAGES: Mapping[str, Mapping[str, Entry]] = {
    "stores": {"raftkv": Entry("raftkv"), "etcd": Entry("etcd")},
    "nodes": {"raftkv": Entry("raftkv", nodes=5), "three": Entry("raftkv")},
    "keys": {"raftkv": Entry("raftkv", growth=100), "tenth": Entry("raftkv", growth=10)},
}
"""Who runs side by side: first who is measured, then what it is compared with."""


@dataclass(frozen=True, slots=True)
class Store:
    """``kind``: as store.lua knows it. ``nodes``: HOST:PORT for clients, the leader's first."""

    kind: str
    version: str
    nodes: tuple[str, ...]
    processes: tuple[NodeProcess, ...]
    growth: int
    cluster: Cluster

    def addresses(self, target: str) -> tuple[str, ...]:
        """Whom a load through ``target`` talks to: leader, follower, or all."""
        return {"leader": self.nodes[:1], "follower": self.nodes[1:2], "all": self.nodes}[target]


@asynccontextmanager
async def running(stage: str, root: Path, directory: Path | None) -> AsyncIterator[dict[str, Store]]:
    """The stores of a stage, by name. ``root``: for what etcd writes, on the filesystem of ``directory``."""
    async with AsyncExitStack() as stack:
        stores = {}
        for name, entry in STAGES[stage].items():
            if entry.kind == "etcd":
                etcd = running_etcd_cluster(root, [Seat()] * entry.nodes)
                cluster: Cluster = await stack.enter_async_context(etcd)
            else:
                options = ("--lease-ms", str(LEASE_MS))
                raftkv = running_cluster(directory, entry.nodes, options=options)
                cluster = await stack.enter_async_context(raftkv)
            stores[name] = await store_of(cluster, entry)
        yield stores


async def store_of(cluster: Cluster, entry: Entry) -> Store:
    leader = await cluster.leader()
    status = await cluster.status(leader)
    processes = (leader, *cluster.others(leader))
    nodes = tuple(each.url.removeprefix("http://") for each in processes)
    version = status["version"] if status else "unknown"
    return Store(entry.kind, version, nodes, processes, entry.growth, cluster)


async def leads(store: Store) -> bool:
    """Whether the node that led at first still does."""
    status = await store.cluster.status(store.processes[0])
    return status is not None and status["role"] == "leader"


async def fill(store: Store, keys: int, value_bytes: int) -> None:
    """Write every key once, so that no read of the bench finds nothing."""
    size = max(1, min(BATCH, _REQUEST_BYTES // value_bytes))
    batches = iter([range(first, min(first + size, keys)) for first in range(0, keys, size)])
    value = b"x" * value_bytes
    url = f"http://{store.nodes[0]}"

    async def writer(session: aiohttp.ClientSession) -> None:
        for numbers in batches:
            path, body = _batch(store.kind, numbers, value)
            async with session.post(f"{url}{path}", data=body, headers=_JSON) as reply:
                if reply.status != 200:
                    raise DrillError(f"filling: {reply.status} {await reply.text()}")

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(writer(session) for _ in range(FILL_CONNECTIONS)))
        if store.kind == "raftkv":  # what comes next shouldn't meet the snapshot that so much data leads to
            await asyncio.gather(*(_at_rest(session, process) for process in store.processes))


def _batch(kind: str, numbers: Iterable[int], value: bytes) -> tuple[str, str]:
    """The path and the body of a request that puts these keys."""
    keys = [key_of(number) for number in numbers]
    if kind == "raftkv":
        text = value.decode()
        return "/v1/batch", json.dumps({"ops": [{"put": {"key": key, "value": text}} for key in keys]})
    value64 = text64(value)
    puts = [{"request_put": {"key": text64(key.encode()), "value": value64}} for key in keys]
    return "/v3/kv/txn", json.dumps({"success": puts})


async def _at_rest(session: aiohttp.ClientSession, process: NodeProcess) -> None:
    """No snapshot is being taken."""
    deadline = time.monotonic() + REST_DEADLINE_S
    while True:
        async with session.get(f"{process.url}/v1/status") as reply:
            if not (await reply.json())["snapshot"]["taking"]:
                return
        if time.monotonic() > deadline:
            raise DrillError(f"{process.name} is still taking a snapshot after {REST_DEADLINE_S:g} s")
        await asyncio.sleep(POLL_S)


async def take_snapshot(store: Store) -> None:
    """The leader's, durable."""
    leader = store.processes[0]
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{leader.url}/v1/snapshot") as reply:
            if reply.status not in (200, 504):  # 504: it goes on
                raise DrillError(f"no snapshot was taken: {reply.status} {await reply.text()}")
        await _at_rest(session, leader)


def key_of(number: int) -> str:
    """As in store.lua."""
    return f"key{number:05}"


def put_request(store: Store, number: int, value: bytes) -> bytes:
    """A whole one, HTTP/1.1, to the leader."""
    if store.kind == "raftkv":
        line, kind, body = f"PUT /v1/kv/{key_of(number)}", "application/octet-stream", value
    else:
        line, kind = "POST /v3/kv/put", "application/json"
        body = json.dumps({"key": text64(key_of(number).encode()), "value": text64(value)}).encode()
    head = f"{line} HTTP/1.1\r\nHost: {store.nodes[0]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


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
