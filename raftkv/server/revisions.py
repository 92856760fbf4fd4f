"""Reads that wait until this node has applied a revision (``min_revision``): looked at after each turn, which
is the only time when revisions grow.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from raftkv.errors import NotReached, ShuttingDown, TooManyRequests

MAX_WAITING = 20_000  # beyond it 429


class RevisionWaiters:
    def __init__(self, revision: Callable[[], int], max_waiting: int = MAX_WAITING) -> None:
        """``revision``: what the machine is at now."""
        self._revision = revision
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        # The lowest first. Some have gone: their time was up, or their client has.
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._gone = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting) - self._gone

    async def reached(self, revision: int, timeout_ms: float) -> None:
        """Return once the machine is at ``revision`` or beyond it.

        Raises ``NotReached`` after ``timeout_ms``, ``TooManyRequests`` at once where too many wait,
        ``ShuttingDown`` when the node stops meanwhile. All of them ``not_applied``.
        """
        if self._revision() >= revision:
            return
        if len(self) >= self._max_waiting:
            raise TooManyRequests("too many reads wait on this node for a revision", retry_after_ms=100)
        waiter: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, (revision, next(self._numbers), waiter))
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await waiter
        except TimeoutError:
            raise NotReached(
                f"this node is at revision {self._revision()} and did not get to {revision} in time; it is "
                "behind or cut off, or no such revision has been acknowledged",
                retry_after_ms=1000,
                extra={"revision": self._revision()},
            ) from None
        finally:
            if waiter.cancelled():
                self._leave()

    def _leave(self) -> None:
        """One that waits no more is still in the heap, which must not grow by such."""
        self._gone += 1
        if self._gone * 2 > len(self._waiting):
            self._waiting = [each for each in self._waiting if not each[2].done()]
            heapq.heapify(self._waiting)
            self._gone = 0

    def turned(self) -> None:
        """A turn has ended, and may have applied something."""
        now = self._revision() if self._waiting else 0
        while self._waiting and self._waiting[0][0] <= now:
            waiter = heapq.heappop(self._waiting)[2]
            if waiter.done():
                self._gone -= 1
            else:
                waiter.set_result(None)

    def stop(self) -> None:
        """Nothing will be applied any more."""
        for _, _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(ShuttingDown("this node is stopping; ask another", retry_after_ms=1000))
        self._waiting, self._gone = [], 0
