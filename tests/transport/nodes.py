"""Peers on loopback: networks that record what they are told, and a raw peer that can say anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from raftkv.consensus.messages import Envelope, HeartbeatReply, Message
from raftkv.consensus.types import GroupId, NodeId, Term
from raftkv.testing.cluster import free_ports
from raftkv.transport.hello import LINK_PATH, Identity
from raftkv.transport.limits import LinkLimits
from raftkv.transport.network import PeerNetwork
from raftkv.wire.frames import PROTOCOL_VERSION
from raftkv.wire.reports import Hello, encode_hello

DEADLINE_S = 20.0
QUICK = LinkLimits(backoff_min_ms=5, backoff_max_ms=40, connect_timeout_ms=5_000)
NOWHERE = "127.0.0.1:1"


def identity(node: str, *, cluster: str = "c1", incarnation: int = 1, **more: Any) -> Identity:
    return Identity(cluster, NodeId(node), incarnation, f"http://{node}:8001", **more)


def hello(node: str = "n2", **fields: Any) -> Hello:
    """A sound hello to n1, but for ``fields``."""
    sound: dict[str, Any] = {
        "version": PROTOCOL_VERSION,
        "cluster_id": "c1",
        "node_id": node,
        "receiver": "n1",
        "incarnation": 1,
        "groups": (GroupId(0),),
        "client_url": f"http://{node}:8001",
    }
    return Hello(**{**sound, **fields})


def envelope(sender: str, receiver: str, number: int = 0, message: Message | None = None) -> Envelope:
    return Envelope(
        GroupId(0), NodeId(sender), NodeId(receiver), Term(1), message or HeartbeatReply(round=number)
    )


class Node:
    """A PeerNetwork, and what it told: ``frames``, ``lost`` and ``changes`` in order."""

    def __init__(
        self,
        name: str,
        peers: dict[str, str],
        *,
        port: int = 0,
        limits: LinkLimits = QUICK,
        cluster: str = "c1",
        incarnation: int = 1,
        hints: dict[str, str] | None = None,
        known: dict[str, int] | None = None,
        **more: Any,
    ) -> None:
        """``known``: incarnations that it knows of. ``more``: of its identity."""
        self.name = NodeId(name)
        self.frames: list[Sequence[Envelope]] = []
        self.lost: list[NodeId] = []
        self.changes: list[tuple[str, str, bool]] = []
        self.disowned: list[tuple[str, str]] = []
        self.network = PeerNetwork(
            identity=identity(name, cluster=cluster, incarnation=incarnation, **more),
            listen=("127.0.0.1", port),
            on_disowned=lambda peer, reason: self.disowned.append((peer, reason)),
            known_incarnation=lambda node: (known or {}).get(node, 0),
            hints={NodeId(peer): address for peer, address in (hints or {}).items()},
            peers={NodeId(peer): address for peer, address in peers.items()},
            on_envelopes=self.frames.append,
            on_peer_lost=self.lost.append,
            on_link_change=lambda node, direction, up: self.changes.append((node, direction, up)),
            limits=limits,
        )

    @property
    def address(self) -> str:
        host, port = self.network.listening
        return f"{host}:{port}"

    @property
    def port(self) -> int:
        return self.network.listening[1]

    def set_peers(self, *others: Node, own_address: str = "") -> None:
        self.network.set_peers({other.name: other.address for other in others}, own_address)

    @property
    def envelopes(self) -> list[Envelope]:
        return [one for frame in self.frames for one in frame]

    @property
    def rounds(self) -> list[int]:
        return [one.message.round for one in self.envelopes if isinstance(one.message, HeartbeatReply)]

    def connected(self) -> bool:
        return all(view.connected for view in self.network.views())


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until ``condition`` holds; fails after a deadline that no sound run comes near."""
    deadline_s = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline_s, "waited in vain"
        await asyncio.sleep(0)


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    """Started, and told each other's real ports; closed at the end."""
    try:
        for node in nodes:
            await node.network.start()
        for node in nodes:
            for other in nodes:
                if any(view.node == other.name for view in node.network.views()):
                    node.network.move_peer(other.name, other.address)
        yield
    finally:
        # NB: asyncio (3.11) leaks a connection that is accepted in the very turn in which its server closes.
        # Between processes nobody sees that, here it is a warning: so all stop calling each other first.
        for node in nodes:
            node.network._register.silence()
            for link in list(node.network._links.values()):
                await link.close()
        for _ in range(8):
            await asyncio.sleep(0)
        for node in nodes:
            await node.network.close()


def pair(**settings: Any) -> tuple[Node, Node]:
    return Node("n1", {"n2": NOWHERE}, **settings), Node("n2", {"n1": NOWHERE}, **settings)


def free_port() -> int:
    """One that nobody listens on now."""
    return free_ports(1)[0]


@asynccontextmanager
async def raw_link(node: Node) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket to ``node``'s peer port that has said nothing yet."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://{node.address}{LINK_PATH}", autoclose=False) as socket,
    ):
        yield socket


async def greeted(socket: aiohttp.ClientWebSocketResponse, **fields: Any) -> None:
    """Say hello, and take the answer."""
    await socket.send_bytes(encode_hello(hello(**fields)))
    answer = await received(socket)
    assert answer.type is aiohttp.WSMsgType.BINARY, answer


async def received(socket: aiohttp.ClientWebSocketResponse) -> aiohttp.WSMessage:
    """NB: not ``receive(timeout)``, which starts anew at every ping."""
    async with asyncio.timeout(DEADLINE_S):
        return await socket.receive()


async def close_of(socket: aiohttp.ClientWebSocketResponse) -> tuple[int, str]:
    """The code and reason the other side closes with."""
    message = await received(socket)
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return message.data, message.extra or ""


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """Takes connections and never says or reads a thing; its address."""
    writers: list[asyncio.StreamWriter] = []

    def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()
