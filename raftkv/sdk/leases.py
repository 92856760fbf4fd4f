"""Leases: granted, looked at, and kept alive in the background."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from raftkv.errors import RaftkvError
from raftkv.sdk.calling import Ask, Calls, Query
from raftkv.sdk.errors import LeaseLost, Unreachable
from raftkv.sdk.forms import duration
from raftkv.sdk.results import DeleteResult, LeaseInfo, read_lease

_RENEWALS = 3  # in the life of a lease
_LEAST_PAUSE_S = 0.05
NO_SUCH_LEASE = "no_such_lease"


class LeaseCalls(Calls):
    async def grant(self, ttl: float, *, id: int | None = None, timeout: float | None = None) -> LeaseInfo:
        """A lease of ``ttl`` seconds, to be given to ``put``; it ends then unless it is kept alive."""
        document = {"ttl": duration(ttl), **({} if id is None else {"id": id})}
        return read_lease(await self._post("/v1/leases", document, timeout=timeout))

    async def keep_alive(self, lease: int, *, timeout: float | None = None) -> LeaseInfo:
        """From now on it lives for its whole time again. Raises ``NoSuchLease`` where it has ended."""
        ask = Ask("POST", f"/v1/leases/{lease}/keepalive")
        return read_lease((await self._caller.call(ask, timeout)).json())

    async def revoke(self, lease: int, *, timeout: float | None = None) -> DeleteResult:
        """End it now, with all keys that go with it. Raises ``NoSuchLease``."""
        ask = self._caller.write("DELETE", f"/v1/leases/{lease}")
        document = (await self._caller.call(ask, timeout)).json()
        return DeleteResult(int(document["deleted"]), int(document["revision"]))

    async def lease(self, lease: int, *, timeout: float | None = None) -> LeaseInfo:
        """Its time to live, what is left of it, and its keys. Raises ``NoSuchLease``."""
        return read_lease(await self._look(f"/v1/leases/{lease}", timeout=timeout))

    async def leases(self, *, timeout: float | None = None) -> tuple[LeaseInfo, ...]:
        """All there are, in the order of their ids."""
        found: list[LeaseInfo] = []
        after: Any = None
        while True:
            query: Query = () if after is None else (("after", str(after)),)
            document = await self._look("/v1/leases", query, timeout)
            found += map(read_lease, document["leases"])
            after = document.get("after")
            if after is None:
                return tuple(found)

    def kept_lease(self, ttl: float) -> KeptLease:
        """``async with client.kept_lease(10) as lease``: kept alive until the block ends, then revoked."""
        return KeptLease(self, ttl)


class KeptLease:
    """A lease that a task renews. It counts as lost when the cluster says so, or when its time has passed by
    this program's clock since the last renewal that was answered was *sent*: never later than the cluster
    ends it, however slow the network is.
    """

    def __init__(self, calls: LeaseCalls, ttl: float) -> None:
        self._calls = calls
        self.ttl_s = ttl
        self._lease: int | None = None
        self._valid_until = 0.0
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def id(self) -> int:
        """Raises ``LeaseLost`` before it is granted."""
        if self._lease is None:
            raise LeaseLost("the lease was not granted yet")
        return self._lease

    @property
    def lost(self) -> bool:
        if self._lease is None:
            return True
        return self._lost.is_set() or time.monotonic() >= self._valid_until

    def check(self) -> None:
        """Raises ``LeaseLost``."""
        if self.lost:
            raise LeaseLost(f"lease {self._lease or ''} could not be kept alive: it has ended, or may have")

    async def wait_lost(self) -> None:
        await self._lost.wait()

    async def start(self) -> None:
        """Be granted. Raises ``RaftkvError``."""
        sent = time.monotonic()
        granted = await self._calls.grant(self.ttl_s)
        self._lease, self.ttl_s = granted.lease, granted.ttl_s
        self._valid_until = sent + self.ttl_s
        self._task = asyncio.create_task(self._keep(granted.lease))

    async def stop(self) -> None:
        """Renew it no more, and end it; if no node answers, its time ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._lease is not None and not self._lost.is_set():
            self._lost.set()
            with suppress(RaftkvError):
                await self._calls.revoke(self._lease, timeout=self.ttl_s)

    async def _keep(self, lease: int) -> None:
        pause_s = self.ttl_s / _RENEWALS
        while True:
            await asyncio.sleep(max(0.0, min(pause_s, self._valid_until - time.monotonic())))
            sent = time.monotonic()
            left_s = self._valid_until - sent
            try:
                if left_s <= 0:
                    raise Unreachable("no renewal was answered in time")
                await self._calls.keep_alive(lease, timeout=left_s)
            except RaftkvError as error:
                if error.code == NO_SUCH_LEASE or time.monotonic() >= self._valid_until:
                    self._lost.set()
                    return
                pause_s = _LEAST_PAUSE_S
            else:
                self._valid_until = sent + self.ttl_s
                pause_s = self.ttl_s / _RENEWALS

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises ``LeaseLost`` if it was lost within the block, and nothing else was raised there."""
        was_lost = self.lost
        await self.stop()
        if was_lost and error is None:
            raise LeaseLost(f"lease {self._lease} was lost before its block ended")
