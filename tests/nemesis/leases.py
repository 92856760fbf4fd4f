"""Leases: granted, kept alive for a while, then left or revoked; each with a key that goes with it.

What is promised: a lease doesn't end before its ttl has passed since the grant, or the keepalive, that was
answered *was sent*. Who keeps it is one clock away from the cluster, and all of them here share one. That a
lease has ended shows in two ways: somebody is told "no such lease", or anybody is told of the revision at
which its key was deleted, or of a later one.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.cluster.harness import Cluster
from tests.nemesis.notes import PREFIX, Moments, Note, of
from tests.nemesis.pace import pause
from tests.nemesis.record import Record
from tests.nemesis.roaming import Worker

KEYS = f"{PREFIX}lease/"
TTLS_MS = (600, 1_000, 2_000)
MAX_KEPT_ALIVE = 8
# After the last keepalive and once all is healed; a new leader may let a ttl pass again.
GONE_WITHIN_S = 2 * max(TTLS_MS) / 1000 + 4.0
NO_SUCH_LEASE = "no_such_lease"


class Tenant(Worker):
    errors = (404,)

    _leases = 0

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            self._leases += 1
            key = f"{KEYS}{self.name}/{self._leases}"
            ttl_ms = self.chance.choice(TTLS_MS)
            if self.chance.random() < 0.3:
                await self._put(key, {"ttl": f"{ttl_ms}ms"}, {"key": key, "ttl_ms": ttl_ms})
            else:
                await self._keep(key, ttl_ms, stopping)
            self.move()
            await pause(self.chance.uniform(0, 0.2))
        self.close()

    async def _put(self, key: str, query: dict[str, str], asked: dict[str, object]) -> Note:
        return await self.ask("put", "PUT", f"/v1/kv/{quote(key, safe='')}", {}, query=query, asked=asked)

    async def _keep(self, key: str, ttl_ms: int, stopping: asyncio.Event) -> None:
        asked: dict[str, object] = {"key": key, "ttl_ms": ttl_ms}
        granted = await self.ask("grant", "POST", "/v1/leases", {"ttl": f"{ttl_ms}ms"}, asked=asked)
        if not granted.done:
            return
        lease = granted.body["lease"]
        asked = {**asked, "lease": lease}
        if not (await self._put(key, {"lease": str(lease)}, asked)).done:
            return
        for _ in range(self.chance.randint(0, MAX_KEPT_ALIVE)):
            await pause(ttl_ms / 1000 * self.chance.uniform(0.1, 0.6))
            if stopping.is_set():
                return
            kept = await self.ask("keepalive", "POST", f"/v1/leases/{lease}/keepalive", asked=asked)
            if kept.code == NO_SUCH_LEASE:
                return
            if not kept.done:
                self.move()
            if self.chance.random() < 0.2:
                await self.ask("look", "GET", f"/v1/leases/{lease}", asked=asked)
        if self.chance.random() < 0.3:
            await self.ask("revoke", "DELETE", f"/v1/leases/{lease}", asked=asked)


async def all_gone(cluster: Cluster) -> None:
    """Wait until no lease is left, once nobody keeps any alive. Raises AssertionError."""
    left: list[object] = []

    async def none_is_left() -> bool:
        reply = await cluster.request("GET", cluster.nodes[0], "/v1/leases?timeout=2s")
        left[:] = reply.body.get("leases", [reply])
        return not left

    try:
        await cluster.until(none_is_left, "all leases end", GONE_WITHIN_S)
    except AssertionError as error:
        raise AssertionError(
            f"lease: not ended {GONE_WITHIN_S:g} s after the last keepalive: {left[:5]}"
        ) from error


# -- the judge ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Life:
    """Of a lease, by what was told: it lives until ``until`` at least, unless revoked (from ``revoked``)."""

    name: str
    until: float = -math.inf
    revoked: float = math.inf
    ended: list[tuple[float, str]] = field(default_factory=list)  # when that was told, by what

    def promise(self, note: Note) -> None:
        self.until = max(self.until, note.call + note.asked["ttl_ms"] / 1000)

    def complaints(self) -> Iterator[str]:
        moment, words = min(self.ended, default=(math.inf, ""))
        if moment < min(self.until, self.revoked):
            yield f"{self.name} had ended {self.until - moment:.3f} s before it might: {words}"


def judge(notes: Sequence[Note], record: Record, moments: Moments) -> list[str]:
    """What is wrong, in words. ``record`` goes on until all leases have ended."""
    lives: defaultdict[object, _Life] = defaultdict(lambda: _Life(""))
    complaints: list[str] = []
    for note in of(notes, "grant", "put", "keepalive", "look", "revoke"):
        lease = note.body.get("lease") or note.asked.get("lease")
        if lease is None:
            continue
        life = lives[lease]
        life.name = f"lease {lease}"
        if note.what == "revoke":
            life.revoked = min(life.revoked, note.call)
        elif note.code == NO_SUCH_LEASE:
            life.ended.append((note.end, f"{note.what} was told so"))
        elif note.done and note.what in ("grant", "keepalive"):
            life.promise(note)
    for note in of(notes, "put"):
        complaints += _judge_put(note, lives, record, moments)
    for life in lives.values():
        complaints += life.complaints()
    left = [key for key in record.of_key if key.startswith(KEYS) and record.at(key, record.last_revision)]
    complaints += [f"{key} is there when all leases have ended" for key in left]
    return complaints


def _judge_put(
    note: Note, lives: defaultdict[object, _Life], record: Record, moments: Moments
) -> Iterator[str]:
    """Its key was there as long as the lease, which is its own where it was put with a ttl."""
    changes = record.of_key.get(note.asked["key"], [])
    put = next((change for change in changes if change.value is not None), None)
    if not note.done:
        return
    if put is None or put.revision != note.revision:
        yield f"{note.asked['key']} was acknowledged at {note.revision}, and there is {put}"
        return
    life = lives[put.lease]
    life.name = life.name or f"lease {put.lease}"
    if "lease" not in note.asked:
        life.promise(note)
    elif put.lease != note.asked["lease"]:
        yield f"{put} was to go with lease {note.asked['lease']}"
    if len(changes) > 1:
        deleted = changes[1].revision
        life.ended.append((moments.known_at(deleted), f"revision {deleted} deleted {put.key}"))


def figures(notes: Sequence[Note]) -> Counter[str]:
    return Counter(
        {
            "leases granted": sum(note.done for note in of(notes, "grant")),
            "leases kept alive": sum(note.done for note in of(notes, "keepalive")),
            "keys with a ttl": sum(note.done and "lease" not in note.asked for note in of(notes, "put")),
        }
    )
