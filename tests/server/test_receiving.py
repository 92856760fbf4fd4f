"""A leader's snapshot that comes to a node: what is refused, what replaced, and in which order it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raftkv.config import parse_cluster
from raftkv.consensus.membership import encode_membership
from raftkv.consensus.messages import AppendEntriesReply, Heartbeat
from raftkv.consensus.types import GroupId, Index, Membership, NodeId, SnapshotMeta, Term
from raftkv.errors import SnapshotFailed
from raftkv.kv.commands import encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId
from raftkv.server.receiving import SnapshotReceiver
from raftkv.server.snapshots import Taken
from raftkv.transport.snapshots import SnapshotRefused
from raftkv.wire.snapshots import Offer
from tests.server.lone import Lone, Reluctant, lone, until
from tests.server.rig import append

N2, N3 = NodeId("n2"), NodeId("n3")
EXTRA = encode_membership(Membership.of("n1", "n2", "n3"))
QUIET = {  # nobody stands for election
    "cluster": parse_cluster("n1=127.0.0.1:2,n2=127.0.0.1:3,n3=127.0.0.1:4"),
    "election_timeout_min_ms": 60_000.0,
    "election_timeout_max_ms": 90_000.0,
}


MEMBERS = Membership.of("n1", "n2", "n4", addresses={"n4": "d:4"})
EXTRA = encode_membership(MEMBERS)


def offer(index: int = 100, term: int = 2, **fields: Any) -> Offer:
    meta = SnapshotMeta(Index(index), Term(term), 5)
    return Offer(**({"group": GroupId(0), "term": Term(term), "meta": meta, "extra": EXTRA} | fields))


def machine(keys: int = 500) -> list[bytes]:
    """Its chunks, several."""
    one = KvMachine()
    batch = BatchId(N2, 1, 1, 1)
    one.apply(1, one.seal(batch, [encode_put(b"%05d" % key, bytes(500)) for key in range(keys)]))
    return [chunk for chunk in one.export() if chunk]


@asynccontextmanager
async def follower(
    directory: Path, files: Reluctant | None = None
) -> AsyncIterator[tuple[Lone, SnapshotReceiver]]:
    async with lone(directory, files, **QUIET) as node:
        receiver = SnapshotReceiver(
            replica=node.replica,
            driver=node.driver,
            snapshots=node.snapshots,
            files=node.files,
            worker=node.worker,
            disk=node.disk,
        )
        yield node, receiver


def refusal(receiver: SnapshotReceiver, offered: Offer) -> tuple[int, str]:
    with pytest.raises(SnapshotRefused) as refused:
        receiver.offered(N2, offered)
    return refused.value.status, str(refused.value)


async def test_it_is_durable_then_installed_then_acknowledged(tmp_path: Path) -> None:
    async with follower(tmp_path) as (node, receiver):
        node.hear("n2", append(1, 30, commit=10))
        await until(lambda: node.replica.last_applied == 10)
        coming = receiver.offered(N2, offer())
        assert coming is not None
        for chunk in machine():
            await coming.chunk(chunk)
            assert node.replica.last_applied == 10
        assert node.names("*.snap") == []
        finishing = asyncio.create_task(coming.finish())
        await until(lambda: node.replica.last_applied == 100)
        assert len(node.names("*.snap")) == 1
        await finishing
        assert node.sent[-1] == AppendEntriesReply(Index(100))
        assert len(node.machine.store) == 500
        assert node.snapshots.newest.meta == offer().meta
        before = node.chunks()
    async with follower(tmp_path) as (node, receiver):
        assert node.replica.node.log.boundary == offer().meta
        assert node.chunks() == before
        with node.files.open(offer().meta) as reader:
            assert reader.extra == EXTRA
        assert node.replica.node.membership == MEMBERS


async def test_one_whose_members_cannot_be_read_is_refused(tmp_path: Path) -> None:
    async with follower(tmp_path) as (_, receiver):
        status, reason = refusal(receiver, offer(extra=b"members?"))
        assert (status, "its membership can't be read" in reason) == (400, True)


async def test_one_that_does_not_say_who_the_members_are_changes_nothing_about_them(tmp_path: Path) -> None:
    """It was taken by the release before this one, or restored from a backup."""
    async with follower(tmp_path) as (node, receiver):
        before = node.replica.node.membership
        coming = receiver.offered(N2, offer(extra=b""))
        assert coming is not None
        for chunk in machine():
            await coming.chunk(chunk)
        finishing = asyncio.create_task(coming.finish())
        await until(lambda: node.replica.last_applied == 100)
        await finishing
        assert node.replica.node.membership == before
        assert before != MEMBERS


async def test_the_answer_waits_for_the_log_to_say_so(tmp_path: Path) -> None:
    async with follower(tmp_path) as (node, receiver):
        coming = receiver.offered(N2, offer())
        assert coming is not None
        for chunk in machine():
            await coming.chunk(chunk)
        order: list[str] = []
        drop = node.disk.drop_before
        node.disk.drop_before = lambda index, then: drop(  # type: ignore[method-assign]
            index, lambda: (order.append(f"durable up to {index}"), then())[1]
        )
        await coming.finish()
        order.append("answered")
        assert order[:2] == ["durable up to 100", "answered"]


async def test_of_an_old_term(tmp_path: Path) -> None:
    async with follower(tmp_path) as (node, receiver):
        coming = receiver.offered(N2, offer(term=2))
        assert coming is not None
        chunks = machine()
        await coming.chunk(chunks[0])
        node.hear("n3", Heartbeat(Index(0), Index(0), 1), term=3)
        with pytest.raises(SnapshotRefused, match="term 2 is over; it is 3 now"):
            await coming.chunk(chunks[1])
        coming.give_up()
        assert refusal(receiver, offer(term=2)) == (409, "term 2 is over; it is 3 now")
        assert receiver.status() is None


async def test_a_term_that_ends_while_the_file_is_made_durable(tmp_path: Path) -> None:
    """The file is good, and stays; what this node is told by it is of a leader that is none any more."""
    async with follower(tmp_path) as (node, receiver):
        coming = receiver.offered(N2, offer(term=2))
        assert coming is not None
        for chunk in machine():
            await coming.chunk(chunk)
        finishing = asyncio.create_task(coming.finish())
        await asyncio.sleep(0)
        node.hear("n3", Heartbeat(Index(0), Index(0), 1), term=3)
        with pytest.raises(SnapshotRefused, match="term 2 is over"):
            await finishing
        assert node.replica.last_applied == 0


async def test_of_another_group(tmp_path: Path) -> None:
    async with follower(tmp_path) as (_, receiver):
        assert refusal(receiver, offer(group=GroupId(1))) == (400, "n1 has no group 1")


async def test_what_the_log_holds_already_is_acknowledged_without_it(tmp_path: Path) -> None:
    async with follower(tmp_path) as (node, receiver):
        node.hear("n2", append(1, 30, commit=10))
        await until(lambda: node.replica.last_applied == 10)
        for index in (30, 20, 5):
            meta = SnapshotMeta(Index(index), Term(1), 0)
            assert receiver.offered(N2, offer(term=1, meta=meta)) is None
            await until(lambda: node.sent[-1] == AppendEntriesReply(Index(index)))  # noqa: B023
        assert node.replica.last_applied == 30, "the leader's snapshot says that it is committed"
        assert receiver.status() is None


async def test_a_newer_one_replaces_it_and_an_older_one_is_refused(tmp_path: Path) -> None:
    async with follower(tmp_path) as (node, receiver):
        chunks = machine()
        first = receiver.offered(N2, offer(100))
        assert first is not None
        await first.chunk(chunks[0])
        assert refusal(receiver, offer(90)) == (409, "n1 is being sent a newer one")
        second = receiver.offered(N2, offer(200))
        assert second is not None
        with pytest.raises(SnapshotRefused, match="n2 sends a newer one"):
            await first.chunk(chunks[1])
        first.give_up()
        status = receiver.status()
        assert status is not None
        assert status["index"] == 200
        for chunk in chunks:
            await second.chunk(chunk)
        await second.finish()
        second.give_up()  # as the handler does, whatever happened
        assert (node.replica.last_applied, receiver.status()) == (200, None)
        await node.worker.do(lambda: None)
        assert len(node.names()) == 1


async def test_the_same_one_again_replaces_what_broke_off(tmp_path: Path) -> None:
    async with follower(tmp_path) as (node, receiver):
        chunks = machine()
        first = receiver.offered(N2, offer())
        assert first is not None
        await first.chunk(chunks[0])
        second = receiver.offered(N2, offer())
        assert second is not None
        for chunk in chunks:
            await second.chunk(chunk)
        await second.finish()
        first.give_up()
        assert node.replica.last_applied == 100


async def test_a_machine_that_cannot_be_read(tmp_path: Path) -> None:
    async with follower(tmp_path) as (node, receiver):
        coming = receiver.offered(N2, offer())
        assert coming is not None
        with pytest.raises(SnapshotRefused, match="this machine can't be read"):
            await coming.chunk(b"no chunk")
        coming.give_up()
        await node.worker.do(lambda: None)
        assert node.names() == []


async def test_its_own_that_is_being_taken_is_given_up(tmp_path: Path) -> None:
    files = Reluctant()
    async with follower(tmp_path, files) as (node, receiver):
        node.hear("n2", append(1, 30, commit=10))
        await until(lambda: node.replica.last_applied == 10)
        files.goes_on.clear()
        taking = asyncio.create_task(node.snapshots.take())
        await until(lambda: files.begun)
        coming = receiver.offered(N2, offer())
        assert coming is not None
        with pytest.raises(SnapshotFailed, match="given up"):
            await taking
        files.goes_on.set()
        for chunk in machine():
            await coming.chunk(chunk)
        await coming.finish()
        assert len(node.names()) == 1


async def test_a_full_disk(tmp_path: Path) -> None:
    files = Reluctant()
    files.is_full = True
    async with follower(tmp_path, files) as (_, receiver):
        coming = receiver.offered(N2, offer())
        assert coming is not None
        with pytest.raises(SnapshotRefused, match="No space left") as refused:
            await coming.chunk(machine()[0])
        assert refused.value.status == 507


async def test_a_node_that_stops(tmp_path: Path) -> None:
    async with follower(tmp_path) as (_, receiver):
        coming = receiver.offered(N2, offer())
        assert coming is not None
        receiver.stop()
        with pytest.raises(SnapshotRefused, match="stopping"):
            await coming.chunk(machine()[0])
        assert refusal(receiver, offer()) == (503, "n1 is stopping")


async def test_what_is_committed_and_not_yet_applied_stays_in_the_log(tmp_path: Path) -> None:
    """A snapshot may come that isn't needed, and ends beyond what the machine has reached."""
    async with lone(tmp_path, **QUIET, snapshot_margin_bytes=0) as node:
        message = append(1, 30, commit=10)
        entries = tuple(replace(entry, data=b"entry") for entry in message.entries)
        node.hear("n2", replace(message, entries=entries))
        await until(lambda: node.replica.last_applied == 10)
        log = node.replica.node.log
        await node.snapshots.keep(Taken(log.meta_at(Index(20)), size_bytes=1))
        assert log.boundary.index == 10
