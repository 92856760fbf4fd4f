"""Locks: several contend for a few; who has one writes with its fencing token, and at times stands still.

A lock is asked for with a ttl, or with a lease that is there, and then again through other nodes. A holder is
*sure* that it is its own from each answer (to the acquisition, to a keepalive) until the ttl has passed since
the lease's grant, or its last keepalive, that was answered was sent; or until it asks to release. No two may
be sure at one time, and tokens grow with time. What is written to is a key that keeps the last writer's
token, compared in a transaction: who is sure must not be refused, and whose token is older than the last
writer's must be.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raftkv.verify.history import Outcome
from tests.nemesis.notes import PREFIX, Moments, Note, of
from tests.nemesis.pace import pause
from tests.nemesis.record import Record
from tests.nemesis.roaming import Worker

LOCKS = ("one", "two")
FENCES = f"{PREFIX}fence/"
TTL_MS = 1_000
WAIT_MS = 1_500
MAX_ATTEMPTS = 6
GOES_AWAY = 0.15
STANDS_STILL = 0.15


class Contender(Worker):
    errors = (404, 409)

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            lock = self.chance.choice(LOCKS)
            acquired = await (self._by_ttl(lock) if self.chance.random() < 0.5 else self._by_lease(lock))
            if acquired.done:
                told = acquired.body
                await self._hold({**acquired.asked, "lease": told["lease"], "token": told["fencing_token"]})
            await self.go_on(failed=not acquired.done, think_s=0.03)
        self.close()

    async def _by_ttl(self, lock: str) -> Note:
        wait_ms = self.chance.choice((0, WAIT_MS, WAIT_MS))
        return await self._acquire({"ttl": f"{TTL_MS}ms"}, wait_ms, {"lock": lock, "ttl_ms": TTL_MS})

    async def _by_lease(self, lock: str) -> Note:
        """Which it keeps alive itself while it waits, so no request waits for long."""
        asked: dict[str, Any] = {"lock": lock, "ttl_ms": TTL_MS}
        note = await self.ask("grant for a lock", "POST", "/v1/leases", {"ttl": f"{TTL_MS}ms"}, asked=asked)
        for _ in range(MAX_ATTEMPTS):
            if not note.done:
                break
            lease = note.body["lease"]
            acquired = await self._acquire({"lease": lease}, TTL_MS // 4, {**asked, "renewed": note.call})
            if acquired.done or acquired.status == 404:
                return acquired
            if acquired.status != 409:
                self.move()
            note = await self.ask("renew", "POST", f"/v1/leases/{lease}/keepalive", asked=asked)
        return replace(note, outcome=Outcome.FAIL)

    async def _acquire(self, document: dict[str, Any], wait_ms: int, asked: dict[str, Any]) -> Note:
        """``asked["renewed"]``: when the lease, if it is one that was there, was last."""
        path, query = f"/v1/locks/{asked['lock']}", {"wait": f"{wait_ms}ms"}
        return await self.ask("acquire", "POST", path, document, query=query, asked=asked, wait_ms=wait_ms)

    async def _hold(self, asked: dict[str, Any]) -> None:
        lease, token = asked["lease"], asked["token"]
        for _ in range(self.chance.randint(1, 4)):
            kept = await self.ask("hold", "POST", f"/v1/leases/{lease}/keepalive", asked=asked)
            if not kept.done:
                break
            await self.ask("fenced", "POST", "/v1/txn", fenced(asked), asked=asked)
            await pause(self.chance.uniform(0, TTL_MS / 3_000))
        if self.chance.random() < STANDS_STILL:  # and doesn't know for how long it has
            await pause(TTL_MS / 1000 * self.chance.uniform(1.0, 2.0))
            await self.ask("fenced", "POST", "/v1/txn", fenced(asked), asked=asked)
        if self.chance.random() >= GOES_AWAY:
            query = {"fencing_token": str(token)} if self.chance.random() < 0.5 else {"lease": str(lease)}
            await self.ask("release", "DELETE", f"/v1/locks/{asked['lock']}", query=query, asked=asked)


def fenced(asked: dict[str, Any]) -> dict[str, Any]:
    """Write, unless somebody with a larger token has."""
    key, value = f"{FENCES}{asked['lock']}", f"{asked['token']:012}"
    return {
        "if": [{"key": key, "target": "value", "op": ">", "value": value}],
        "else": [{"put": {"key": key, "value": value}}],
    }


# -- the judge ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Sure:
    """From ``begun`` to ``ended`` ``client`` is sure that it has the lock."""

    begun: float
    ended: float
    token: int
    client: str

    def __str__(self) -> str:
        return f"{self.client} with token {self.token} (from {self.begun:.3f} to {self.ended:.3f})"


def sure_times(notes: Sequence[Note]) -> dict[str, list[Sure]]:
    """By lock, in order."""
    released = {note.asked["token"]: note.call for note in of(notes, "release")}
    found: defaultdict[str, list[Sure]] = defaultdict(list)
    for note in of(notes, "acquire", "hold"):
        if not note.done:
            continue
        token = note.body["fencing_token"] if note.what == "acquire" else note.asked["token"]
        renewed = note.asked.get("renewed", note.call) if note.what == "acquire" else note.call
        until = renewed + note.asked["ttl_ms"] / 1000
        ended = min(until, released.get(token, until))
        if note.end < ended:
            found[note.asked["lock"]].append(Sure(note.end, ended, token, note.client))
    return {lock: sorted(times) for lock, times in found.items()}


def judge(notes: Sequence[Note], record: Record, moments: Moments) -> list[str]:
    """What is wrong, in words."""
    complaints: list[str] = []
    sure = sure_times(notes)
    for lock, times in sure.items():
        last: Sure | None = None
        for each in times:
            if last is not None and each.token != last.token:
                if each.begun < last.ended:
                    complaints.append(f"{lock} has two holders: {last}, and {each}")
                elif each.token < last.token:
                    complaints.append(f"{lock}'s tokens don't grow: {last}, then {each}")
            if last is None or each.ended > last.ended:
                last = each
    holders: dict[int, str] = {}
    for note in of(notes, "acquire"):
        if note.done and holders.setdefault(note.body["fencing_token"], note.client) != note.client:
            complaints.append(f"token {note.body['fencing_token']} was given twice")
    for note in of(notes, "fenced"):
        complaints += _judge_write(note, sure.get(note.asked["lock"], []), record)
    for lock in LOCKS:
        complaints += _judge_fence(lock, record)
    return complaints


def _judge_write(note: Note, sure: Sequence[Sure], record: Record) -> Iterator[str]:
    if not note.done:
        return
    token, was_refused = note.asked["token"], note.body["succeeded"]
    if was_refused:
        for each in sure:
            if each.token == token and each.begun <= note.call and note.end <= each.ended:
                yield f"{note.asked['lock']}: a valid token was refused: {each}"
        return
    found = [(change.key, change.value) for change in record.of_revision.get(note.revision or 0, [])]
    if found != [(f"{FENCES}{note.asked['lock']}", f"{token:012}")]:
        yield f"a fenced write of token {token} was acknowledged at {note.revision}, and there is {found}"


def _judge_fence(lock: str, record: Record) -> Iterator[str]:
    highest = ""
    for change in record.of_key.get(f"{FENCES}{lock}", []):
        value = change.value or ""
        if value < highest:
            yield f"{lock}: revision {change.revision} was written with token {value}, after {highest}"
        highest = max(highest, value)


def figures(notes: Sequence[Note]) -> Counter[str]:
    written = [note for note in of(notes, "fenced") if note.done]
    return Counter(
        {
            "locks granted": sum(note.done for note in of(notes, "acquire")),
            "locks granted by lease": sum(
                note.done and "renewed" in note.asked for note in of(notes, "acquire")
            ),
            "fenced writes": sum(not note.body["succeeded"] for note in written),
            "fenced writes refused": sum(note.body["succeeded"] for note in written),
        }
    )
