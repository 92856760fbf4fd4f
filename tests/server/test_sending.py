"""A leader's snapshots on their way: which one, to whom, until when, and what comes after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from raftkv.consensus.ready import Ready
from raftkv.consensus.types import Index, Mark, NodeId, Term
from raftkv.server.sending import SnapshotSender
from raftkv.transport.snapshots import SnapshotNotTaken
from raftkv.wire.snapshots import Offer
from tests.server.lone import Lone, lone, until

N2, N3 = NodeId("n2"), NodeId("n3")
ENOUGH = 1 << 30


def asks(*peers: NodeId) -> Ready:
    """The core asks a snapshot for them."""
    return Ready((), None, (), Mark(Term(1), Index(0)), (), (), None, peers)


class Wire:
    """Takes what is sent; fails as often as it is told, and waits while it is told."""

    def __init__(self) -> None:
        self.arrived: list[tuple[NodeId, Offer, list[bytes]]] = []
        self.failures = 0
        self.attempts = 0
        self.open = asyncio.Event()
        self.open.set()
        self.under_way = 0

    async def send_snapshot(self, peer: NodeId, offer: Offer, chunks: AsyncIterator[Sequence[bytes]]) -> str:
        self.attempts += 1
        self.under_way += 1
        try:
            got: list[bytes] = []
            async for some in chunks:
                got += some
                await self.open.wait()
            if self.failures:
                self.failures -= 1
                raise SnapshotNotTaken("broken")
            self.arrived.append((peer, offer, got))
            return "taken"
        finally:
            self.under_way -= 1


@asynccontextmanager
async def leader(
    directory: Path, bytes_per_s: float = ENOUGH
) -> AsyncIterator[tuple[Lone, SnapshotSender, Wire, list[NodeId]]]:
    """... with a snapshot; the last is whose way the core was told has ended."""
    async with lone(directory) as node:
        await node.fill(1, 200, value_bytes=1000)
        await node.snapshots.take()
        ended: list[NodeId] = []
        node.driver.snapshot_ended = ended.append  # type: ignore[method-assign]
        wire = Wire()
        sender = SnapshotSender(
            replica=node.replica,
            driver=node.driver,
            snapshots=node.snapshots,
            files=node.files,
            transport=wire,
            bytes_per_s=bytes_per_s,
        )
        yield node, sender, wire, ended
        sender.stop()
        await until(lambda: not sender.status())


async def test_the_newest_is_sent_and_the_core_told(tmp_path: Path) -> None:
    async with leader(tmp_path) as (node, sender, wire, ended):
        sender.turned(asks(N2))
        await until(lambda: ended)
        ((peer, offer, chunks),) = wire.arrived
        assert (peer, offer.meta) == (N2, node.snapshots.newest.meta)
        assert offer.term == node.replica.node.current_term
        assert chunks == [chunk for chunk in node.chunks() if chunk]
        assert ended == [N2]


async def test_several_at_once(tmp_path: Path) -> None:
    async with leader(tmp_path) as (_, sender, wire, ended):
        wire.open.clear()
        sender.turned(asks(N2, N3))
        await until(lambda: wire.under_way == 2)
        assert list(sender.status()) == [N2, N3]
        wire.open.set()
        await until(lambda: sorted(ended) == [N2, N3])


async def test_the_core_is_told_of_a_failure_later_each_time(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with leader(tmp_path) as (_, sender, wire, ended):
        wire.failures = 3
        took_s = []
        for number in range(1, 5):
            start_s = loop.time()
            sender.turned(asks(N2))
            await until(lambda: len(ended) == number)  # noqa: B023
            took_s.append(loop.time() - start_s)
        assert wire.attempts == 4
        assert len(wire.arrived) == 1
        assert all(took >= least for took, least in zip(took_s, (0.1, 0.2, 0.4), strict=False))


async def test_a_damaged_one_is_set_aside_and_a_new_one_taken(tmp_path: Path) -> None:
    async with leader(tmp_path) as (node, sender, wire, ended):
        (path,) = node.directory.glob("*.snap")
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(data)
        sender.turned(asks(N2))
        await until(lambda: ended)
        assert wire.arrived == []
        assert node.names() == [path.name + ".damaged"]
        sender.turned(asks(N2))
        await until(lambda: len(ended) == 2)
        assert wire.arrived[0][2] == [chunk for chunk in node.chunks() if chunk]


async def test_who_leads_no_more_sends_no_further(tmp_path: Path) -> None:
    async with leader(tmp_path, bytes_per_s=2_000_000) as (node, sender, wire, ended):
        wire.open.clear()
        sender.turned(asks(N2))
        await until(lambda: wire.under_way)
        node.replica.node._core.current_term = Term(99)
        wire.open.set()
        await until(lambda: ended)
        assert wire.arrived == []


async def test_asked_again_it_begins_anew(tmp_path: Path) -> None:
    async with leader(tmp_path) as (_, sender, wire, ended):
        wire.open.clear()
        sender.turned(asks(N2))
        await until(lambda: wire.under_way)
        sender.turned(asks(N2))
        await until(lambda: wire.attempts == 2 and wire.under_way == 1)
        assert ended == [], "the first one's end says nothing of the second"
        wire.open.set()
        await until(lambda: ended == [N2])
        assert len(wire.arrived) == 1


async def test_the_rate_is_shared(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with leader(tmp_path, bytes_per_s=1_000_000) as (node, sender, _, ended):
        start_s = loop.time()
        sender.turned(asks(N2, N3))
        await until(lambda: len(ended) == 2)
        assert loop.time() - start_s > 0.7 * 2 * node.snapshots.newest.size_bytes / 1_000_000


async def test_the_log_waits_for_its_way(tmp_path: Path) -> None:
    async with leader(tmp_path) as (node, sender, wire, ended):
        sent = node.snapshots.newest.meta
        wire.open.clear()
        sender.turned(asks(N2))
        await until(lambda: wire.under_way)
        await node.fill(1, 5)
        await node.snapshots.take()
        assert node.replica.node.log.boundary == sent
        wire.open.set()
        await until(lambda: ended)
