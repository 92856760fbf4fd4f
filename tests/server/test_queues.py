"""Queues of locks: whose turn it is, and who must never be told that it is theirs.

Time is virtual, and is the cluster's too. ``Table`` is a node whose machine may be behind: what happened
"elsewhere" is applied when it is asked to confirm, or to decide, something.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftkv.errors import LockHeld, NoQuorum, NoSuchLease, NotHolder, ShuttingDown, TimedOut
from raftkv.kv.commands import (
    encode_delete,
    encode_grant,
    encode_level,
    encode_put,
    encode_revoke,
    encode_tick,
)
from raftkv.kv.levels import MACHINE_LEVEL
from raftkv.kv.machine import KvMachine
from raftkv.kv.places import ELECTION, LOCK, Place, Queue, names, places
from raftkv.kv.session import BatchId
from raftkv.kv.watch import Hub
from raftkv.ports import Candidate
from raftkv.server.queues import Queues
from tests.server.virtual_time import advance, in_virtual_time, settle

JOB = Queue(LOCK, b"job")
TIMEOUT_MS = 1_000.0


class Table:
    def __init__(self) -> None:
        self.machine = KvMachine()
        self.hub = Hub(self.machine.store, asyncio.get_running_loop().call_soon)
        self.queues = Queues(self, self.machine, self.hub)
        self.elsewhere: list[bytes] = []
        self.commands: list[bytes] = []
        self.failure: Exception | None = None
        self.barriers = 0
        self._seq = 0
        self.apply(encode_level(MACHINE_LEVEL))

    def apply(self, command: bytes) -> Any:
        self._seq += 1
        batch = BatchId("n1", 1, self._seq, self._seq)
        time_ms = round(asyncio.get_running_loop().time() * 1000)
        applied = self.machine.apply(time_ms, self.machine.seal(batch, [command]))
        assert applied is not None
        assert applied.results is not None
        self.hub.look()
        return applied.results[0]

    def catch_up(self) -> None:
        commands, self.elsewhere = self.elsewhere, []
        for command in commands:
            self.apply(command)

    def grant(self, ttl_ms: int) -> int:
        lease: int = self.apply(encode_grant(ttl_ms)).lease
        return lease

    # -- of the service --------------------------------------------------------------------------------------

    async def propose(self, command: bytes, timeout_ms: float) -> Any:
        if self.failure is not None:
            raise self.failure
        self.catch_up()
        self.commands.append(command)
        return self.apply(command)

    async def barrier(self, timeout_ms: float) -> None:
        self.barriers += 1
        if self.failure is not None:
            raise self.failure
        self.catch_up()

    async def require(self, feature: str, timeout_ms: float) -> None:
        pass

    # -- what the tests ask ----------------------------------------------------------------------------------

    def acquire(self, *, wait_ms: float = 1e6, queue: Queue = JOB, **fields: Any) -> asyncio.Task[Place]:
        candidate = Candidate(**fields)
        return asyncio.create_task(self._acquire(queue, candidate, wait_ms))

    async def _acquire(self, queue: Queue, candidate: Candidate, wait_ms: float) -> Place:
        return await self.queues.acquire(queue, candidate, wait_ms=wait_ms, timeout_ms=TIMEOUT_MS)

    async def release(self, place: Place, queue: Queue = JOB) -> int:
        done = await self.queues.release(queue, lease=place.lease, token=0, timeout_ms=TIMEOUT_MS)
        await settle()
        return done.deleted

    def queued(self, queue: Queue = JOB) -> list[int]:
        """The leases in the queue, in order."""
        return [place.lease for place in places(self.machine.store, queue)]


async def waiting(*tasks: asyncio.Task[Place]) -> None:
    await settle()
    assert not any(task.done() for task in tasks)


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
    leader = await table.acquire(ttl_ms=10**6, value=b"one")

    async def barrier(timeout_ms: float) -> None:
        table.elsewhere = [encode_delete(leader.key)]

    table.barrier = barrier  # type: ignore[method-assign]
    with pytest.raises(NotHolder):
        await table.queues.proclaim(JOB, leader.lease, b"uno", timeout_ms=TIMEOUT_MS)
    assert table.queued() == []


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
