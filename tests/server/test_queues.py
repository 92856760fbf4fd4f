"""Queues of locks: whose turn it is, and who must never be told that it is theirs."""

from __future__ import annotations

import pytest

from raftkv.errors import LockHeld, NoQuorum, NoSuchLease, NotHolder
from raftkv.kv.commands import (
    encode_delete,
    encode_revoke,
    encode_tick,
)
from raftkv.kv.machine import KvMachine
from raftkv.kv.places import ELECTION, LOCK, Queue, names, places
from raftkv.kv.session import BatchId
from tests.server.table import JOB, TIMEOUT_MS, Table, waiting
from tests.server.virtual_time import advance, in_virtual_time, settle


@in_virtual_time
async def test_whoever_came_first_is_next() -> None:
    table = Table()
    leases = [table.grant(10**6) for _ in range(5)]
    tasks = []
    for lease in reversed(leases):  # neither the order of ids nor that of keys is that of coming
        tasks.append(table.acquire(lease=lease))
        await settle()
    tokens = []
    for task in tasks:
        await settle()
        assert [each.done() for each in tasks].count(True) == len(tokens) + 1
        place = await task
        tokens.append(place.token)
        assert await table.release(place) == 1
    assert tokens == sorted(set(tokens))
    assert table.queued() == []


@in_virtual_time
async def test_a_free_lock_is_had_with_one_write() -> None:
    for wait_ms in (0, 1000):
        table = Table()
        place = await table.acquire(ttl_ms=1000, wait_ms=wait_ms)
        assert (place.token, place.lease, len(table.commands), table.barriers) == (1, 1, 1, 0)


@in_virtual_time
async def test_who_does_not_wait_leaves_no_trace() -> None:
    table = Table()
    first = await table.acquire(ttl_ms=1000, wait_ms=0)
    revision, leases = table.machine.store.revision, len(table.machine.leases)
    with pytest.raises(LockHeld) as held:
        await table.acquire(ttl_ms=1000, wait_ms=0)
    assert held.value.extra == {"holder": {"lease": first.lease, "fencing_token": first.token}}
    assert (table.machine.store.revision, len(table.machine.leases)) == (revision, leases)
    other = table.grant(1000)
    with pytest.raises(LockHeld):
        await table.acquire(lease=other, wait_ms=0)
    assert table.queued() == [first.lease]


@in_virtual_time
async def test_who_has_it_does_not_wait_for_itself() -> None:
    table = Table()
    first = await table.acquire(ttl_ms=1000)
    for wait_ms in (0, 500):
        assert await table.acquire(lease=first.lease, wait_ms=wait_ms) == first
        assert table.queued() == [first.lease]


@in_virtual_time
async def test_a_lock_can_be_had_again_with_the_same_lease() -> None:
    table = Table()
    lease = table.grant(1000)
    places_had = [await table.acquire(lease=lease, wait_ms=wait_ms) for wait_ms in (0, 0, 500)]
    assert {place.token for place in places_had} == {1}
    assert table.queued() == [lease]


@in_virtual_time
async def test_the_next_moves_up_when_the_holders_lease_ends() -> None:
    table = Table()
    first = await table.acquire(ttl_ms=1000)
    second = table.acquire(lease=table.grant(10**6))
    await waiting(second)
    await advance(999)
    table.apply(encode_tick())
    await waiting(second)
    await advance(1)
    table.apply(encode_tick())
    assert (await second).token > first.token


@in_virtual_time
async def test_a_waiter_in_the_middle_leaves_and_nobody_is_let_past_the_holder() -> None:
    table = Table()
    first = await table.acquire(ttl_ms=10**6)
    middle = table.acquire(lease=table.grant(500))
    await waiting(middle)
    last = table.acquire(lease=table.grant(10**6))
    await waiting(last)
    await advance(500)
    table.apply(encode_tick())
    await waiting(last)
    assert middle.done(), "and is told at once"
    with pytest.raises(NoSuchLease):
        await middle
    await table.release(first)
    assert last.done()


@in_virtual_time
async def test_a_release_wakes_one_waiter() -> None:
    table = Table()
    held = await table.acquire(ttl_ms=10**6)
    tasks = []
    for _ in range(50):
        tasks.append(table.acquire(lease=table.grant(10**6)))
        await settle()
    table.barriers = 0
    await table.release(held)
    assert [task.done() for task in tasks] == [True] + [False] * 49
    assert table.barriers == 2, "the release's own, and that of the one who moved up"


@in_virtual_time
async def test_who_has_died_is_never_granted_though_this_node_does_not_know_it() -> None:
    """This node has seen the release, and not yet that the waiter's own lease has ended since."""
    table = Table()
    held = await table.acquire(ttl_ms=10**6)
    lease = table.grant(10**6)
    waiter = table.acquire(lease=lease)
    await waiting(waiter)
    table.elsewhere = [encode_revoke(lease)]
    table.apply(encode_delete(held.key))
    with pytest.raises(NoSuchLease):
        await waiter


@in_virtual_time
async def test_a_lease_made_for_a_waiter_that_has_died_elsewhere_is_not_granted_either() -> None:
    table = Table()
    held = await table.acquire(ttl_ms=10**6)
    waiter = table.acquire(ttl_ms=1000)
    await waiting(waiter)
    table.elsewhere = [encode_revoke(table.queued()[1])]
    table.apply(encode_delete(held.key))
    with pytest.raises(NoSuchLease):
        await waiter


@in_virtual_time
async def test_nothing_is_granted_without_a_majority() -> None:
    table = Table()
    held = await table.acquire(ttl_ms=10**6)
    waiter = table.acquire(lease=table.grant(10**6), wait_ms=5000)
    await waiting(waiter)
    table.failure = NoQuorum("no leader")
    table.apply(encode_delete(held.key))
    await advance(4000)
    assert not waiter.done(), "a majority may come back"
    table.failure = None
    await advance(300)
    assert waiter.done()
    again = table.acquire(lease=table.grant(10**6), wait_ms=1000)
    await waiting(again)
    table.failure = NoQuorum("no leader")
    table.apply(encode_delete((await waiter).key))
    await advance(1001)
    with pytest.raises(NoQuorum):
        await again


@in_virtual_time
async def test_a_leader_proclaims_and_nobody_else() -> None:
    table = Table()
    queue = Queue(ELECTION, b"chief")
    leader = await table.acquire(queue=queue, ttl_ms=10**6, value=b"one")
    other = table.grant(10**6)
    waiter = table.acquire(queue=queue, lease=other, value=b"two")
    await waiting(waiter)
    proclaimed = await table.queues.proclaim(queue, leader.lease, b"uno", timeout_ms=TIMEOUT_MS)
    assert (proclaimed.token, proclaimed.value) == (leader.token, b"uno")
    assert [place.value for place in places(table.machine.store, queue)] == [b"uno", b"two"]
    for lease in (other, 99):
        with pytest.raises(NotHolder):
            await table.queues.proclaim(queue, lease, b"x", timeout_ms=TIMEOUT_MS)
    await table.release(leader, queue)
    assert (await waiter).value == b"two"
    with pytest.raises(NotHolder):
        await table.queues.proclaim(queue, leader.lease, b"x", timeout_ms=TIMEOUT_MS)


@in_virtual_time
async def test_a_proclamation_that_comes_too_late_changes_nothing() -> None:
    table = Table()
    leader = await table.acquire(lease=table.grant(10**6), value=b"one")

    async def barrier(timeout_ms: float) -> None:
        table.elsewhere = [encode_delete(leader.key)]

    table.barrier = barrier  # type: ignore[method-assign]
    with pytest.raises(NotHolder):
        await table.queues.proclaim(JOB, leader.lease, b"uno", timeout_ms=TIMEOUT_MS)
    assert table.queued() == []


@in_virtual_time
async def test_a_snapshot_that_replaces_the_machine_wakes_who_waits() -> None:
    for compacts in (False, True):
        table = Table()
        held = await table.acquire(ttl_ms=10**6)
        waiter = table.acquire(lease=table.grant(10**6))
        await waiting(waiter)
        other = KvMachine()
        restoring = other.restorer()
        for chunk in table.machine.export():
            restoring.feed(chunk)
        restoring.finish()
        other.apply(table.machine.time_ms, other.seal(BatchId("n2", 1, 1, 1), [encode_delete(held.key)]))
        assert other.store.history is not None
        if compacts:
            other.store.history.compact(other.store.revision)
        restoring = table.machine.restorer()
        for chunk in other.export():
            restoring.feed(chunk)
        restoring.finish()
        table.hub.look()
        await settle()
        assert (await waiter).token == 2


@in_virtual_time
async def test_a_lease_that_is_none_has_no_place() -> None:
    table = Table()
    for wait_ms in (0, 100):
        with pytest.raises(NoSuchLease):
            await table.acquire(lease=99, wait_ms=wait_ms)
    assert table.queued() == []


@in_virtual_time
async def test_names_are_apart() -> None:
    table = Table()
    queues = [Queue(LOCK, name) for name in (b"a", b"a/b", b"a\x01", b"", b"\xff")]
    assert len({(await table.acquire(queue=each, ttl_ms=10**6, wait_ms=0)).token for each in queues}) == 5
    assert [len(table.queued(each)) for each in queues] == [1] * 5
    assert names(table.machine.store, LOCK) == sorted(each.name for each in queues)
