"""Locks and elections: a place in a queue, which goes with a lease that is kept alive in the background.

A lock is held as long as its lease lives, and a program that is stopped for a while can't know that it has
lost it. So whoever guards something by a lock hands the ``fencing_token`` on to it: it grows with every
grant, and what is guarded refuses a token that is less than one it has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import orjson

from raftkv.errors import RaftkvError
from raftkv.sdk.calling import JSON, Ask, Caller, Calls
from raftkv.sdk.errors import LockLost
from raftkv.sdk.forms import Data, data_bytes, duration, field, name_path, read_field
from raftkv.sdk.leases import KeptLease, LeaseCalls
from raftkv.sdk.operations import Compare, CreateRevision
from raftkv.sdk.results import Holder, LockInfo, read_holder
from raftkv.sdk.streams import follow

_LONG_S = 600.0  # one request waits no longer
_LOCK_HELD = "lock_held"


class Held:
    """A place in the queue at ``path``, ``/v1/locks`` or ``/v1/elections``. One use at a time."""

    _path: str
    _what: str

    def __init__(
        self, caller: Caller, name: str, *, ttl: float, wait: float | None, value: Data = b""
    ) -> None:
        """``ttl``: seconds after which others get it if this program is gone. ``wait``: seconds to wait for
        it, None: until it is had.
        """
        self.name = name
        self._caller = caller
        self._ttl_s = ttl
        self._wait_s = wait
        self._value = data_bytes(value)
        self._kept: KeptLease | None = None
        self._token: int | None = None
        self._key = b""  # of the place in the queue

    @property
    def fencing_token(self) -> int:
        """Grows with every grant. Raises ``LockLost`` where it is not held."""
        if self._token is None:
            raise LockLost(f"the {self._what} {self.name!r} is not held")
        return self._token

    @property
    def lease(self) -> int:
        """That it goes with. Raises ``LockLost`` where it is not held."""
        if self._kept is None:
            raise LockLost(f"the {self._what} {self.name!r} is not held")
        return self._kept.id

    @property
    def lost(self) -> bool:
        """Whether it is not held (any more), as far as this program can know."""
        return self._token is None or self._kept is None or self._kept.lost

    def check(self) -> None:
        """Raises ``LockLost`` where it is not held any more."""
        if self.lost:
            raise LockLost(f"the {self._what} {self.name!r} is lost: somebody else may have it")

    def held(self) -> Compare:
        """For ``when`` of a transaction, which is then done only while this one holds it: as the cluster
        knows it, not as this program believes. Raises ``LockLost`` where it was not acquired.
        """
        return CreateRevision(self._key) == self.fencing_token

    async def wait_lost(self) -> None:
        """Return when it is lost, or released."""
        if self._kept is not None:
            await self._kept.wait_lost()

    async def acquire(self) -> int:
        """Wait for it; its fencing token. Raises ``LockHeld`` where it was not had in time, ``LockLost``
        where no node could be reached for so long that the place in the queue is lost.
        """
        if self._kept is not None:
            raise RuntimeError(f"the {self._what} {self.name!r} is held already")
        kept = self._kept = KeptLease(LeaseCalls(self._caller), self._ttl_s)
        try:
            await kept.start()
            granted = await self._granted(kept)
            self._key, self._token = read_field(granted, "key"), int(granted["fencing_token"])
        except BaseException:
            self._kept = None
            await asyncio.shield(kept.stop())
            raise
        return self._token

    async def _granted(self, kept: KeptLease) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        deadline = None if self._wait_s is None else loop.time() + self._wait_s
        document = {"lease": kept.id, **(field("value", self._value) if self._value else {})}
        body = orjson.dumps(document)
        while True:
            left_s = _LONG_S if deadline is None else min(_LONG_S, max(0.0, deadline - loop.time()))
            query = (("wait", duration(left_s)),) if left_s >= 0.001 else ()
            # NB: without an idempotency key: the lease names the place, and asked again it is still that.
            ask = Ask("POST", name_path(self._path, self.name), query, JSON, body, wait_s=left_s)
            waiting = asyncio.create_task(self._caller.call(ask))
            losing = asyncio.create_task(kept.wait_lost())
            try:
                await asyncio.wait({waiting, losing}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    raise LockLost(f"the place in the queue of {self.name!r} is lost")
                return waiting.result().json()
            except RaftkvError as error:
                if error.code != _LOCK_HELD or (deadline is not None and loop.time() >= deadline - 0.001):
                    raise
                if left_s < _LONG_S:
                    raise
            finally:
                for task in (waiting, losing):
                    task.cancel()
                await asyncio.gather(waiting, losing, return_exceptions=True)

    async def release(self) -> None:
        """Let the next one have it. If no node answers, its lease ends it."""
        kept, self._kept, self._token = self._kept, None, None
        if kept is not None:
            await kept.stop()

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises ``LockLost`` if it was lost within the block, and nothing else was raised there."""
        was_lost = self.lost
        await self.release()
        if was_lost and error is None:
            raise LockLost(f"the {self._what} {self.name!r} was lost before its block ended")


class Lock(Held):
    """``async with client.lock("name", ttl=10) as lock: ... lock.fencing_token``"""

    _path, _what = "/v1/locks", "lock"


class Leadership(Held):
    """``async with client.campaign("name", "me", ttl=10) as leadership``: in the block, this one leads."""

    _path, _what = "/v1/elections", "lead of"

    async def proclaim(self, value: Data) -> None:
        """Say something else to those who look who leads. Raises ``NoSuchLease`` or ``LockLost``."""
        self.check()
        body = orjson.dumps(field("value", data_bytes(value)))
        ask = self._caller.write(
            "PUT",
            name_path(self._path, self.name),
            (("lease", str(self.lease)),),
            headers=JSON,
            body=body,
        )
        await self._caller.call(ask)


class LockCalls(Calls):
    def lock(self, name: str, *, ttl: float = 10.0, wait: float | None = None, value: Data = b"") -> Lock:
        """A lock, to be acquired by ``async with``. See ``Held``; ``value`` is for others to see."""
        return Lock(self._caller, name, ttl=ttl, wait=wait, value=value)

    async def lock_info(self, name: str, *, timeout: float | None = None) -> LockInfo:
        """Who holds it, and how many wait."""
        document = await self._look(name_path("/v1/locks", name), timeout=timeout)
        return LockInfo(name, read_holder(document.get("holder")), int(document.get("waiters", 0)))

    def campaign(
        self, election: str, value: Data = b"", *, ttl: float = 10.0, wait: float | None = None
    ) -> Leadership:
        """Lead, by ``async with``, when all who asked before have resigned or died."""
        return Leadership(self._caller, election, ttl=ttl, wait=wait, value=value)

    async def leader(self, election: str, *, timeout: float | None = None) -> Holder | None:
        """Who leads it, and what it says."""
        document = await self._look(name_path("/v1/elections", election), timeout=timeout)
        return read_holder(document.get("leader"))

    async def observe(self, election: str) -> AsyncGenerator[Holder | None]:
        """Who leads it now, and again each time that, or what it says, has changed. It has no end, and may
        skip what didn't last.
        """
        path = name_path("/v1/elections", election, "observe")
        async with aclosing(follow(self._caller, path, has_ids=False)) as groups:
            async for group in groups:
                for event in group.events:
                    if "leader" in event.data:
                        yield read_holder(event.data["leader"])
