"""When a lease counts as lost, and what a lock makes of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from raftkv import AsyncClient, LeaseLost, LockHeld, LockLost, Unreachable
from raftkv.sdk import leases
from raftkv.sdk.leases import KeptLease, LeaseCalls
from raftkv.sdk.locks import Lock
from raftkv.sdk.results import DeleteResult, LeaseInfo
from tests.sdk.stub import DEADLINE_S, LOST, Answer, Stub, problem
from tests.server.virtual_time import advance, in_virtual_time

GRANTED = Answer({"lease": 7, "ttl_ms": 300, "revision": 1}, 201)
LONG = Answer({"lease": 7, "ttl_ms": 60_000, "revision": 1}, 201)
KEPT = Answer({"lease": 7, "ttl_ms": 300})
LOCKED = Answer({"name": "l", "lease": 7, "fencing_token": 3, "key": "x"})
REVOKED = Answer({"deleted": 1, "revision": 5})


async def hold_until_lost(held: KeptLease | Lock, error: Exception | None = None) -> None:
    """Hold it in a block that ends, with ``error``, when it is lost."""
    async with asyncio.timeout(DEADLINE_S), held:
        await held.wait_lost()
        assert held.lost
        with pytest.raises(LeaseLost):
            held.check()
        if error is not None:
            raise error


async def test_a_lease_is_renewed_until_its_block_ends_and_revoked_then() -> None:
    async with Stub([GRANTED, KEPT, KEPT, KEPT, REVOKED]) as node, AsyncClient(node.url) as client:
        async with asyncio.timeout(DEADLINE_S), client.kept_lease(0.3) as lease:
            while len(node.requests) < 4:
                lease.check()
                await asyncio.sleep(0)
            assert lease.id == 7
        paths = [(request.method, request.path) for request in node.requests]
        assert paths[0] == ("POST", "/v1/leases")
        assert paths[1:4] == [("POST", "/v1/leases/7/keepalive")] * 3
        assert paths[-1] == ("DELETE", "/v1/leases/7")
        assert lease.lost


async def test_a_lease_that_the_cluster_has_ended_is_lost_at_once() -> None:
    gone = problem(404, "no_such_lease")
    async with Stub([GRANTED, gone]) as node, AsyncClient(node.url) as client:
        with pytest.raises(LeaseLost):
            await hold_until_lost(client.kept_lease(0.3))
        assert len(node.requests) == 2  # there is nothing to be revoked


async def test_a_lease_whose_renewals_get_no_answer_is_lost_by_its_own_clock() -> None:
    async with Stub([GRANTED, LOST]) as node, AsyncClient(node.url) as client:
        with pytest.raises(LeaseLost):
            await hold_until_lost(client.kept_lease(0.3))


async def test_what_is_raised_in_the_block_comes_before_a_lost_lease() -> None:
    async with Stub([GRANTED, problem(404, "no_such_lease")]) as node, AsyncClient(node.url) as client:
        with pytest.raises(ZeroDivisionError):
            await hold_until_lost(client.kept_lease(0.3), ZeroDivisionError())


async def test_a_lock_goes_with_a_lease_of_its_own() -> None:
    async with Stub([LONG, LOCKED, REVOKED]) as node, AsyncClient(node.url) as client:
        lock = client.lock("a/b", ttl=60, wait=2, value="me")
        with pytest.raises(LockLost):
            lock.check()
        async with lock:
            assert (lock.fencing_token, lock.lease, lock.lost) == (3, 7, False)
            with pytest.raises(RuntimeError, match="held already"):
                await lock.acquire()
        assert lock.lost
        grant, acquire, release = node.requests
        assert acquire.path == "/v1/locks/a/b"  # as it is decoded; on its way it was a%2Fb
        assert acquire.query["wait"] == "2000ms"
        assert acquire.body == b'{"lease":7,"value":"me"}'
        assert (release.method, release.path) == ("DELETE", "/v1/leases/7")
        assert grant.body == b'{"ttl":"60000ms"}'


async def test_a_lock_that_is_not_had_in_time_leaves_the_queue() -> None:
    async with Stub([LONG, problem(409, "lock_held"), REVOKED]) as node, AsyncClient(node.url) as client:
        with pytest.raises(LockHeld):
            await client.lock("l", ttl=60, wait=0).acquire()
        assert [request.method for request in node.requests] == ["POST", "POST", "DELETE"]
        assert "wait" not in node.requests[1].query


async def test_a_lock_that_was_lost_is_told_of_at_the_end_of_its_block() -> None:
    steps = [GRANTED, LOCKED, problem(404, "no_such_lease")]
    async with Stub(list(steps)) as node, AsyncClient(node.url) as client:
        with pytest.raises(LockLost, match="before its block ended"):
            await hold_until_lost(client.lock("l", ttl=0.3))


async def test_who_waits_for_a_lock_and_loses_its_place_is_told() -> None:
    steps = [GRANTED, "hangs", problem(404, "no_such_lease")]
    async with Stub(list(steps)) as node, AsyncClient(node.url) as client:
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(LockLost, match="place in the queue"):
                await client.lock("l", ttl=0.3).acquire()


class SlowCalls(LeaseCalls):
    """Of a cluster that gets each request at once, and whose answers are on their way for ``slow_s``."""

    def __init__(self, slow_s: float) -> None:
        self.slow_s = slow_s

    async def come_late(self) -> None:
        await asyncio.sleep(self.slow_s)

    async def grant(self, ttl: float, *, id: int | None = None, timeout: float | None = None) -> LeaseInfo:  # noqa: ASYNC109
        await self.come_late()
        return LeaseInfo(7, ttl)

    async def keep_alive(self, lease: int, *, timeout: float | None = None) -> LeaseInfo:  # noqa: ASYNC109
        try:
            async with asyncio.timeout(timeout):
                await self.come_late()
        except TimeoutError:
            raise Unreachable("no answer in time") from None
        return LeaseInfo(lease, 1.0)

    async def revoke(self, lease: int, *, timeout: float | None = None) -> DeleteResult:  # noqa: ASYNC109
        return DeleteResult(0, 1)


@in_virtual_time
async def test_a_lease_is_lost_when_its_time_has_passed_since_a_request_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For the cluster may have done it then, however late the answer came."""
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=asyncio.get_running_loop().time))
    calls = SlowCalls(0.4)
    lease = KeptLease(calls, 1.0)
    await lease.start()  # at 0.4 s
    calls.slow_s = 60.0
    await advance(590)
    assert not lease.lost
    await advance(20)
    assert lease.lost
    calls.slow_s = 0.2
    lease = KeptLease(calls, 1.0)
    await lease.start()  # at 0.2 s; renewed at 0.533 s, which is answered at 0.733 s
    await advance(600)
    calls.slow_s = 60.0
    await advance(720)  # to 1.52 s
    assert not lease.lost
    await advance(20)
    assert lease.lost
