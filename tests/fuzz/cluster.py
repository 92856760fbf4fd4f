"""Two whole nodes in this process, with real links and requests, and a third that the test plays.

``n1`` and ``n2`` are a majority; their disks are instant. The played ``n3`` speaks to ``n1`` over a link.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import aiohttp

from raftkv.consensus import Envelope, Log, Node
from raftkv.consensus.types import Membership, NodeId, Write
from raftkv.kv.commands import encode_put
from raftkv.kv.machine import KvMachine
from raftkv.replica import Replica
from raftkv.server.driver import Driver
from raftkv.transport.hello import LINK_PATH
from raftkv.transport.limits import LinkLimits
from raftkv.transport.network import PeerNetwork
from raftkv.wire.reports import encode_hello
from tests.transport.nodes import NOWHERE, hello, identity, received, until

VOTERS = (NodeId("n1"), NodeId("n2"), NodeId("n3"))


class Server:
    """A driver round a real replica, on a real network."""

    def __init__(self, name: NodeId, limits: LinkLimits) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.fatal: list[BaseException] = []
        self.machine = KvMachine()
        node = Node(
            name,
            Membership.of(*VOTERS),
            uniform=Random(name).uniform,
            now_ms=loop.time() * 1000,
            log=Log(),
        )
        self.replica = Replica(node, self.machine, incarnation=1)
        self.network = PeerNetwork(
            identity=identity(name),
            listen=("127.0.0.1", 0),
            peers={peer: NOWHERE for peer in VOTERS if peer != name},
            on_envelopes=self._on_envelopes,
            on_peer_lost=self._on_peer_lost,
            limits=limits,
        )
        self.driver = Driver(self.replica, self, self.network, on_fatal=self.fatal.append)

    def write(self, write: Write, then: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(then)

    # The driver needs the network, and the network calls the driver: these tie the knot.

    def _on_envelopes(self, envelopes: Sequence[Envelope]) -> None:
        self.driver.on_envelopes(envelopes)

    def _on_peer_lost(self, peer: NodeId) -> None:
        self.driver.on_peer_lost(peer)

    @property
    def port(self) -> int:
        return self.network.listening[1]


class Pair:
    def __init__(self, limits: LinkLimits) -> None:
        self.servers = [Server(name, limits) for name in VOTERS[:2]]
        self.puts = 0

    @property
    def target(self) -> Server:
        return self.servers[0]

    async def serves(self) -> None:
        """Both answer a write, and nothing broke."""
        for server in self.servers:
            self.puts += 1
            assert (await server.driver.propose(encode_put(b"k", b"v"), 20_000)).revision == self.puts
            assert server.fatal == []

    @asynccontextmanager
    async def link(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A link from the played node to ``n1``, greeted."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{self.target.port}{LINK_PATH}", autoclose=False) as socket,
        ):
            await socket.send_bytes(encode_hello(hello("n3")))
            answer = await received(socket)
            assert answer.type is aiohttp.WSMsgType.BINARY, answer
            yield socket


@asynccontextmanager
async def serving_pair(limits: LinkLimits) -> AsyncIterator[Pair]:
    pair = Pair(limits)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    try:
        for server in pair.servers:
            await server.network.start()
        for server, other in (pair.servers, reversed(pair.servers)):
            server.network.move_peer(other.name, f"127.0.0.1:{other.port}")
            server.driver.start()
        await until(lambda: all(server.replica.node.leader for server in pair.servers))
        yield pair
    finally:
        for server in pair.servers:
            server.driver.stop("the test is over")
            server.network._register.silence()
            for link in server.network._links.values():
                await link.close()
        for _ in range(8):
            await asyncio.sleep(0)
        for server in pair.servers:
            await server.network.close()
    assert complaints == [], "the loop was told of something that nobody took care of"


OTHER_NEWS = ("can't connect", "role changed", "leader ", "the event loop is late")


def quiet(lines: list[Any], about: str, at_most: int) -> None:
    """What the links logged of ``about``, or of nobody, is at most ``at_most`` lines without a traceback."""
    told = [line for line in lines if line.get("peer", about) == about]
    told = [line for line in told if not line["event"].startswith(OTHER_NEWS)]
    assert len(told) <= at_most, told
    assert all("exc_info" not in line for line in lines), lines
    assert all("\n" not in str(line.get("reason", "")) for line in lines)
