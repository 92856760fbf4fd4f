"""Snapshots between peers on loopback: taken, refused, broken off; and strangers at the port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from raftkv.consensus.types import GroupId, Index, NodeId, SnapshotMeta, Term
from raftkv.transport.limits import LinkLimits
from raftkv.transport.network import PeerNetwork
from raftkv.transport.snapshots import SNAPSHOT_PATH, Incoming, SnapshotNotTaken, SnapshotRefused
from raftkv.wire.reports import Hello
from raftkv.wire.snapshots import Offer, StreamEncoder
from tests.transport.nodes import DEADLINE_S, hello, identity, until

N1, N2 = NodeId("n1"), NodeId("n2")
OFFER = Offer(GroupId(0), Term(7), SnapshotMeta(Index(10), Term(6), 5), b"extra")
CHUNKS = [b"one", b"two" * 50_000, b"three"]
QUICK = LinkLimits(snapshot_idle_timeout_ms=200, snapshot_answer_timeout_ms=200)


@dataclass
class Taker:
    """n1's side: takes what comes, or does what the test says."""

    refuses: SnapshotRefused | None = None
    refuses_chunk: SnapshotRefused | None = None
    needs: bool = True
    hangs: bool = False  # at the end
    offers: list[tuple[NodeId, Offer]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def offered(self, sender: NodeId, offer: Offer) -> Incoming | None:
        self.offers.append((sender, offer))
        if self.refuses is not None:
            raise self.refuses
        return self if self.needs else None

    async def chunk(self, chunk: bytes) -> None:
        if self.refuses_chunk is not None:
            raise self.refuses_chunk
        self.chunks.append(chunk)

    async def finish(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        self.ends.append("finished")

    def give_up(self) -> None:
        self.ends.append("given up")


@asynccontextmanager
async def pair(
    taker: Taker, *, limits: LinkLimits = QUICK, cluster: str = "c1"
) -> AsyncIterator[tuple[PeerNetwork, str]]:
    """n2's network, and n1's address, whose snapshots go to ``taker``. NB: n2 is never started: no link."""
    receiver = PeerNetwork(
        identity=identity("n1"),
        listen=("127.0.0.1", 0),
        peers={N2: "127.0.0.1:1"},
        on_envelopes=lambda _: None,
        on_peer_lost=lambda _: None,
        on_offer=taker.offered,
        limits=limits,
    )
    await receiver.start()
    host, port = receiver.listening
    address = f"{host}:{port}"
    sender = PeerNetwork(
        identity=identity("n2", cluster=cluster),
        listen=("127.0.0.1", 0),
        peers={N1: address},
        on_envelopes=lambda _: None,
        on_peer_lost=lambda _: None,
        limits=limits,
    )
    try:
        yield sender, address
    finally:
        await sender.close()
        await receiver.close()


async def given(chunks: Sequence[bytes] = CHUNKS) -> AsyncIterator[Sequence[bytes]]:
    for chunk in chunks:
        yield [chunk]


async def endless() -> AsyncIterator[Sequence[bytes]]:
    while True:
        yield [bytes(10_000)]
        await asyncio.sleep(0)


async def test_a_snapshot_arrives_as_it_was_sent() -> None:
    taker = Taker()
    async with pair(taker) as (sender, _):
        assert await sender.send_snapshot(N1, OFFER, given()) == "taken"
    assert taker.offers == [(N2, OFFER)]
    assert taker.chunks == CHUNKS
    assert taker.ends[0] == "finished"


async def test_one_that_is_not_needed_is_sent_no_further() -> None:
    taker = Taker(needs=False)
    async with pair(taker) as (sender, _):
        assert await sender.send_snapshot(N1, OFFER, endless()) == "not needed"


@pytest.mark.parametrize("when", ["at the offer", "at a chunk"])
async def test_a_refusal_is_heard_before_all_is_sent(when: str) -> None:
    no = SnapshotRefused(409, "term 7 is over")
    taker = Taker(refuses=no) if when == "at the offer" else Taker(refuses_chunk=no)
    async with pair(taker) as (sender, _):
        with pytest.raises(SnapshotNotTaken, match=r"n1 refuses it \(409\): term 7 is over"):
            await sender.send_snapshot(N1, OFFER, endless())
    assert taker.ends == ([] if when == "at the offer" else ["given up"])


async def test_a_node_of_another_cluster_is_refused() -> None:
    taker = Taker()
    async with pair(taker, cluster="c2") as (sender, _):
        with pytest.raises(SnapshotNotTaken, match=r"403.*n1 is of cluster c1, not c2"):
            await sender.send_snapshot(N1, OFFER, given())
    assert taker.offers == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (hello(node="n1"), "own id"),
        (hello(receiver="n3"), "this is n1, not n3"),
        (hello(node="n9"), "doesn't expect n9"),
    ],
)
async def test_strangers_are_refused(said: Hello, reason: str) -> None:
    taker = Taker()
    async with pair(taker) as (_, address):
        status, text = await post(address, StreamEncoder().head(said, OFFER))
    assert status == 403
    assert reason in text
    assert taker.offers == []


async def post(address: str, body: bytes | AsyncIterator[bytes]) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{address}{SNAPSHOT_PATH}", data=body) as response,
    ):
        return response.status, await response.text()


@pytest.mark.parametrize("body", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\xff" * 100])
async def test_garbage_is_refused(body: bytes) -> None:
    taker = Taker()
    async with pair(taker) as (_, address):
        assert (await post(address, body))[0] == 400
    assert taker.offers == []


async def test_one_without_its_end_is_not_finished() -> None:
    taker = Taker()
    encoder = StreamEncoder()
    body = encoder.head(hello(), OFFER) + encoder.chunks(CHUNKS)
    async with pair(taker) as (_, address):
        status, text = await post(address, body)
    assert (status, text) == (400, "the stream ended before the snapshot did\n")
    assert taker.ends == ["given up"]


async def test_a_damaged_one_is_not_finished() -> None:
    async def body() -> AsyncIterator[bytes]:
        encoder = StreamEncoder()
        yield encoder.head(hello(), OFFER) + encoder.chunks(CHUNKS)
        await until(lambda: taker.chunks == CHUNKS)
        damaged = bytearray(encoder.end())
        damaged[-1] ^= 1
        yield bytes(damaged)

    taker = Taker()
    async with pair(taker) as (_, address):
        status, text = await post(address, body())
    assert status == 400
    assert "damaged on its way" in text
    assert taker.ends == ["given up"]


class Broken(Exception):
    pass


async def test_what_the_sender_meets_ends_it_on_both_sides() -> None:
    async def failing() -> AsyncIterator[Sequence[bytes]]:
        yield [b"one"]
        await until(lambda: taker.chunks)
        raise Broken

    taker = Taker()
    async with pair(taker) as (sender, _):
        with pytest.raises(Broken):
            await sender.send_snapshot(N1, OFFER, failing())
        await until(lambda: taker.ends)
    assert taker.ends == ["given up"]


async def test_one_that_stops_coming_is_given_up() -> None:
    async def stuck() -> AsyncIterator[bytes]:
        encoder = StreamEncoder()
        yield encoder.head(hello(), OFFER) + encoder.chunks(CHUNKS)
        await asyncio.Event().wait()

    taker = Taker()
    async with pair(taker) as (_, address), asyncio.timeout(DEADLINE_S):
        status, text = await post(address, stuck())
    assert (status, text) == (408, "nothing came for 0.2 s\n")
    assert taker.ends == ["given up"]


async def test_a_receiver_that_takes_nothing_is_given_up() -> None:
    async def nothing() -> AsyncIterator[Sequence[bytes]]:
        await asyncio.Event().wait()
        yield []

    async def deaf(reader: object, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with pair(Taker()) as (sender, _), asyncio.timeout(DEADLINE_S):
        sender.move_peer(N1, f"127.0.0.1:{port}")
        for chunks in (nothing(), endless()):
            with pytest.raises(SnapshotNotTaken, match="n1 took nothing"):
                await sender.send_snapshot(N1, OFFER, chunks)
    gone.set()
    server.close()
    await server.wait_closed()


async def test_a_receiver_that_never_answers_is_given_up() -> None:
    taker = Taker(hangs=True)
    async with pair(taker) as (sender, _):
        with pytest.raises(SnapshotNotTaken, match="n1 took nothing"):
            await sender.send_snapshot(N1, OFFER, given())


async def test_nobody_there() -> None:
    taker = Taker()
    async with pair(taker) as (sender, _):
        sender.move_peer(N1, "127.0.0.1:1")
        with pytest.raises(SnapshotNotTaken, match=r"127\.0\.0\.1:1"):
            await sender.send_snapshot(N1, OFFER, given())


async def test_a_node_that_takes_none() -> None:
    """As one of an earlier version."""
    async with pair(Taker()) as (sender, _):
        other = PeerNetwork(
            identity=identity("n1"),
            listen=("127.0.0.1", 0),
            peers={N2: "127.0.0.1:1"},
            on_envelopes=lambda _: None,
            on_peer_lost=lambda _: None,
        )
        await other.start()
        sender.move_peer(N1, "{}:{}".format(*other.listening))
        with pytest.raises(SnapshotNotTaken, match="404"):
            await sender.send_snapshot(N1, OFFER, given())
        await other.close()
