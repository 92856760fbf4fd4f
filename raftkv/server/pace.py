"""How long jobs share the loop and the network with what is urgent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

_BURST_S = 0.05  # how far ahead of its rate a sender may be


class Pace:
    """Lets a job that is done in the loop's turns have at most ``share`` (0 < share <= 1) of its time."""

    def __init__(self, share: float) -> None:
        self._rest_per_work = 1 / share - 1
        self._worked_s = 0.0
        self.longest_s = 0.0  # of one piece of work

    @contextmanager
    def work(self) -> Iterator[None]:
        start_s = perf_counter()
        try:
            yield
        finally:
            seconds = perf_counter() - start_s
            self._worked_s += seconds
            self.longest_s = max(self.longest_s, seconds)

    async def rest(self) -> None:
        """Let others have their turns, for as long as the work since the last rest has earned them."""
        rest_s, self._worked_s = self._worked_s * self._rest_per_work, 0.0
        await asyncio.sleep(rest_s)


class TokenBucket:
    """A bound on bytes a second, shared by all who ask."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._loop = asyncio.get_running_loop()
        self._free_at_s = 0.0  # when all that was let through would be sent at that rate

    async def take(self, size_bytes: int) -> None:
        """Return when ``size_bytes`` may be sent. In the order of asking; larger ones than the burst too."""
        now_s = self._loop.time()
        self._free_at_s = max(self._free_at_s, now_s - _BURST_S) + size_bytes / self._bytes_per_s
        if self._free_at_s > now_s:
            await asyncio.sleep(self._free_at_s - now_s)
