"""Reads that wait for a revision."""

from __future__ import annotations

import asyncio

import pytest

from raftkv.errors import NotReached, Outcome, ShuttingDown, TooManyRequests
from raftkv.server.revisions import RevisionWaiters
from tests.server.virtual_time import in_virtual_time, settle


class Machine:
    """Its waiters, and the revision that they look at."""

    def __init__(self, max_waiting: int = 100) -> None:
        self.revision = 5
        self.waiters = RevisionWaiters(lambda: self.revision, max_waiting)

    def ask(self, revision: int, timeout_ms: float = 5000) -> asyncio.Task[None]:
        return asyncio.create_task(self.waiters.reached(revision, timeout_ms))

    async def turn(self, revision: int) -> None:
        self.revision = revision
        self.waiters.turned()
        await settle()


@in_virtual_time
async def test_what_is_there_is_not_waited_for() -> None:
    machine = Machine()
    await machine.waiters.reached(5, 0)
    assert len(machine.waiters) == 0


@in_virtual_time
async def test_each_waits_for_its_own_revision() -> None:
    machine = Machine()
    later, sooner = machine.ask(9), machine.ask(7)
    await settle()
    await machine.turn(6)
    assert (sooner.done(), later.done()) == (False, False)
    await machine.turn(8)
    assert (sooner.done(), later.done()) == (True, False)
    await machine.turn(12)
    assert later.done()
    assert len(machine.waiters) == 0


@in_virtual_time
async def test_the_time_is_up() -> None:
    machine = Machine()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(NotReached, match="is at revision 5 and did not get to 7") as caught:
        await machine.waiters.reached(7, 40)
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert 0.04 <= loop.time() - began_s < 0.05
    assert len(machine.waiters) == 0


@in_virtual_time
async def test_those_that_are_gone_take_no_room() -> None:
    machine = Machine(max_waiting=3)
    stays = machine.ask(9)
    for _ in range(50):
        gone = machine.ask(7)
        await settle()
        gone.cancel()
        await settle()
        assert len(machine.waiters._waiting) <= 3
    assert len(machine.waiters) == 1
    await machine.turn(9)
    assert stays.done()


@in_virtual_time
async def test_too_many() -> None:
    machine = Machine(max_waiting=2)
    waiting = [machine.ask(9) for _ in range(2)]
    await settle()
    with pytest.raises(TooManyRequests):
        await machine.waiters.reached(6, 100)
    await machine.turn(9)
    assert all(task.done() for task in waiting)


@in_virtual_time
async def test_a_node_that_stops_says_so() -> None:
    machine = Machine()
    waiting = machine.ask(9)
    await settle()
    machine.waiters.stop()
    with pytest.raises(ShuttingDown):
        await waiting
