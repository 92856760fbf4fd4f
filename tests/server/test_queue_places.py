"""Queues of locks: who leaves them, who keeps a place, and whose lease is kept alive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftkv.errors import LockHeld, NoQuorum, NoSuchLease, ShuttingDown, TimedOut, TooManyRequests
from raftkv.kv.commands import (
    encode_delete,
    encode_put,
    encode_tick,
)
from raftkv.kv.places import Place, Queue, places
from raftkv.kv.store import Store
from raftkv.server import queues
from tests.server.table import JOB, TIMEOUT_MS, Table, waiting
from tests.server.virtual_time import advance, in_virtual_time, settle


@in_virtual_time
async def test_who_has_waited_long_enough_leaves_the_queue() -> None:
    table = Table()
    held = await table.acquire(ttl_ms=10**6)
    for fields in ({"ttl_ms": 1000}, {"lease": table.grant(10**6)}, {"ttl_ms": 1000, "token": "t"}):
        waiter = table.acquire(wait_ms=700, **fields)
        await advance(699)
        assert len(table.queued()) == 2
        await advance(2)
        with pytest.raises(LockHeld):
            await waiter
        assert table.queued() == [held.lease]


@in_virtual_time
async def test_so_many_wait_on_a_node_and_whoever_is_done_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_WAITING", 1)
    table = Table()
    held = await table.acquire(ttl_ms=10**6)  # and waits no more
    given_up = table.acquire(ttl_ms=1000, wait_ms=700)
    await waiting(given_up)
    with pytest.raises(TooManyRequests):
        await table.acquire(ttl_ms=1000)
    with pytest.raises(LockHeld):
        await table.acquire(ttl_ms=1000, wait_ms=0)
    await advance(701)
    with pytest.raises(LockHeld):
        await given_up
    waiter = table.acquire(ttl_ms=1000)
    await waiting(waiter)
    await table.release(held)
    await waiter


@in_virtual_time
async def test_a_place_that_cannot_be_given_up_is_told_of() -> None:
    table = Table()
    await table.acquire(ttl_ms=10**6)
    waiter = table.acquire(lease=table.grant(10**6), wait_ms=700)
    await waiting(waiter)
    table.failure = NoQuorum("no leader")
    await advance(701)
    with pytest.raises(TimedOut) as error:
        await waiter
    assert error.value.outcome == "unknown"


@pytest.mark.parametrize(
    ("fields", "leaves"),
    [({"ttl_ms": 1000}, True), ({"lease": 1}, True), ({"ttl_ms": 1000, "token": "t"}, False)],
)
def test_a_client_that_goes_away(fields: dict[str, Any], leaves: bool) -> None:
    """Who has an idempotency key may ask again, anywhere: until its lease ends its place is kept."""

    @in_virtual_time
    async def run() -> None:
        table = Table()
        table.grant(10**6)
        await table.acquire(ttl_ms=10**6)
        waiter = table.acquire(**fields)
        await waiting(waiter)
        waiter.cancel()
        await settle()
        assert len(table.queued()) == (1 if leaves else 2)

    run()


@in_virtual_time
async def test_a_place_that_was_asked_for_again_is_not_taken_away_by_who_asked_before() -> None:
    table = Table()
    held = await table.acquire(ttl_ms=10**6)
    lease = table.grant(10**6)
    before = table.acquire(lease=lease)
    await waiting(before)
    behind = table.acquire(lease=table.grant(10**6))
    await waiting(behind)
    again = table.acquire(lease=lease)
    await waiting(again)
    before.cancel()
    await settle()
    await table.release(held)
    assert again.done()
    assert not behind.done(), "it has kept its place in the queue"


@in_virtual_time
async def test_a_request_repeated_with_its_token_finds_its_place() -> None:
    table = Table()
    held = await table.acquire(ttl_ms=10**6)
    first = table.acquire(ttl_ms=1000, token="t")
    await waiting(first)
    first.cancel()
    await settle()
    behind = table.acquire(lease=table.grant(10**6))
    await waiting(behind)
    again = table.acquire(ttl_ms=1000, token="t")
    await waiting(again, behind)
    assert len(table.queued()) == 3
    await table.release(held)
    place = await again
    assert place == await table.acquire(ttl_ms=1000, token="t"), "and again once it is had"
    await table.release(place)
    await behind
    with pytest.raises(NoSuchLease):
        await table.acquire(ttl_ms=1000, token="t")


@in_virtual_time
async def test_a_lease_made_for_a_waiter_is_kept_alive_while_it_waits_and_whole_when_it_is_granted() -> None:
    table = Table()
    held = await table.acquire(ttl_ms=10**6)
    waiter = table.acquire(ttl_ms=900)
    await advance(10_000)
    await waiting(waiter)
    table.failure = NoQuorum("no leader")
    await advance(400)
    table.failure = None
    await advance(400)
    await table.release(held)
    place = await waiter
    lease = table.machine.leases.get(place.lease)
    assert lease is not None
    assert lease.expires_ms == round(asyncio.get_running_loop().time() * 1000) + 900
    await advance(900)
    table.apply(encode_tick())
    assert table.queued() == [], "from then on its holder keeps it alive"


def test_who_waits_does_not_count_the_queue_again_while_nobody_leaves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand who keep their leases alive would each look at a thousand, over and over."""
    looks: list[Queue] = []

    def counted(store: Store, queue: Queue) -> list[Place]:
        looks.append(queue)
        return places(store, queue)

    @in_virtual_time
    async def wait() -> None:
        table = Table()
        held = await table.acquire(ttl_ms=10**6)
        waiters = [table.acquire(ttl_ms=900) for _ in range(5)]
        await waiting(*waiters)
        looks.clear()
        await advance(10_000)
        assert looks == []
        assert len(table.queued()) == 6, "all are kept alive meanwhile"
        await table.release(held)
        await waiters[0]

    monkeypatch.setattr(queues, "places", counted)
    wait()


@in_virtual_time
async def test_a_lease_that_was_given_is_not_kept_alive_here() -> None:
    table = Table()
    await table.acquire(ttl_ms=10**6)
    waiter = table.acquire(lease=table.grant(900))
    await advance(900)
    table.apply(encode_tick())
    with pytest.raises(NoSuchLease):
        await waiter


@in_virtual_time
async def test_releases() -> None:
    table = Table()
    first = await table.acquire(ttl_ms=10**6)
    waiter = table.acquire(lease=table.grant(10**6))
    await waiting(waiter)

    async def release(**of: int) -> int:
        of = {"lease": 0, "token": 0} | of
        return (await table.queues.release(JOB, timeout_ms=TIMEOUT_MS, **of)).deleted

    assert await release(lease=99) == await release(token=99) == 0
    assert await release(token=first.token) == 1
    assert table.machine.leases.get(first.lease) is None, "a lease that was made for it goes too"
    second = await waiter
    assert await release(token=first.token) == 0, "the one who had it can't release it any more"
    assert await release(lease=second.lease) == 1
    assert table.machine.leases.get(second.lease) is not None
    assert await release(lease=second.lease) == 0


@in_virtual_time
async def test_a_release_that_is_behind_does_not_take_a_later_place() -> None:
    """Between this node's look and the write the place went, and one was made again under the same key."""
    table = Table()
    lease = table.grant(10**6)
    had = await table.acquire(lease=lease)

    async def barrier(timeout_ms: float) -> None:
        table.elsewhere = [encode_delete(had.key), encode_put(had.key, b"", lease=lease)]

    table.barrier = barrier  # type: ignore[method-assign]
    assert await table.release(had) == 0
    assert table.queued() == [lease]


@in_virtual_time
async def test_a_node_that_stops_lets_its_waiters_go() -> None:
    table = Table()
    held = await table.acquire(ttl_ms=10**6)
    lease = table.grant(10**6)
    tasks = [table.acquire(ttl_ms=1000), table.acquire(lease=lease), table.acquire(ttl_ms=1000, token="t")]
    await waiting(*tasks)
    table.hub.close()
    await settle()
    for task in tasks:
        with pytest.raises(ShuttingDown):
            await task
    assert table.queued()[:2] == [held.lease, lease], "who can find its place elsewhere keeps it"
    assert len(table.queued()) == 3
