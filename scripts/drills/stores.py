"""The stores that scripts/bench compares, on this machine, as their users start them.

raftkv by ``harness``; etcd with its own defaults, on the same filesystem.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from harness import POLL_S, START_DEADLINE_S, DrillError, NodeProcess, free_ports, running_cluster

LEASE_MS = 200  # raftkv's, for lease reads
BATCH = 100  # as in store.lua
FILL_CONNECTIONS = 16
REST_DEADLINE_S = 300.0
_REQUEST_BYTES = 512 << 10  # of values, when filling
_JSON = {"Content-Type": "application/json"}
ETCD_MISSING = "etcd is not here. Debian, Ubuntu: apt install etcd-server"


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

    def addresses(self, target: str) -> tuple[str, ...]:
        """Whom a load through ``target`` talks to: leader, follower, or all."""
        return {"leader": self.nodes[:1], "follower": self.nodes[1:2], "all": self.nodes}[target]


@asynccontextmanager
async def running(stage: str, root: Path, directory: Path | None) -> AsyncIterator[dict[str, Store]]:
    """The stores of a stage, by name. ``root``: for what etcd writes, on the filesystem of ``directory``."""
    async with AsyncExitStack() as stack:
        stores = {}
        for name, entry in STAGES[stage].items():
            store = _running_etcd(root, entry) if entry.kind == "etcd" else _running_raftkv(directory, entry)
            stores[name] = await stack.enter_async_context(store)
        yield stores


@asynccontextmanager
async def _running_raftkv(directory: Path | None, entry: Entry) -> AsyncIterator[Store]:
    options = ("--lease-ms", str(LEASE_MS))
    async with running_cluster(directory, entry.nodes, options=options) as cluster:
        leader = await cluster.leader()
        status = await cluster.status(leader)
        processes = (leader, *cluster.others(leader))
        nodes = tuple(each.url.removeprefix("http://") for each in processes)
        yield Store("raftkv", status["version"] if status else "unknown", nodes, processes, entry.growth)


def _etcd() -> tuple[str, str]:
    """Where it is, and its version."""
    binary = shutil.which("etcd")
    if binary is None:
        raise DrillError(ETCD_MISSING)
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return binary, said.split()[2]


@asynccontextmanager
async def _running_etcd(root: Path, entry: Entry) -> AsyncIterator[Store]:
    """In ``root``, which is on the disk that raftkv's is on."""
    binary, version = _etcd()
    ports = free_ports(2 * entry.nodes)
    peers = [f"http://127.0.0.1:{port}" for port in ports[entry.nodes :]]
    cluster = ",".join(f"e{i + 1}={url}" for i, url in enumerate(peers))
    processes = []
    for i, peer in enumerate(peers):
        client, name = f"http://127.0.0.1:{ports[i]}", f"e{i + 1}"
        options = {
            "--name": name,
            "--data-dir": str(root / name),
            "--listen-client-urls": client,
            "--advertise-client-urls": client,
            "--listen-peer-urls": peer,
            "--initial-advertise-peer-urls": peer,
            "--initial-cluster": cluster,
            "--initial-cluster-token": root.name,
            "--log-level": "error",
        }
        command = [binary, *(part for option in options.items() for part in option)]
        processes.append(NodeProcess(name, client, command, root / f"{name}.log"))
    try:
        for process in processes:
            process.start()
        leader = await _etcd_leader(processes)
        ordered = (leader, *(each for each in processes if each is not leader))
        nodes = tuple(each.url.removeprefix("http://") for each in ordered)
        yield Store("etcd", version, nodes, ordered, entry.growth)
    finally:
        for process in processes:
            process.stop()


async def _etcd_leader(processes: Sequence[NodeProcess]) -> NodeProcess:
    deadline = asyncio.get_running_loop().time() + START_DEADLINE_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(2)) as session:
        while asyncio.get_running_loop().time() < deadline:
            for process in processes:
                try:
                    status = await _etcd_call(session, process.url, "/v3/maintenance/status", {})
                except (aiohttp.ClientError, TimeoutError, ValueError):
                    continue
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return process
            await asyncio.sleep(POLL_S)
    logs = "\n".join(f"--- {process.name}\n{process.log_tail()}" for process in processes)
    raise DrillError(f"etcd has no leader after {START_DEADLINE_S:g} s\n{logs}")


async def _etcd_call(
    session: aiohttp.ClientSession, url: str, path: str, body: dict[str, Any]
) -> dict[str, Any]:
    async with session.post(f"{url}{path}", data=json.dumps(body)) as reply:
        found: dict[str, Any] = await reply.json(content_type=None)
        if reply.status != 200:
            raise DrillError(f"etcd: {path}: {reply.status} {found}")
        return found


async def leads(store: Store) -> bool:
    """Whether the node that led at first still does."""
    first = store.processes[0]
    if store.kind == "etcd":
        return await _etcd_leader(store.processes) is first
    async with aiohttp.ClientSession() as session, session.get(f"{first.url}/v1/status") as reply:
        return bool((await reply.json())["role"] == "leader")


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
    value64 = _text64(value)
    puts = [{"request_put": {"key": _text64(key.encode()), "value": value64}} for key in keys]
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
        body = json.dumps({"key": _text64(key_of(number).encode()), "value": _text64(value)}).encode()
    head = f"{line} HTTP/1.1\r\nHost: {store.nodes[0]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _text64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


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
