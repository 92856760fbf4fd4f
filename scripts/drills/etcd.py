"""etcd for the drills: a cluster of its processes, with its own defaults, spoken to by its JSON gateway."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from harness import Cluster, DrillError, NodeProcess, Seat, free_ports

ETCD_MISSING = "etcd is not here. Debian, Ubuntu: apt install etcd-server"


@dataclass(slots=True)
class EtcdCluster(Cluster):
    """Its ``status`` says, of an etcd, what raftkv's says of itself; so all that rests on it serves both."""

    _names: dict[str, str] = field(default_factory=dict)  # of its members, by their ids

    async def status(self, node: NodeProcess) -> dict[str, Any] | None:
        try:
            found = await etcd_call(self.session, node.url, "/v3/maintenance/status", {}, timeout_s=2)
        except (aiohttp.ClientError, TimeoutError, ValueError, DrillError):
            return None
        own, leader = found["header"]["member_id"], found.get("leader", "0")
        self._names[own] = node.name
        return {
            "role": "leader" if leader == own else "follower",
            "leader": self._names.get(leader),
            "last_applied": int(found.get("raftAppliedIndex", 0)),
            "version": found["version"],
        }


@asynccontextmanager
async def running_etcd_cluster(
    root: Path, seats: Sequence[Seat] = (Seat(),) * 3
) -> AsyncIterator[EtcdCluster]:
    """A started cluster with a leader, its data in ``root``; stopped on the way out."""
    nodes = list(_make_nodes(root, seats))
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        cluster = EtcdCluster(nodes, session, root)
        try:
            for node in nodes:
                node.start()
            await cluster.leader()
            yield cluster
        finally:
            for node in nodes:
                node.stop()


def _make_nodes(root: Path, seats: Sequence[Seat]) -> Iterable[NodeProcess]:
    binary = shutil.which("etcd")
    if binary is None:
        raise DrillError(ETCD_MISSING)
    ports = free_ports(2 * len(seats))
    clients = [f"http://{seat.host}:{port}" for seat, port in zip(seats, ports, strict=False)]
    peers = [f"http://{seat.host}:{port}" for seat, port in zip(seats, ports[len(seats) :], strict=True)]
    for i, (seat, client, peer) in enumerate(zip(seats, clients, peers, strict=True)):
        name = f"e{i + 1}"
        options = {
            "--name": name,
            "--data-dir": str(root / name),
            "--listen-client-urls": client,
            "--advertise-client-urls": client,
            "--listen-peer-urls": peer,
            "--initial-advertise-peer-urls": peer,
            "--initial-cluster": ",".join(f"e{j + 1}={url}" for j, url in enumerate(peers)),
            "--initial-cluster-token": root.name,
            "--log-level": "error",
        }
        command = [*seat.wrapper, binary, *(part for option in options.items() for part in option)]
        yield NodeProcess(name, client, command, root / f"{name}.log")


async def etcd_call(
    session: aiohttp.ClientSession, url: str, path: str, body: dict[str, Any], timeout_s: float | None = None
) -> dict[str, Any]:
    """The answer. Raises DrillError for an error of etcd's; default of ``timeout_s``: the session's."""
    timeout = session.timeout if timeout_s is None else aiohttp.ClientTimeout(timeout_s)
    async with session.post(f"{url}{path}", data=json.dumps(body), timeout=timeout) as reply:
        text = await reply.text()
        if reply.status != 200:
            raise DrillError(f"etcd: {path}: {reply.status} {text.strip()[:200]}")
        found: dict[str, Any] = json.loads(text)
        return found


async def etcd_put(session: aiohttp.ClientSession, url: str, key: str, value: bytes) -> str | None:
    """As ``load.raftkv_put``."""
    try:
        await etcd_call(session, url, "/v3/kv/put", {"key": text64(key.encode()), "value": text64(value)})
    except DrillError as refused:
        return str(refused)
    return None


def text64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
