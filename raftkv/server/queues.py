"""Waiting in the queue of a lock or an election, on any node.

Rules:

- A place is a key that goes with a lease (``kv/places.py``): who dies leaves the queue with its lease, and
  whoever waits behind it moves up, whether the node that it waited on lives or not.
- Nobody is told "it is yours" before a majority has confirmed, after its turn came, that its place is still
  there: its own lease may have ended meanwhile, on a node that is behind one doesn't see it.
- Who waits looks at two keys, its own and that of whoever is right before it: a release wakes one waiter,
  however many there are.
- Who gives up takes its place away. A place that was asked for by name (by its lease, or under an idempotency
  token) can be asked for again, at any node, and is the same one: it stays where it is in the queue, and only
  who asked last may take it away.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import structlog

from raftkv.api.writes import refusal
from raftkv.errors import (
    LockHeld,
    NoSuchLease,
    NotHolder,
    RaftkvError,
    ShuttingDown,
    TimedOut,
    TooManyRequests,
)
from raftkv.errors import Outcome as Fate
from raftkv.kv.commands import (
    Compare,
    Condition,
    ConditionKind,
    Relation,
    Target,
    encode_delete,
    encode_get,
    encode_keep_alive,
    encode_once,
    encode_put,
    encode_range,
    encode_txn,
)
from raftkv.kv.machine import KvMachine
from raftkv.kv.places import LOCK, Place, Queue, places
from raftkv.kv.results import DeleteResult, LeaseResult, Malformed, PutResult, Refused, Rejected, TxnResult
from raftkv.kv.watch import Hub
from raftkv.ports import Candidate

logger = structlog.get_logger(__name__)

MAX_WAITING = 10_000  # on one node
_LEAVE_TIMEOUT_MS = 10_000.0
_RETRY_S = 0.2  # after a confirmation that found no majority
_NOTHING = encode_txn([Compare(LOCK, Target.EXISTS, Relation.EQUAL, 1)], [], [])  # no key is called that


class Asked(Protocol):
    """What of a node's service is needed here."""

    def propose(self, command: bytes, timeout_ms: float) -> Awaitable[Any]: ...

    def barrier(self, timeout_ms: float) -> Awaitable[None]: ...

    def require(self, feature: str, timeout_ms: float) -> Awaitable[None]: ...


class Queues:
    """``ports.Queues`` for one node."""

    def __init__(self, service: Asked, machine: KvMachine, hub: Hub) -> None:
        self._service = service
        self._machine = machine
        self._hub = hub
        self._waiting = 0
        self._leaving: set[asyncio.Task[None]] = set()

    async def acquire(
        self, queue: Queue, candidate: Candidate, *, wait_ms: float, timeout_ms: float
    ) -> Place:
        await self._service.require("leases", timeout_ms)
        key = queue.key(_suffix_of(candidate))
        if not wait_ms:
            return await self._try(queue, key, candidate, timeout_ms)
        if self._waiting >= MAX_WAITING:
            raise TooManyRequests(
                f"{self._waiting} requests wait for locks on this node; ask another", retry_after_ms=1000
            )
        self._waiting += 1
        try:
            return await self._queue_up(queue, key, candidate, wait_ms, timeout_ms)
        finally:
            self._waiting -= 1

    async def release(
        self, queue: Queue, *, lease: int, token: int, timeout_ms: float, once: str | None = None
    ) -> DeleteResult:
        await self._service.barrier(timeout_ms)
        store = self._machine.store
        found = (place for place in places(store, queue) if place.lease == lease or place.token == token)
        place = next(found, None)
        if place is None and once is None:
            return DeleteResult(0, store.revision)
        command = _NOTHING if place is None else _encode_leave(place)
        asked = b"release %b%d %d" % (queue.prefix, lease, token)
        left = await self._ask(command, once, timeout_ms, asked)
        assert isinstance(left, TxnResult)
        return DeleteResult(int(left.succeeded), left.revision)

    async def proclaim(
        self, queue: Queue, lease: int, value: bytes, *, timeout_ms: float, once: str | None = None
    ) -> Place:
        await self._service.barrier(timeout_ms)
        first = places(self._machine.store, queue)[:1]
        leads = bool(first) and first[0].lease == lease
        if leads or (once is not None and self._machine.tokens.get(once) is not None):
            command = _encode_proclaim(first[0], value) if leads else _NOTHING
            asked = b"proclaim %b%d " % (queue.prefix, lease) + value
            result = await self._ask(command, once, timeout_ms, asked)
            assert isinstance(result, TxnResult)
            if result.succeeded:
                ((key, item),) = result.results[1].items
                return Place(key, lease, item.create_revision, item.mod_revision, value)
        raise NotHolder(f"lease {lease} doesn't lead here: it has not been elected, or has ended")

    # -- one look ------------------------------------------------------------------------------------------

    async def _try(self, queue: Queue, key: bytes, candidate: Candidate, timeout_ms: float) -> Place:
        """The place at once, or none. Which is decided in the log: one write, and no confirmation."""
        free = Compare(queue.prefix, Target.CREATE_REVISION, Relation.EQUAL, 0, queue.end)
        command = encode_txn([free], [_encode_put(key, candidate)], [encode_get(key)])
        result = await self._ask(command, candidate.token, timeout_ms)
        assert isinstance(result, TxnResult)
        queued = places(self._machine.store, queue)
        if queued and (queued[0].key == key or queued[0].lease == candidate.lease):
            return queued[0]
        if result.succeeded:
            raise NoSuchLease("it was granted, and its lease has ended since")
        raise _held(queued)

    # -- waiting -------------------------------------------------------------------------------------------

    async def _queue_up(
        self, queue: Queue, key: bytes, candidate: Candidate, wait_ms: float, timeout_ms: float
    ) -> Place:
        deadline_s = asyncio.get_running_loop().time() + wait_ms / 1000
        result = await self._ask(_encode_put(key, candidate), candidate.token, timeout_ms)
        assert isinstance(result, PutResult)
        first = places(self._machine.store, queue)[:1]
        if first and first[0].lease == result.lease and first[0].key != key:
            # Had with a ttl, whose lease comes back now: it must not wait for itself.
            await self._leave(key, result.revision, timeout_ms)
            return first[0]
        at = _At(queue, key, result.lease, candidate.ttl_ms)
        waiter = _Waiter(self._service, self._machine, self._hub, at)
        try:
            granted = await waiter.turn(deadline_s, timeout_ms)
        except (RaftkvError, asyncio.CancelledError) as error:  # cancelled: the client is gone
            goes_on = isinstance(error, ShuttingDown) and candidate.lease
            if candidate.token is None and not goes_on and not isinstance(error, NoSuchLease):
                self._leave_later(key, result.revision)
            raise
        if granted is not None:
            return granted
        await self._leave(key, result.revision, timeout_ms)
        raise _held(places(self._machine.store, queue), " and was not released in time")

    async def _ask(
        self, command: bytes, once: str | None, timeout_ms: float, asked: bytes | None = None
    ) -> Any:
        """``asked``: what a repeated request is known by, where its command follows from what is there."""
        if once is not None:
            await self._service.require("tokens", timeout_ms)
            command = encode_once(once, sha256(asked or command).digest()[:16], command)
        result = await self._service.propose(command, timeout_ms)
        if isinstance(result, Refused | Malformed | Rejected):
            raise refusal(result)
        return result

    async def _leave(self, key: bytes, mod_revision: int, timeout_ms: float) -> None:
        """Take the place away, unless somebody has asked for it since ``mod_revision``."""
        condition = Condition(ConditionKind.REVISION_IN, (mod_revision,))
        try:
            await self._service.propose(encode_delete(key, condition), timeout_ms)
        except RaftkvError as error:
            raise TimedOut(
                "it was not granted in time, and the place in the queue could not be given up "
                f"({error.detail}): release it, or let its lease end",
                outcome=Fate.UNKNOWN,
            ) from error

    def _leave_later(self, key: bytes, mod_revision: int) -> None:
        """Nobody waits for it: as well as it can be done. If it can't, the lease does it."""
        task = asyncio.create_task(self._leave_quietly(key, mod_revision))
        self._leaving.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._leaving.discard)

    async def _leave_quietly(self, key: bytes, mod_revision: int) -> None:
        try:
            await self._leave(key, mod_revision, _LEAVE_TIMEOUT_MS)
        except RaftkvError as error:
            logger.info("a place in a queue stays until its lease ends", key=key, reason=error.detail)


class _At(NamedTuple):
    """A place that was made, or found."""

    queue: Queue
    key: bytes
    lease: int
    ttl_ms: int  # of a lease that was made for it; 0: it was there before


class _Waiter:
    """One request that waits for its turn."""

    def __init__(self, service: Asked, machine: KvMachine, hub: Hub, at: _At) -> None:
        self._service = service
        self._machine = machine
        self._hub = hub
        self._queue, self._key, self._lease = at.queue, at.key, at.lease
        # A lease that was made here is kept alive here: nobody else knows it yet.
        self._alive_s = at.ttl_ms / 3000 if at.ttl_ms else float("inf")

    async def turn(self, deadline_s: float, timeout_ms: float) -> Place | None:
        """The place, confirmed, when it is the first; None at the deadline.

        Raises ``NoSuchLease``, ``ShuttingDown``, or why no majority could confirm it, at the deadline.
        """
        loop = asyncio.get_running_loop()
        waited = False
        alive_due_s = loop.time() + self._alive_s
        own, before = self._look()
        while True:
            if waited and not self._stands(own, before):
                own, before = self._look()
            if before is None and not waited:
                return own  # as of the write that made it
            if before is None:
                try:
                    await self._confirm(timeout_ms)
                    return self._look()[0]
                except RaftkvError as error:
                    if isinstance(error, NoSuchLease | ShuttingDown) or loop.time() >= deadline_s:
                        raise
                await self._changed([self._key], min(deadline_s, loop.time() + _RETRY_S))
                continue
            if loop.time() >= deadline_s:
                return None
            waited = True
            await self._changed([self._key, before.key], min(deadline_s, alive_due_s))
            if loop.time() >= alive_due_s:
                alive_due_s = loop.time() + self._alive_s
                await self._keep_alive(min(timeout_ms, self._alive_s * 1000))

    def _look(self) -> tuple[Place, Place | None]:
        """Our place, and that right before it, on this node."""
        before = None
        for place in places(self._machine.store, self._queue):
            if place.key == self._key:
                return place, before
            before = place
        raise NoSuchLease("the place in the queue is gone: its lease has ended, or it was released")

    def _stands(self, own: Place, before: Place | None) -> bool:
        """Whether it still is as it was: nobody can have come in between two that are there."""
        if before is None:
            return False
        found = [self._machine.store.get(place.key) for place in (own, before)]
        return [item and item.create_revision for item in found] == [own.token, before.token]

    async def _confirm(self, timeout_ms: float) -> None:
        """All that was decided before now is applied here. A lease that was made here begins anew."""
        if self._alive_s == float("inf"):
            await self._service.barrier(timeout_ms)
            return
        renewed = await self._service.propose(encode_keep_alive(self._lease), timeout_ms)
        if not isinstance(renewed, LeaseResult):
            raise NoSuchLease("the place in the queue is gone: its lease has ended")

    async def _keep_alive(self, timeout_ms: float) -> None:
        try:
            await self._service.propose(encode_keep_alive(self._lease), timeout_ms)
        except ShuttingDown:
            raise
        except RaftkvError as error:  # nor does the time of leases go on without a leader
            logger.debug("a waiter's lease is not kept alive now", lease=self._lease, reason=error.detail)

    async def _changed(self, keys: list[bytes], until_s: float) -> None:
        event = asyncio.Event()
        watchers = [self._hub.watch_key(key, None, event.set) for key in keys]
        try:
            async with asyncio.timeout_at(until_s):
                await event.wait()
        except TimeoutError:
            return
        finally:
            for watcher in watchers:
                self._hub.remove(watcher)
        if self._hub.is_closed:
            raise ShuttingDown("this node is stopping; ask another", retry_after_ms=1000)


def _suffix_of(candidate: Candidate) -> bytes:
    """What the place is called among the others of its queue."""
    if candidate.lease:
        return b"%016x" % candidate.lease
    if candidate.token is not None:
        return b"t" + sha256(candidate.token.encode()).hexdigest()[:32].encode()
    return b"r" + secrets.token_hex(16).encode()


def _encode_put(key: bytes, candidate: Candidate) -> bytes:
    return encode_put(key, candidate.value, lease=candidate.lease, ttl_ms=candidate.ttl_ms)


def _encode_leave(place: Place) -> bytes:
    there = Compare(place.key, Target.CREATE_REVISION, Relation.EQUAL, place.token)
    return encode_txn([there], [encode_delete(place.key)], [])


def _encode_proclaim(own: Place, value: bytes) -> bytes:
    # NB: who is first stays first while its place is there.
    there = Compare(own.key, Target.CREATE_REVISION, Relation.EQUAL, own.token)
    put = encode_put(own.key, value, lease=own.lease)
    return encode_txn([there], [put, encode_range(own.key, own.key + b"\0", 1)], [])


def _held(queued: list[Place], waited: str = "") -> LockHeld:
    extra: dict[str, object] = {"holder": None}
    if queued:
        extra = {"holder": {"lease": queued[0].lease, "fencing_token": queued[0].token}}
    return LockHeld(f"it is held by another{waited}", extra=extra)
