"""Cut wires between living nodes: silent ones, half-open ones, ones that lose one direction."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.cluster.load import Book, Load
from tests.cluster.wires import wired

pytestmark = pytest.mark.cluster


async def test_a_leader_that_others_have_left(tmp_path: Path) -> None:
    """The others' links to it are reset, and they elect another within milliseconds; it doesn't know yet,
    and has heard a majority just now. Only the confirmation of its reads by a majority keeps it from lying.
    """
    async with wired(tmp_path) as (cluster, network):
        for number in range(2):
            leader = await cluster.leader()
            others = cluster.others(leader)
            assert (await cluster.put(leader, "key", f"old {number}")).status in (200, 201)
            network.forsake(leader)
            assert (await cluster.put(others[0], "key", f"new {number}")).status == 200
            reads = await asyncio.gather(*(cluster.get(leader, "key", "?timeout=1s") for _ in range(10)))
            assert {reply.status for reply in reads} == {503}
            network.heal()
            await cluster.leader()
            assert (await cluster.get(leader, "key")).raw == b"new %d" % number


async def test_a_silent_partition_of_the_leader(tmp_path: Path) -> None:
    """Nobody is told, but the others go on within the election timeout; healed, it is back and has lost
    nothing that it acknowledged before.
    """
    async with wired(tmp_path) as (cluster, network):
        book = Book()
        leader = await cluster.leader()
        others = cluster.others(leader)
        async with (
            Load(others, "load/others/", book=book) as load,
            Load([leader], "load/own/", book=book, writers=4) as own,
        ):
            await load.acknowledged(100)
            await own.acknowledged(50)
            network.isolate(leader)
            await cluster.leader(among=others)

            async def steps_down() -> bool:
                status = await cluster.status(leader)
                return status is not None and status["leader"] is None

            await cluster.until(steps_down, "the isolated leader finds out by itself")
            await load.acknowledged(100)
            network.heal()
            await cluster.leader()
            await own.acknowledged(20)
        assert not book.failures
        for node in cluster.nodes:
            await cluster.caught_up(node)
            await book.check(cluster, node, "load/")


async def test_a_leader_that_is_not_heard(tmp_path: Path) -> None:
    """It hears the others, they don't hear it: it must not lead on, nor come back to depose the next one."""
    async with wired(tmp_path) as (cluster, network):
        book = Book()
        leader = await cluster.leader()
        others = cluster.others(leader)
        async with Load(others, "load/", book=book) as load:
            await load.acknowledged(50)
            network.mute(leader)
            successor = await cluster.leader(among=others)
            before = await cluster.status(successor)
            await load.acknowledged(200)
            network.heal()
            assert await cluster.leader() == successor
        after = await cluster.status(successor)
        assert before is not None
        assert after is not None
        assert before["term"] == after["term"]
        assert not book.failures
        await book.check(cluster, leader, "load/")


async def test_a_partial_cut_deposes_nobody(tmp_path: Path) -> None:
    """A follower and the leader lose each other, and both still have the third, which is loyal: the follower
    hunts in vain, though its log is as good as any.
    """
    async with wired(tmp_path) as (cluster, network):
        book = Book()
        leader = await cluster.leader()
        apart, third = cluster.others(leader)
        assert (await cluster.put(apart, "load/first", "value")).status == 201
        book.acknowledged["load/first"] = "value"
        await cluster.caught_up(apart)
        before = await cluster.status(leader)
        network.part(leader, apart)

        def hunts() -> bool:
            return any(event.get("role") == "pre_candidate" for event in apart.events()[seen:])

        seen = len(apart.events())
        await cluster.until(hunts, "the follower asks for votes")
        async with Load([leader, third], "load/", book=book) as load:
            await load.acknowledged(300)
            network.heal()
            await cluster.caught_up(apart)
        after = await cluster.status(leader)
        assert before is not None
        assert after is not None
        assert (after["role"], after["term"]) == ("leader", before["term"])
        assert not book.failures
        await book.check(cluster, apart, "load/")
