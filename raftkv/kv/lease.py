"""Leases: promises that keys live on for a while, renewed or not. In cluster time, which stands still while
there is no leader, so no lease ends because nobody could renew it.

A lease's keys are known to the store; here is only when it ends.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

MIN_TTL_MS = 100
MAX_TTL_MS = 100 * 365 * 24 * 3_600_000
MAX_LEASES = 200_000
MAX_ID = (1 << 53) - 1  # exact also where a reader of JSON has only floats
MAX_CHOSEN_ID = 1 << 52  # by a client: those that are given go on from it, and must not come to an end


class Lease(NamedTuple):
    ttl_ms: int
    expires_ms: int  # cluster time
    own: bool  # of one key, put with a time to live: goes when that key goes


class Leases:
    def __init__(self) -> None:
        self.next_id = 1
        self.due_ms: float = float("inf")  # cluster time; none ends before that
        self._leases: dict[int, Lease] = {}
        self._ends: list[tuple[int, int]] = []  # a heap of (when, id), old ends included

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, lease: int) -> Lease | None:
        return self._leases.get(lease)

    def grant(self, ttl_ms: int, time_ms: int, *, own: bool = False, lease: int = 0) -> int:
        """A new one's id; ``lease``: which, one that isn't there. It lasts from ``time_ms`` on."""
        lease = lease or self.next_id
        self.next_id = max(self.next_id, lease + 1)
        self._leases[lease] = Lease(ttl_ms, time_ms + ttl_ms, own)
        self._ends_at(time_ms + ttl_ms, lease)
        return lease

    def keep_alive(self, lease: int, time_ms: int) -> Lease | None:
        """It lasts its whole time from ``time_ms`` on. None: there is no such lease."""
        known = self._leases.get(lease)
        if known is None:
            return None
        renewed = self._leases[lease] = known._replace(expires_ms=time_ms + known.ttl_ms)
        if renewed.expires_ms != known.expires_ms:
            self._ends_at(renewed.expires_ms, lease)
        return renewed

    def remove(self, lease: int) -> bool:
        """Whether it was there."""
        return self._leases.pop(lease, None) is not None

    def take_due(self, time_ms: int) -> list[int]:
        """Those that have ended by ``time_ms``, in the order in which they did; they are no more."""
        ended = []
        while self._ends and self._ends[0][0] <= time_ms:
            at_ms, lease = heappop(self._ends)
            known = self._leases.get(lease)
            if known is not None and known.expires_ms == at_ms:
                del self._leases[lease]
                ended.append(lease)
        self.due_ms = self._ends[0][0] if self._ends else float("inf")
        return ended

    def _ends_at(self, at_ms: int, lease: int) -> None:
        if len(self._ends) > 2 * len(self._leases) + 64:
            self._ends = [(each.expires_ms, known) for known, each in self._leases.items()]
            heapify(self._ends)
        else:
            heappush(self._ends, (at_ms, lease))
        self.due_ms = self._ends[0][0]

    # -- snapshots -----------------------------------------------------------------------------------------

    def rows(self) -> dict[int, Lease]:
        """A copy."""
        return self._leases.copy()

    def add(self, lease: int, row: Lease) -> None:
        """One of ``rows``."""
        self._leases[lease] = row
        self._ends_at(row.expires_ms, lease)
