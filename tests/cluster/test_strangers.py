"""What isn't a peer on the peer port: the node says no, and serves on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest

from raftkv.consensus.types import GroupId, NodeId
from raftkv.transport.hello import LINK_PATH
from raftkv.wire.frames import PROTOCOL_VERSION
from raftkv.wire.reports import Hello, encode_hello
from tests.cluster.harness import Cluster, Node, running

pytestmark = pytest.mark.cluster

UPGRADE = (
    f"GET {LINK_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
GARBAGE = {
    "random bytes": os.urandom(50_000),
    "zeros": bytes(50_000),
    "a get": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bad header": b"GET / HTTP/1.1\r\nbroken\r\n\r\n",
    "an endless header": b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000,
    "an upgrade, then noise": UPGRADE + os.urandom(5_000),
    "an upgrade, then a huge frame": UPGRADE + b"\x82\xff" + b"\xff" * 20,
}


async def throw(node: Node, data: bytes) -> None:
    """Send it, and read until the node has had enough; it may close at any moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.peer_port)
    try:
        async with asyncio.timeout(10):
            writer.write(data)
            await writer.drain()
            writer.write_eof()
            await reader.read()
    except (ConnectionError, OSError):
        pass
    finally:
        writer.close()


async def test_garbage_on_the_peer_port(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        for node in cluster.nodes:
            await asyncio.gather(*(throw(node, data) for data in GARBAGE.values() for _ in range(3)))
        await undisturbed(cluster)


async def test_a_strangers_hello(tmp_path: Path) -> None:
    """Of another cluster, of nobody, of the node itself, of another version, and of a peer that it is not."""
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        status = await cluster.status(leader)
        assert status is not None
        right, peer = status["cluster_id"], cluster.others(leader)[0].name
        for version, cluster_id, name, code in (
            (PROTOCOL_VERSION, "0" * 16, peer, 4002),
            (PROTOCOL_VERSION, right, "n9", 4005),
            (PROTOCOL_VERSION, right, leader.name, 4003),
            (PROTOCOL_VERSION + 1, right, peer, 4001),
        ):
            hello = Hello(
                version, cluster_id, NodeId(name), NodeId(leader.name), 1, (GroupId(0),), "http://x"
            )
            assert await greet(cluster, leader, encode_hello(hello)) == code
        assert await greet(cluster, leader, b"hello") == 4000
        await undisturbed(cluster)


async def greet(cluster: Cluster, node: Node, frame: bytes) -> int | None:
    """Say ``frame`` first on a link to ``node``: the code it is closed with."""
    url = f"http://127.0.0.1:{node.peer_port}{LINK_PATH}"
    async with cluster.session.ws_connect(url) as link:
        await link.send_bytes(frame)
        async with asyncio.timeout(10):
            answer = await link.receive()
        assert answer.type is aiohttp.WSMsgType.CLOSE, answer
        return link.close_code


async def undisturbed(cluster: Cluster) -> None:
    """All serve in the first term still: no garbage cost anybody a link, or the leader its lead."""
    for node in cluster.nodes:
        assert (await cluster.put(node, f"through/{node.name}", "fine")).status == 201
        status = await cluster.status(node)
        assert status is not None
        assert status["term"] == 1
        assert all(link["connected"] for link in status["links"].values())
