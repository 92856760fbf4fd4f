"""The stores that scripts/bench compares: three nodes each, on this machine, as their users start them.

raftkv by ``harness``; etcd with its own defaults, on the same filesystem.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from harness import POLL_S, START_DEADLINE_S, DrillError, NodeProcess, free_ports, running_cluster

LEASE_MS = 200  # raftkv's, for lease reads
ETCD_MISSING = "etcd is not here. Debian, Ubuntu: apt install etcd-server"


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
        leader = await cluster.leader()
        status = await cluster.status(leader)
        processes = (leader, *cluster.others(leader))
        nodes = tuple(each.url.removeprefix("http://") for each in processes)
        yield Store("raftkv", status["version"] if status else "unknown", nodes, processes)


def _etcd() -> tuple[str, str]:
    """Where it is, and its version."""
    binary = shutil.which("etcd")
    if binary is None:
        raise DrillError(ETCD_MISSING)
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return binary, said.split()[2]


@asynccontextmanager
async def running_etcd(root: Path) -> AsyncIterator[Store]:
    """In ``root``, which is on the disk that raftkv's is on."""
    binary, version = _etcd()
    ports = free_ports(6)
    peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
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
        yield Store("etcd", version, nodes, ordered)
    finally:
        for process in processes:
            process.stop()


async def _etcd_leader(processes: list[NodeProcess]) -> NodeProcess:
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


async def fill(store: Store, keys: int, value_bytes: int) -> None:
    """Write every key once, so that no read of the bench finds nothing."""
    numbers = iter(range(keys))
    value = b"x" * value_bytes
    url = f"http://{store.nodes[0]}"

    async def writer(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            key = f"key{number:05}"
            if store.name == "etcd":
                encoded = {"key": _text64(key.encode()), "value": _text64(value)}
                await _etcd_call(session, url, "/v3/kv/put", encoded)
                continue
            async with session.put(f"{url}/v1/kv/{key}", data=value) as reply:
                if reply.status not in (200, 201):
                    raise DrillError(f"filling: {reply.status} {await reply.text()}")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(writer(session) for _ in range(64)))


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
