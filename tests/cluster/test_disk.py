"""Disks that get full, fail, dawdle, or are cut off in the middle of an fsync."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cluster.disks import grow_filesystem, limit_files, small_filesystem, strace
from tests.cluster.harness import VERDICT, Cluster, Node, running
from tests.cluster.load import Book, Load

pytestmark = pytest.mark.cluster

EXIT_DISK = 74


async def ended_by_its_disk(node: Node) -> None:
    """It stopped by itself, with one line that says why to whoever started it."""
    assert await node.exit_code() == EXIT_DISK
    (line,) = [words for words in node.last_words() if words.startswith(VERDICT)]
    assert str(node.data_dir) in line
    assert "fail" in line or "No space left" in line or "File too large" in line


async def judge(cluster: Cluster, book: Book) -> None:
    for node in cluster.nodes:
        await cluster.caught_up(node)
        await book.check(cluster, node, "load/")


@pytest.mark.parametrize("leads", [True, False], ids=["the leader's", "a follower's"])
async def test_a_full_disk(tmp_path: Path, leads: bool) -> None:
    """The node stops, the others go on, and with space it comes back."""
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        node = leader if leads else cluster.others(leader)[0]
        book, others_book = Book(), Book()
        async with (
            Load(cluster.others(node), "load/others/", book=others_book) as others,
            Load([node], "load/own/", book=book) as own,
        ):
            await own.acknowledged(100)
            await others.acknowledged(100)
            limit_files(node, 50_000)
            await ended_by_its_disk(node)
            await others.acknowledged(200)
        assert not others_book.failures
        node.start()
        await cluster.leader()
        await judge(cluster, _both(book, others_book))


async def test_a_full_filesystem(tmp_path: Path) -> None:
    """One node alone, on a tmpfs: what it acknowledged is there when it gets more space."""
    with small_filesystem(tmp_path / "n1", "300k"):
        async with running(tmp_path, size=1) as cluster:
            (node,) = cluster.nodes
            book = Book()
            async with Load([node], "load/", book=book, value_bytes=1_000):
                await ended_by_its_disk(node)
            assert book.acknowledged
            node.start()  # full as it is: it can't, and says so, and breaks nothing
            await node.exit_code()
            grow_filesystem(tmp_path / "n1", "4m")
            node.start()
            await cluster.leader()
            await judge(cluster, book)
            assert (await cluster.put(node, "after", "all")).status == 201


async def test_a_failing_fsync_acknowledges_nothing(tmp_path: Path) -> None:
    """A node alone, writes one after the other: the disk thread's first fsyncs are its vote and the no-op of
    its term, then each is one write's. The twelfth fails, so at most nine were acknowledged.
    """
    async with running(tmp_path, size=1) as cluster:
        (node,) = cluster.nodes
        await stop(node)
        node.start(strace(tmp_path, "error=EIO:when=12"))
        await cluster.leader()  # so that no write shares the no-op's fsync
        book = Book()
        async with Load(cluster.nodes, "load/", book=book, writers=1):
            await ended_by_a_failed_fsync(node)
        assert 0 < len(book.acknowledged) <= 9
        assert len(book.unknown) == 1
        node.start()
        await cluster.leader()
        await judge(cluster, book)


async def test_a_failing_fsync_of_the_leader(tmp_path: Path) -> None:
    """It stops at the first fsync that fails; the others go on, and it comes back."""
    async with running(tmp_path) as cluster:
        book = Book()
        for failing in (3, 20):
            node = await cluster.leader()
            await stop(node)
            node.start(strace(tmp_path, f"error=EIO:when={failing}"))
            await cluster.serves_or_ended(node)
            async with Load(cluster.nodes, f"load/{failing}/", book=book):
                await ended_by_a_failed_fsync(node)
            node.start()
            await judge(cluster, book)
        assert book.acknowledged


async def stop(node: Node) -> None:
    node.signal(signal.SIGTERM)
    assert await node.exit_code() == 0


async def ended_by_a_failed_fsync(node: Node) -> None:
    assert await node.exit_code() == EXIT_DISK
    line = node.last_words()[-1]
    assert line.startswith(VERDICT)
    assert "Input/output error" in line


async def test_slow_fsyncs(tmp_path: Path) -> None:
    """Of the leader and a follower, longer than two heartbeats: nobody is deposed, and no write is
    acknowledged before one of the two has it on disk.
    """
    async with running(tmp_path, start=False) as cluster:
        leader, *others = cluster.nodes
        for node in others:  # so that the slow leader is elected
            node.options = ("--election-timeout-min-ms", "5000", "--election-timeout-max-ms", "6000")
        for node in (leader, others[0]):
            node.start(strace(tmp_path, "delay_enter=200000"))
        others[1].start()
        assert await cluster.leader() == leader
        before = await cluster.status(leader)
        assert before is not None
        book = Book()
        async with Load(cluster.nodes, "load/", book=book) as load:
            await load.acknowledged(40)
        after = await cluster.status(leader)
        assert after is not None
        assert not book.failures
        assert load.fastest_s > 0.2
        assert (after["role"], after["term"]) == ("leader", before["term"])
        assert any(event["event"].startswith("slow fsync") for event in leader.events())


@pytest.mark.parametrize("size", [1, 3])
async def test_kill_9_at_an_fsync(tmp_path: Path, size: int) -> None:
    """Dead exactly when the bytes are written and the fsync isn't done, the first ones of a life included."""
    async with running(tmp_path, size) as cluster:
        book = Book()
        node = cluster.nodes[0]
        for number in (1, 2, 5) if size == 1 else (2, 5):
            await stop(node)
            node.start(strace(tmp_path, f"signal=KILL:when={number}"))
            await cluster.serves_or_ended(node)
            async with Load(cluster.nodes, f"load/{number}/", book=book):
                assert await node.exit_code() == -signal.SIGKILL
            node.start()
            await cluster.leader()
            await judge(cluster, book)


def _both(one: Book, other: Book) -> Book:
    return Book(
        one.acknowledged | other.acknowledged,
        one.not_applied | other.not_applied,
        one.unknown | other.unknown,
        one.repeated + other.repeated,
    )
